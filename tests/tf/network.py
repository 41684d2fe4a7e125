"""What the tests of loops and search build graphs from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from returnn_lite.dims import Dim, DimKind, Symbol
from returnn_lite.ir import Value
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.contraction import Dot
from returnn_lite.ir.ops.elementwise import Elementwise
from returnn_lite.ir.ops.sources import Initializer, Parameter
from returnn_lite.tf.outputs import RunOutput

B = Symbol("B", DimKind.BATCH)
T = Symbol("T", varies_over=(B,))
S = Symbol("S", varies_over=(B,))
F = Symbol("F", DimKind.FEATURE, 3)
GLOROT = (("mode", "fan_avg"), ("distribution", "uniform"))


def feature(name: str, size: int) -> Symbol:
    return Symbol(name, DimKind.FEATURE, size)


def parameter(b: Builder, name: str, *dims: Dim) -> Value:
    """A parameter with random values."""
    return b.apply(Parameter(name, dims, Initializer("variance_scaling", GLOROT, dims[:1], dims[1:])))


def apply(b: Builder, kind: str, *inputs: Value) -> Value:
    return b.apply(Elementwise(kind), *inputs)


def dot(b: Builder, x: Value, y: Value, *over: Dim) -> Value:
    return b.apply(Dot(over), x, y)


def array(output: RunOutput, dims: Sequence[Dim]) -> np.ndarray:
    """An output with its axes in the given order."""
    return output.value.transpose([output.dims.index(dim) for dim in dims])
