"""Keeping frames beyond a sequence's length out of what sums, compares or normalises over them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import tensorflow as tf

from returnn_lite.dims import Dim, DimError
from returnn_lite.tf.layout import Tensor, aligned
from returnn_lite.tf.sizes import Size, Sizes


def padded_dims(sizes: Sizes, x: Tensor) -> frozenset[Dim]:
    """The dims of a tensor that may have frames beyond a sequence's length.

    Not one whose length varies over a dim that the tensor lacks: what is the same for all sequences has no padding.
    """
    return frozenset(dim for dim in x.dims if sizes.has_padding(dim) and set(sizes.lengths(dim).dims) <= set(x.dims))


def dims_with(sizes: Sizes, x: Tensor, over: Iterable[Dim]) -> tuple[Dim, ...]:
    """`over`, and the dims of x whose lengths vary over one of these: over the batch, a frame that a sequence lacks
    does not take part."""
    over = tuple(over)
    others = (dim for dim in x.dims if dim not in over and sizes.has_padding(dim))
    return (*over, *(dim for dim in others if not set(sizes.lengths(dim).dims).isdisjoint(over)))


def real_frames(sizes: Sizes, x: Tensor, dims: Iterable[Dim]) -> Tensor | None:
    """True where a frame is real along all of `dims`; None if there is no padding. It may lack dims of x."""
    padded = [dim for dim in dims if sizes.has_padding(dim)]
    for dim in padded:
        lacking = [d for d in sizes.lengths(dim).dims if d not in x.dims]
        if lacking:
            raise DimError(f"the length of {dim} varies over {lacking[0]}, which {list(map(str, x.dims))} lacks")
    if not padded:
        return None
    masks = [sizes.mask(dim) for dim in padded]
    raws, layout = aligned(masks)
    result = raws[0]
    for raw in raws[1:]:
        result = tf.logical_and(result, raw)
    return Tensor(result, layout) if len(masks) > 1 else masks[0]


def masked(sizes: Sizes, x: Tensor, dims: Iterable[Dim], fill: float | int | bool | tf.Tensor = 0) -> Tensor:
    """x with `fill` beyond the lengths of `dims`; no gradient flows back from there."""
    zero = isinstance(fill, (int, float)) and fill == 0
    dims = [dim for dim in dims if dim in x.dims and sizes.has_padding(dim)]
    if zero:
        dims = [dim for dim in dims if dim not in x.zero_beyond]
    frames = real_frames(sizes, x, dims)
    if frames is None:
        return x
    raw = _filled(x, frames, fill)
    known = x.zero_beyond | frozenset(dims) if zero else frozenset()
    finite = x.finite or padded_dims(sizes, x) <= frozenset(dims)
    return Tensor(raw, x.dims, known, finite)


def _filled(x: Tensor, frames: Tensor, fill: float | int | bool | tf.Tensor) -> tf.Tensor:
    def where(raw: tf.Tensor) -> tf.Tensor:
        return tf.where(frames.aligned(x.dims), raw, tf.cast(fill, x.dtype))

    if frames.raw.graph is not x.raw.graph or isinstance(fill, tf.Tensor):
        return where(x.raw)
    return x.derived(("filled", frames.raw.ref(), fill), where)


def count_frames(sizes: Sizes, x: Tensor, dims: Sequence[Dim]) -> Tensor:
    """How many real frames x has over `dims`, int32: over the dims that lengths vary over and that are not counted."""
    padded = [dim for dim in dims_with(sizes, x, dims) if sizes.has_padding(dim)]
    product: Size = 1
    frames = real_frames(sizes, x, padded)
    counted = frames.dims if frames is not None else ()
    for dim in dims:
        if dim not in counted:
            product = product * sizes.size(dim)
    if frames is None:
        return Tensor(tf.convert_to_tensor(product, tf.int32), ())
    over = [dim for dim in frames.dims if dim in dims]
    total = tf.reduce_sum(tf.cast(frames.raw, tf.int32), [frames.axis(dim) for dim in over])
    return Tensor(total * product, tuple(dim for dim in frames.dims if dim not in over))


def lowest(dtype: tf.DType) -> float | int:
    """What is below every number of a dtype, or the lowest if that is one."""
    number: float | int = -math.inf if dtype.is_floating else dtype.min
    return number


def highest(dtype: tf.DType) -> float | int:
    """What is above every number of a dtype, or the highest if that is one."""
    number: float | int = math.inf if dtype.is_floating else dtype.max
    return number


def broadcast(sizes: Sizes, x: Tensor, dims: Sequence[Dim]) -> Tensor:
    """x repeated along the dims of the layout `dims` that it lacks."""
    if all(dim in x.dims for dim in dims):
        return x.laid_out(dims)
    raw = x.repeated(dims, sizes.shape(tuple(dims)))
    return replace(x, raw=raw, dims=tuple(dims), _derived={})
