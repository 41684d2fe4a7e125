"""Values at single steps, and stacks of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from returnn_lite.dims import Dim
from tests.reference.named import Named, union


def frame(x: Named, over: Dim, step: int) -> Named:
    """x at a step; x itself if it lacks the dim."""
    if over not in x.dims:
        return x
    return Named(x.array.take(step, x.axis(over)), tuple(dim for dim in x.dims if dim != over))


def chosen(where: Named, new: Named, old: Named) -> Named:
    """`new` where it is true, else `old`; what one has fewer of along a dim is zero there."""
    dims = union([new, old, where])
    sizes = {dim: max(x.array.shape[x.axis(dim)] for x in (new, old) if dim in x.dims) for dim in union([new, old])}
    return Named(np.where(where.over(dims), *(extended(x, sizes).over(dims) for x in (new, old))), dims)


def extended(x: Named, sizes: Mapping[Dim, int]) -> Named:
    """x with zeros at the end of its axes, up to the given sizes."""
    missing = [(0, sizes[dim] - own) for dim, own in zip(x.dims, x.array.shape, strict=True)]
    return Named(np.pad(x.array, missing), x.dims) if any(end for _, end in missing) else x


def stacked(frames: Sequence[Named], over: Dim) -> Named:
    """Frames along a new dim; what one has fewer of along another dim is zero there."""
    dims = union(frames)
    sizes = {dim: max(x.array.shape[x.axis(dim)] for x in frames if dim in x.dims) for dim in dims}
    arrays = [extended(x, sizes).over(dims) for x in frames]
    return Named(np.stack(np.broadcast_arrays(*arrays)), (over, *dims))
