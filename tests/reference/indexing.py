"""Meanings of the primitives that pick entries."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from returnn_lite.dims import Dim, DimKind, Symbol
from returnn_lite.ir import Op
from returnn_lite.ir.ops.indexing import CheckIndex, Concat, Gather, OneHot, Scatter, SearchSorted, Slice, SliceAt, Sort
from tests.reference.elementwise import numpy_dtype
from tests.reference.named import Array, Lengths, Named, real, union
from tests.reference.rule import Rule
from tests.reference.sequences import along, per_sequence


def gather(op: Gather, lengths: Lengths, x: Named, index: Named) -> Named:
    """x at the indices; those out of range are moved into the sequence, as `clip` promises. 0 if it is empty."""
    length = lengths.of(op.over)
    dims = union([x, index, length])
    rest = tuple(dim for dim in dims if dim != op.over or dim in index.dims)
    if op.over in index.dims:
        source = tuple(dim for dim in rest if dim != op.over)
        return _gather_along_itself(op, lengths, x, index, source)
    whole = x.full((*rest, op.over), lengths)
    last = np.maximum(length.over(rest) - 1, 0)
    positions = np.minimum(np.maximum(index.full(rest, lengths), 0), last)
    if not whole.shape[-1]:
        return Named(np.zeros(positions.shape, whole.dtype), rest)
    found = np.take_along_axis(whole, positions[..., None].astype(int), -1)[..., 0]
    return Named(np.where(length.over(rest) > 0, found, 0), rest)


def _gather_along_itself(op: Gather, lengths: Lengths, x: Named, index: Named, rest: tuple[Dim, ...]) -> Named:
    """The indices vary over the very dim that they point into."""
    whole, picked = (value.full((*rest, op.over), lengths) for value in (x, index))
    last = np.maximum(lengths.of(op.over).over(rest) - 1, 0)[..., None]
    return Named(np.take_along_axis(whole, np.clip(picked, 0, last).astype(int), -1), (*rest, op.over))


def check_index(op: CheckIndex, lengths: Lengths, x: Named) -> Named:
    """The operand, which numbers entries at all real frames."""
    dims = union([x, lengths.of(op.over)])
    full = Named(x.full(dims, lengths), dims)
    fits = (full.array >= 0) & (full.array < lengths.of(op.over).over(dims))
    fits &= full.array != op.but if op.but is not None else True
    fits |= (full.array == 0) & op.held
    assert fits[real(full, lengths).array].all(), f"an index is none of {op.over}"
    return x


def one_hot(op: OneHot, lengths: Lengths, x: Named) -> Named:
    """1 at the class."""
    found = x.array[..., None] == np.arange(lengths.size(op.dim))
    return Named(found.astype(numpy_dtype(op.dtype)), (*x.dims, op.dim))


def slice_(op: Slice, lengths: Lengths, x: Named) -> Named:
    """Every step-th frame; a negative number counts from the end."""
    seen = along(op.over, x)
    count = lengths.of(op.out)

    def of_one(frames: Array, length: Array) -> Array:
        first = op.first
        if op.step < 0 or first < 0:
            first = len(frames) + first if first < 0 else len(frames) - 1 - first
        indices = [first + i * op.step for i in range(int(length))]
        picked = [frames[i] if 0 <= i < len(frames) else np.zeros(frames.shape[1:]) for i in indices]
        return np.array(picked, frames.dtype).reshape(int(length), *frames.shape[1:])

    return per_sequence(lengths, [(x, seen), (count, ())], [(op.out, *seen[1:])], of_one)[0]


def slice_at(op: SliceAt, lengths: Lengths, x: Named, start: Named, *size: Named) -> Named:
    """A window that begins where the second operand says, which may say it for each frame."""
    if size:
        lengths.known[op.out] = Named(np.maximum(size[0].array, 0), size[0].dims)
    over = Symbol("frames", varies_over=op.over.over) if op.over in start.dims else op.over
    lengths.known.setdefault(over, lengths.of(op.over))
    x = Named(x.array, tuple(over if dim == op.over else dim for dim in x.dims))
    seen = tuple(dim for dim in along(over, x) if dim not in start.dims)
    count = lengths.of(op.out)
    # A length may differ from hypothesis to hypothesis where the frames do not: there are as many as the longest has.
    own = tuple(dim for dim in count.dims if dim not in (*x.dims, *start.dims) and dim.kind is DimKind.BEAM)
    rest = tuple(dim for dim in count.dims if dim not in own)
    count = Named(count.array.max(tuple(map(count.axis, own))), rest) if own else count

    def of_one(frames: Array, first: Array, length: Array) -> Array:
        indices = [int(first) + i for i in range(int(length))]
        picked = [frames[i] if 0 <= i < len(frames) else np.zeros(frames.shape[1:]) for i in indices]
        return np.array(picked, frames.dtype).reshape(int(length), *frames.shape[1:])

    return per_sequence(lengths, [(x, seen), (start, ()), (count, ())], [(op.out, *seen[1:])], of_one)[0]


def scatter(op: Scatter, lengths: Lengths, x: Named, index: Named) -> Named:
    """Sums of the frames with the same index."""
    rest = tuple(dim for dim in x.dims if dim.size is not None and dim not in index.dims and dim not in op.over)
    size = lengths.of(op.out)

    def of_one(frames: Array, positions: Array, count: Array) -> Array:
        result = np.zeros((int(count), *frames.shape[len(op.over) :]), frames.dtype)
        for at in np.ndindex(positions.shape):
            if 0 <= positions[at] < count:
                result[positions[at]] += frames[at]
            else:
                assert op.drop_invalid, f"index {positions[at]} is out of range"
        return result

    operands = [(x, (*op.over, *rest)), (index, op.over), (size, ())]
    return per_sequence(lengths, operands, [(op.out, *rest)], of_one)[0]


def concat(op: Concat, lengths: Lengths, *inputs: Named) -> Named:
    """Each sequence's own frames, one operand after the other."""
    shared = (dim for dim in union(inputs) if dim.size is not None and dim.kind is not DimKind.BEAM)
    statics = tuple(dim for dim in shared if dim not in op.dims)
    operands = [(x, (dim, *statics)) for x, dim in zip(inputs, op.dims, strict=True)]
    joined = per_sequence(lengths, operands, [(op.out, *statics)], lambda *parts: np.concatenate(parts))
    return joined[0]


def search_sorted(op: SearchSorted, lengths: Lengths, x: Named, values: Named) -> Named:
    """NumPy's binary search; the values may have the sorted dim as well."""
    rest = tuple(dim for dim in values.dims if dim == op.over or dim not in x.dims)

    def of_one(one: Array, searched: Array) -> Array:
        found = np.searchsorted(one, searched.ravel(), "left" if op.side == "left" else "right")
        return found.reshape(searched.shape).astype("int32")

    return per_sequence(lengths, [(x, (op.over,)), (values, rest)], [rest], of_one)[0]


def sort(op: Sort, lengths: Lengths, x: Named) -> Named:
    """The order of each sequence; equal entries stay in place."""

    def of_one(one: Array) -> Array:
        return np.argsort(-one.astype(float) if op.descending else one, kind="stable").astype("int32")

    return per_sequence(lengths, [(x, (op.over,))], [(op.over,)], of_one)[0]


RULES: Mapping[type[Op], Rule] = {
    CheckIndex: check_index,
    Gather: gather,
    OneHot: one_hot,
    Slice: slice_,
    SliceAt: slice_at,
    Scatter: scatter,
    Concat: concat,
    SearchSorted: search_sorted,
    Sort: sort,
}
