"""Python functions of configs as values of the graph: they run on the tensors themselves."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from returnn_lite.dims import TensorType, union_of_dims
from returnn_lite.ir.ops.elementwise import HostCall
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder


def function_of_sources(
    b: LayerBuilder, function: Callable[..., object], sources: Sequence[View], names: Mapping[str, Any], option: str
) -> View:
    """A function of a Python config as RETURNN calls it: `source(i)` gives the tensors, `eval_locals` are keywords.

    Raises LayerError if it wants other arguments.
    """
    parameters = inspect.signature(function).parameters
    if not any(name == "source" or p.kind is p.VAR_KEYWORD for name, p in parameters.items()):
        b.fail("the function needs a parameter 'source'", "def f(source, **kwargs): return source(0) * 2", option)
    for name, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        )
        if required and name != "source" and name not in names:
            b.fail(f"the function wants '{name}'", "only 'source' and eval_locals are given", option)

    def call(*tensors: object) -> object:
        return function(source=lambda i, **_: tensors[i], **names)

    return host_call(b, call, getattr(function, "__name__", option), sources)


def host_call(b: LayerBuilder, function: Callable[..., object], name: str, values: Sequence[View]) -> View:
    """A Python function on tensors, element by element as far as dims go: the result has the dims of its operands.

    Its dtype is out_type's, or that of the first operand.
    """
    types = tuple(value.type for value in values)
    dtype = str(b.surroundings.given.out_type.get("dtype", types[0].dtype))
    result = TensorType(union_of_dims(types), dtype, types[0].sparse if dtype.startswith("int") else None)
    return b.apply(HostCall(function, name, result), *values)
