"""A function of one sequence, without batch and padding, applied to each sequence of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from returnn_lite.dims import Dim, DimKind
from tests.reference.named import Array, Lengths, Named, real, union

Operand = tuple[Named, tuple[Dim, ...]]
"""A value, and the dims that the function sees, in the order in which it sees them; all others are batch dims."""


def per_sequence(
    lengths: Lengths, operands: Sequence[Operand], outs: Sequence[tuple[Dim, ...]], function: Callable[..., object]
) -> tuple[Named, ...]:
    """The results of a function of NumPy arrays, cut to their lengths; each has its dims of `outs` behind the batch's.

    The function must give as many frames as the dims of `outs` say; a dim of unknown length gets its length from it.
    What is the same for all sequences is as long as the longest.
    """
    inner = {dim for _, dims in operands for dim in dims} | {dim for dims in outs for dim in dims}
    created = [dim for dims in outs for dim in dims if not lengths.knows(dim)]
    batch = tuple(dim for dim in union(x for x, _ in operands) if dim not in inner)
    shape = [lengths.size(dim) for dim in batch]
    counts = {dim: _counts(dim, batch, shape, lengths) for dim in inner if dim not in created}
    of_sequence = [_cutter(x, dims, batch, counts, lengths) for x, dims in operands]
    found: dict[tuple[int, ...], tuple[Array, ...]] = {}
    for at in map(tuple, np.argwhere(real(Named(np.zeros(shape), batch), lengths).array).tolist()):
        results = function(*[cut(at) for cut in of_sequence])
        arrays = tuple([np.asarray(x) for x in (results if isinstance(results, tuple) else (results,))])
        for array, dims in zip(arrays, outs, strict=True):
            wanted = [None if dim in created else counts[dim][at] for dim in dims]
            assert all(n in (None, m) for n, m in zip(wanted, array.shape, strict=True)), (array.shape, wanted, dims)
        found[at] = arrays
    for dim in created:
        ((position, axis),) = ((p, dims.index(dim)) for p, dims in enumerate(outs) if dim in dims)
        counts = np.zeros(shape, int)
        for at_, arrays in found.items():
            counts[at_] = arrays[position].shape[axis]
        lengths.known[dim] = Named(counts, batch)
    return tuple(_together(found, position, batch, dims, lengths) for position, dims in enumerate(outs))


def along(over: Dim, x: Named) -> tuple[Dim, ...]:
    """A dim and the static dims of a value: what a function of frames sees. Each hypothesis has its own frames."""
    return (over, *(dim for dim in x.dims if dim != over and dim.size is not None and dim.kind is not DimKind.BEAM))


def _counts(dim: Dim, batch: tuple[Dim, ...], shape: Sequence[int], lengths: Lengths) -> Array:
    """The length of a dim for each sequence; the longest of what it varies over beside the batch."""
    length = lengths.of(dim)
    inside = tuple(axis for axis, over in enumerate(length.dims) if over not in batch)
    longest = Named(length.array.max(axis=inside, initial=0), tuple(over for over in length.dims if over in batch))
    return np.broadcast_to(longest.over(batch), shape)


def _cutter(
    x: Named, dims: tuple[Dim, ...], batch: tuple[Dim, ...], counts: Mapping[Dim, Array], lengths: Lengths
) -> Callable[[tuple[int, ...]], Array]:
    """What gives the frames of a sequence, whose place in the batch it is told."""
    own = tuple(dim for dim in x.dims if dim not in dims)
    places = [batch.index(dim) for dim in own]
    wanted = (*own, *dims)
    array = x.over(wanted)
    shape = tuple(size if dim in own else lengths.size(dim) for dim, size in zip(wanted, array.shape, strict=True))
    whole = array if array.shape == shape else np.broadcast_to(array, shape)
    ragged = [counts[dim] if lengths.is_ragged(dim) else None for dim in dims]

    def cut(at: tuple[int, ...]) -> Array:
        frames = [slice(None) if count is None else slice(0, int(count[at])) for count in ragged]
        return whole[(*[at[place] for place in places], *frames)]

    return cut


def _together(
    found: Mapping[tuple[int, ...], tuple[Array, ...]],
    position: int,
    batch: tuple[Dim, ...],
    dims: tuple[Dim, ...],
    lengths: Lengths,
) -> Named:
    dtype = np.result_type(*(arrays[position].dtype for arrays in found.values())) if found else np.dtype(float)
    whole = np.zeros([lengths.size(dim) for dim in (*batch, *dims)], dtype)
    for index, arrays in found.items():
        whole[index + tuple(slice(0, size) for size in arrays[position].shape)] = arrays[position]
    return Named(whole, (*batch, *dims))
