"""The meaning of a primitive among some frames: what it gives where there are no others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from returnn_lite.dims import Dim, TensorType
from returnn_lite.ir import Op
from returnn_lite.ir.ops.among import Among
from tests.reference import axes, contraction, elementwise, gradients, indexing, losses, recurrence, reduction
from tests.reference.named import Array, Lengths, Named, filled, union
from tests.reference.rule import Rule

FAMILIES = (axes, contraction, elementwise, gradients, indexing, losses, recurrence, reduction)
INNER: Mapping[type[Op], Rule] = {op: rule for family in FAMILIES for op, rule in family.RULES.items()}


def among(op: Among, lengths: Lengths, absent: Named, *inputs: Named) -> tuple[Named, ...]:
    """The inner primitive, once for each frame of the mask's other dims, on what takes part there."""
    mask = filled(Named(~absent.array, absent.dims), (op.over,), False, lengths)
    rest = tuple(dim for dim in mask.dims if dim != op.over)
    if op.op.numbers_frames:
        x, *others = inputs
        over = union([x, mask])
        frames = Named(np.where(mask.over(over), x.over(over), 0).astype(x.array.dtype), over)
        return (INNER[type(op.op)](op.op, lengths, frames, *others),)  # type: ignore[return-value]
    types = op.type_of(*(TensorType(x.dims, str(x.array.dtype)) for x in (mask, *inputs)))
    dims = [(*rest, *(dim for dim in type_.dims if dim not in rest)) for type_ in types]
    found: list[Array | None] = [None] * len(types)
    for index in np.ndindex(*(lengths.size(dim) for dim in rest)):
        at = dict(zip(rest, index, strict=True))
        there = np.flatnonzero(mask.over((*rest, op.over))[index])
        own = Lengths({dim: _part(length, op.over, at, there) for dim, length in lengths.known.items()})
        own.known[op.over] = Named(np.array(len(there)), ())
        parts = [_cut(_part(x, op.over, at, there), own) for x in inputs]
        results: Any = INNER[type(op.op)](op.op, own, *parts)
        for i, result in enumerate(results if isinstance(results, tuple) else (results,)):
            inner = dims[i][len(rest) :]
            array = result.full(inner, own)
            if types[i].sparse == op.over:
                array = np.append(there, 0)[np.clip(array, 0, len(there))].astype(array.dtype)
            whole = found[i]
            if whole is None:
                whole = found[i] = np.zeros([lengths.size(dim) for dim in dims[i]], array.dtype)
            where = [there if dim == op.over else np.arange(array.shape[j]) for j, dim in enumerate(inner)]
            whole[(*index, *np.ix_(*where))] = array if len(there) else np.where(np.isfinite(array), array, 0)
    empty = [lengths.size(dim) for dim in rest]
    return tuple(
        Named(np.zeros([*empty, *(lengths.size(dim) for dim in over[len(rest) :])]) if array is None else array, over)
        for array, over in zip(found, dims, strict=True)
    )


def _part(x: Named, over: Dim, at: Mapping[Dim, int], there: Array) -> Named:
    """x at one frame of some dims, of those that take part along another."""
    array = x.array[tuple(at.get(dim, slice(None)) for dim in x.dims)]
    dims = tuple(dim for dim in x.dims if dim not in at)
    return Named(array.take(there, dims.index(over)) if over in dims else array, dims)


def _cut(x: Named, lengths: Lengths) -> Named:
    """x without what is behind the longest of those that take part."""
    return Named(x.array[tuple(slice(0, lengths.size(dim)) for dim in x.dims)], x.dims)


RULES: Mapping[type[Op], Rule] = {Among: among}
