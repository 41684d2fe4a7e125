"""A type rule accepts no dtypes that the lowering cannot take: so a network that `check` accepts is compiled."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import tensorflow as tf

from returnn_lite.dims import DimError, TensorType
from returnn_lite.ir import Graph
from returnn_lite.ir.builder import Builder
from returnn_lite.tf.executable import Executable
from tests.commit import takes_part
from tests.tf.cases import CASES, B, Case
from tests.tf.more_cases import MORE_CASES

DTYPES = ("float32", "int32", "bool")
IN_TENSORFLOW = 6
"""One in so many of what the rules accept is lowered."""


def other_types(case: Case) -> Iterator[list[TensorType]]:
    """The case's operands in other dtypes: one of them, or all."""
    types = case.types()
    for position, own in enumerate(types):
        for dtype in DTYPES:
            if dtype != own.dtype:
                yield [replace(own, dtype=dtype) if i == position else type_ for i, type_ in enumerate(types)]
    for dtype in DTYPES:
        yield [replace(type_, dtype=dtype) for type_ in types]


def accepted(case: Case, types: list[TensorType]) -> Graph | None:
    """The case as a graph, if its type rule takes operands of these types."""
    b = Builder()
    inputs = [b.input(f"x{position}", type_) for position, type_ in enumerate(types)]
    try:
        outputs = b.emit(case.op, *inputs)
    except DimError:
        return None
    return b.graph({str(position): output for position, output in enumerate(outputs)})


def all_accepted() -> dict[str, Graph]:
    """Each primitive with each tuple of dtypes once."""
    found: dict[str, Graph] = {}
    for case in (*CASES, *MORE_CASES):
        for types in other_types(case):
            name = f"{case.op.label} {getattr(case.op, 'kind', '')} {' '.join(type_.dtype for type_ in types)}"
            if name not in found and (graph := accepted(case, types)) is not None:
                found[name] = graph
    return found


GRAPHS = all_accepted()


@pytest.mark.parametrize("name", [name for name in GRAPHS if takes_part(name, IN_TENSORFLOW)])
def test_what_a_type_rule_accepts_is_lowered(name: str) -> None:
    executable = Executable(GRAPHS[name], B)

    def lowered(*given: Any) -> dict[str, tf.Tensor]:
        return {output: tensor.raw for output, tensor in executable.call(*given).outputs.items()}

    signature = (executable.feed_signature(), executable.length_signature(), tf.TensorSpec([], tf.int32))
    tf.function(lowered, signature, autograph=False).get_concrete_function()
