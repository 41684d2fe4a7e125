"""Each primitive on a ragged batch gives what it means for each sequence alone, and what the reference says; its
gradient is finite and respects padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from returnn_lite.dims import Dim, TensorType
from returnn_lite.ir import Graph, Value
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.elementwise import Cast, Elementwise
from returnn_lite.ir.ops.reduction import Reduce
from returnn_lite.ir.ops.sources import Initializer, Parameter
from returnn_lite.tf.executable import Executable
from returnn_lite.tf.outputs import RunOutput
from tests.tf.cases import CASES, LENGTHS, B, Case, T
from tests.tf.more_cases import MORE_CASES
from tests.tf.test_reference import assert_interpreted

POSITIVE = {"log", "sqrt", "truediv", "sigmoid cross entropy"}
SORTED = {"search sorted", "search sorted along the same"}


def graph_of(case: Case) -> Graph:
    """The primitive behind an addition that leaves something other than zeros in the padding, and a loss.

    Floats are `scale * x + 2` with a parameter, so that gradients pass the primitive.
    """
    b = Builder()
    scale = b.apply(Parameter("scale", (), Initializer("constant", (("value", 1.0),))))
    operands = []
    for position, type_ in enumerate(case.types()):
        x = b.input(f"x{position}", type_)
        if type_.is_float:
            x = b.apply(Elementwise("add"), b.apply(Elementwise("mul"), x, scale), b.constant(2.0))
        operands.append(x)
    outputs = b.emit(case.op, *operands)
    total = b.constant(0.0)
    for output in outputs:
        real = b.apply(Cast("float32"), output)
        finite = b.apply(
            Elementwise("minimum"), b.apply(Elementwise("maximum"), real, b.constant(-9.0)), b.constant(9.0)
        )
        total = b.apply(Elementwise("add"), total, b.apply(Reduce("sum", finite.type.dims), finite))
    return b.graph({str(i): output for i, output in enumerate(outputs)} | {"total": total})


def lengths_of(dim: Dim) -> list[int]:
    return LENGTHS[dim]


def random_feeds(case: Case, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    feeds = {}
    for position, (dims, classes) in enumerate(case.operands):
        shape = [len(LENGTHS[T]) if dim is B else dim.size or max(LENGTHS[dim]) for dim in dims]
        if classes > 0:
            feeds[f"x{position}"] = generator.integers(0, classes, shape)
        elif classes < 0:
            feeds[f"x{position}"] = generator.random(shape) < 0.5
        else:
            x = generator.standard_normal(shape)
            x = np.abs(x) / (1 + np.abs(x)) - 2 + 0.1 if case.name in POSITIVE else x
            feeds[f"x{position}"] = np.sort(x) if case.name in SORTED else x
    return feeds


def alone(case: Case, feeds: dict[str, np.ndarray], sequence: int) -> list[np.ndarray]:
    """The operands of one sequence, without the batch dim, as the primitive sees them."""
    operands = []
    for position, (dims, classes) in enumerate(case.operands):
        x = feeds[f"x{position}"]
        x = x + 2 if classes == 0 else x
        index = tuple(
            sequence if dim is B else slice(None) if dim.size is not None else slice(0, LENGTHS[dim][sequence])
            for dim in dims
        )
        if B not in dims and any(dim.size is None for dim in dims):
            index = tuple(slice(None) if dim.size is not None else slice(0, LENGTHS[dim][sequence]) for dim in dims)
        operands.append(x[index])
    return operands


def sequence_of(output: RunOutput, value: Value, sequence: int) -> np.ndarray:
    """One sequence of an output, cut to its lengths, in the declared order of dims."""
    type_: TensorType = value.type
    order = [output.dims.index(dim) for dim in type_.dims]
    x = output.value.transpose(order)
    index: list[int | slice] = []
    for dim in type_.dims:
        if dim is B:
            index.append(sequence)
        elif dim in output.lengths:
            lengths = output.lengths[dim]
            index.append(slice(0, int(lengths[sequence] if lengths.ndim else lengths)))
        else:
            index.append(slice(None))
    return x[tuple(index)]


class WithGradients(Executable):
    """Runs a graph as it is lowered for gradients, so that one trace is enough: outside of loops nothing differs."""

    def run(
        self, feed: Mapping[str, Any], lengths: Mapping[Dim, Any] | None = None, seed: int | None = None
    ) -> dict[str, RunOutput]:
        return self.run_with_gradients(feed, lengths, of="total", seed=seed)[0]


def check(case: Case, reference: bool = True) -> None:
    """All that a primitive must be, of one compilation."""
    has_gradient = any(classes == 0 for _, classes in case.operands)
    executable = (WithGradients if has_gradient else Executable)(graph_of(case), B, "float64")
    assert_batch_is_its_sequences(case, executable)
    if reference:
        for seed in range(3):
            assert_interpreted(executable, random_feeds(case, seed), LENGTHS, len(LENGTHS[T]))
    if has_gradient:
        assert_gradient_is_finite_and_right(case, executable)


@pytest.mark.parametrize("case", [*CASES, *MORE_CASES], ids=str)
def test_primitive(case: Case) -> None:
    # The random mask of "hold" lets more frames through than there are, of which the reference knows nothing.
    check(case, reference=case.name != "hold")


def assert_batch_is_its_sequences(case: Case, executable: Executable) -> None:
    feeds = random_feeds(case, 1)
    outputs = executable.run(feeds, LENGTHS)
    for sequence in range(len(LENGTHS[T])):
        expected = case.meaning(*alone(case, feeds, sequence))
        expected = expected if isinstance(expected, tuple) else (expected,)
        for position, wanted in enumerate(expected):
            found = sequence_of(outputs[str(position)], executable.graph.outputs[str(position)], sequence)
            if wanted.ndim < found.ndim:
                wanted = np.broadcast_to(wanted, found.shape)
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9, err_msg=f"sequence {sequence}")


def assert_gradient_is_finite_and_right(case: Case, executable: Executable) -> None:
    feeds = random_feeds(case, 2)
    gradient = executable.run_with_gradients(feeds, LENGTHS, of="total")[1]["scale"]
    assert np.isfinite(gradient)
    scale = executable.params["scale"]
    totals = []
    for step in (-1e-4, 1e-4):
        scale.assign(1.0 + step)
        totals.append(float(executable.run(feeds, LENGTHS)["total"].value))
    np.testing.assert_allclose(gradient, (totals[1] - totals[0]) / 2e-4, rtol=1e-3, atol=1e-5)
