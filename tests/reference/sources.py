"""Meanings of the primitives that make values from nothing. Parameters, random draws and step numbers are the
interpreter's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from returnn_lite.ir import Op
from returnn_lite.ir.ops.sources import AssignParameter, Constant, ConstantArray, Iota, Length
from tests.reference.elementwise import numpy_dtype, same
from tests.reference.named import Lengths, Named
from tests.reference.rule import Rule


def constant(op: Constant, lengths: Lengths) -> Named:
    """One number everywhere."""
    return Named(np.full([lengths.size(dim) for dim in op.dims], op.value, numpy_dtype(op.dtype)), op.dims)


def constant_array(op: ConstantArray, lengths: Lengths) -> Named:
    """The listed numbers."""
    return Named(np.array(op.values, numpy_dtype(op.dtype)).reshape([dim.size or 0 for dim in op.dims]), op.dims)


def iota(op: Iota, lengths: Lengths) -> Named:
    """0, 1, 2, ..."""
    return Named(np.arange(lengths.size(op.over), dtype=numpy_dtype(op.dtype)), (op.over,))


def length(op: Length, lengths: Lengths) -> Named:
    """How long a dim is."""
    found = lengths.of(op.of)
    return Named(found.array.astype(numpy_dtype(op.dtype)), found.dims)


RULES: Mapping[type[Op], Rule] = {
    Constant: constant,
    ConstantArray: constant_array,
    Iota: iota,
    Length: length,
    AssignParameter: same,
}
