"""Meanings of the primitives that sum products, and of pooling: sums over the positions of a filter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from returnn_lite.ir import Op
from returnn_lite.ir.ops.contraction import Conv, Dot, Pool, SpatialDim, TransposedConv
from tests.reference.named import Array, Lengths, Named, filled, union
from tests.reference.rule import Rule
from tests.reference.sequences import per_sequence

Position = tuple[int, ...]
Meeting = tuple[Position, list[tuple[Position, Position]]]
"""An output position, and which filter positions meet which input frames there."""


def dot(op: Dot, lengths: Lengths, a: Named, b: Named) -> Named:
    """The sum of products, frames beyond the lengths zero."""
    a, b = (filled(x, op.over, 0, lengths) for x in (a, b))
    dims = union([a, b])
    kept = tuple(dim for dim in dims if dim not in op.over)
    product = a.full(dims, lengths) * b.full(dims, lengths)
    return Named(product.sum(tuple(dims.index(dim) for dim in op.over)), kept)


def _geometry(spatial: SpatialDim, count: int, width: int) -> tuple[int, int]:
    """How many positions the filter has, and the frame (from the first) at which the first begins."""
    reach = (width - 1) * spatial.dilation + 1
    if spatial.padding == "valid":
        return max(-(-(count - reach + 1) // spatial.stride), 0), 0
    if spatial.padding == "same":
        positions = -(-count // spatial.stride)
        return positions, -(max((positions - 1) * spatial.stride + reach - count, 0) // 2)
    assert not isinstance(spatial.padding, str), spatial.padding
    left, right = spatial.padding
    return max(-(-(count + left + right - reach + 1) // spatial.stride), 0), -left


def _windows(spatial: tuple[SpatialDim, ...], counts: Position, widths: Position) -> tuple[Position, Iterator[Meeting]]:
    """The output's shape, and what meets at each of its positions."""
    geometry = [_geometry(s, n, w) for s, n, w in zip(spatial, counts, widths, strict=True)]
    shape = tuple(positions for positions, _ in geometry)

    def met() -> Iterator[Meeting]:
        for out in np.ndindex(shape):
            pairs = []
            for offset in np.ndindex(widths):
                frame = tuple(
                    first + o * s.stride + k * s.dilation
                    for (_, first), o, s, k in zip(geometry, out, spatial, offset, strict=True)
                )
                if all(0 <= f < n for f, n in zip(frame, counts, strict=True)):
                    pairs.append((offset, frame))
            yield out, pairs

    return shape, met()


def conv(op: Conv, lengths: Lengths, x: Named, filters: Named) -> Named:
    """Cross-correlation, by its definition."""
    rank = len(op.spatial)

    def of_one(frames: Array, weights: Array) -> Array:
        shape, met = _windows(op.spatial, frames.shape[:rank], weights.shape[:rank])
        result = np.zeros((*shape, weights.shape[-1]))
        for out, pairs in met:
            for offset, frame in pairs:
                blocks = zip(np.split(frames[frame], op.groups), np.split(weights[offset], op.groups, -1), strict=True)
                result[out] += np.concatenate([vector @ matrix for vector, matrix in blocks])
        return result

    seen = (*(s.input for s in op.spatial), op.in_feature)
    weighing = (*(s.filter for s in op.spatial), op.in_group, op.out_feature)
    outs = (*(s.output for s in op.spatial), op.out_feature)
    return per_sequence(lengths, [(x, seen), (filters, weighing)], [outs], of_one)[0]


def transposed_conv(op: TransposedConv, lengths: Lengths, x: Named, filters: Named) -> Named:
    """Each input frame adds the filter, scaled, at its position times the stride; then ends are cut off or added."""
    rank = len(op.spatial)
    strides = [s.stride for s in op.spatial]

    def of_one(frames: Array, weights: Array) -> Array:
        widths = weights.shape[:rank]
        sizes = [n * s + max(w - s, 0) for n, s, w in zip(frames.shape, strides, widths, strict=False)]
        result = np.zeros((*sizes, weights.shape[rank]))
        for frame in np.ndindex(frames.shape[:rank]):
            for offset in np.ndindex(widths):
                at = tuple(f * s + k for f, s, k in zip(frame, strides, offset, strict=True))
                result[at] += weights[offset] @ frames[frame]
        result = np.pad(result, [*((0, max(-right, 0)) for _, right in op.crop), (0, 0)])
        cut = (slice(left, max(n - right, left)) for n, (left, right) in zip(sizes, op.crop, strict=True))
        return result[tuple(cut)]

    seen = (*(s.input for s in op.spatial), op.in_feature)
    weighing = (*(s.filter for s in op.spatial), op.out_feature, op.in_feature)
    outs = (*(s.output for s in op.spatial), op.out_feature)
    return per_sequence(lengths, [(x, seen), (filters, weighing)], [outs], of_one)[0]


def pool(op: Pool, lengths: Lengths, x: Named) -> Named:
    """Maximum or mean of the real frames in each window."""
    rest = tuple(dim for dim in x.dims if dim.size is not None and dim not in [s.input for s in op.spatial])
    widths = tuple(lengths.size(s.filter) for s in op.spatial)
    kinds: Mapping[str, Callable[..., Array]] = {"max": np.max, "avg": np.mean}
    combine = kinds[op.kind]

    def of_one(frames: Array) -> Array:
        shape, met = _windows(op.spatial, frames.shape[: len(op.spatial)], widths)
        result = np.zeros((*shape, *frames.shape[len(op.spatial) :]))
        for out, pairs in met:
            result[out] = combine([frames[frame] for _, frame in pairs], axis=0)
        return result

    seen = (*(s.input for s in op.spatial), *rest)
    return per_sequence(lengths, [(x, seen)], [(*(s.output for s in op.spatial), *rest)], of_one)[0]


RULES: Mapping[type[Op], Rule] = {Dot: dot, Conv: conv, TransposedConv: transposed_conv, Pool: pool}
