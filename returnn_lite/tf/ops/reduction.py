"""Lowerings of the primitives that reduce or normalise."""

from __future__ import annotations

import math

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.ir.ops.reduction import ArgReduce, Last, Moments, Normalize, Reduce, Softmax, TopK
from returnn_lite.tf.context import Context, Family
from returnn_lite.tf.gathers import take_frames
from returnn_lite.tf.layout import Tensor, aligned, move_last
from returnn_lite.tf.mask import broadcast, count_frames, dims_with, highest, lowest, masked, real_frames
from returnn_lite.tf.product import multiplied, own_shape
from returnn_lite.tf.sizes import Size

lowers = Family()

SOFTMAX_AXES, ARGMAX_AXES = 5, 7
"""How many axes TensorFlow's kernels take (oneDNN's of the softmax are the fewest)."""


@lowers(Reduce)
def reduce(c: Context, op: Reduce, x: Tensor) -> Tensor:
    axes = [x.axis(dim) for dim in op.over]
    dims = tuple(dim for dim in x.dims if dim not in op.over)

    def filled(value: float | int | bool) -> tf.Tensor:
        return masked(c.sizes, x, dims_with(c.sizes, x, op.over), value).raw

    match op.kind:
        case "sum":
            y = masked(c.sizes, x, dims_with(c.sizes, x, op.over))
            return Tensor(tf.reduce_sum(y.raw, axes), dims, y.zero_beyond & set(dims), y.finite)
        case "mean":
            return _mean(c, x, op.over)
        case "max":
            return Tensor(tf.reduce_max(filled(lowest(x.dtype)), axes), dims, finite=False)
        case "min":
            return Tensor(tf.reduce_min(filled(highest(x.dtype)), axes), dims, finite=False)
        case "prod":
            return Tensor(tf.reduce_prod(filled(1), axes), dims)
        case "logsumexp":
            return Tensor(logsumexp(filled(-math.inf), axes), dims, finite=False)
        case "any":
            return Tensor(tf.reduce_any(filled(False), axes), dims)
        case "all":
            return Tensor(tf.reduce_all(filled(True), axes), dims)
    raise ValueError(f"there is no reduction {op.kind!r}")


def as_rows(raw: tf.Tensor) -> tuple[tf.Tensor, list[Size]]:
    """The raw tensor with all axes but the last merged, and its shape."""
    shape = own_shape(raw)
    return tf.reshape(raw, [multiplied(shape[:-1]), shape[-1]]), shape


def _mean(c: Context, x: Tensor, over: tuple[Dim, ...]) -> Tensor:
    """The mean over real frames; 0 where there is none."""
    y = masked(c.sizes, x, dims_with(c.sizes, x, over))
    axes = [x.axis(dim) for dim in over]
    dims = tuple(dim for dim in x.dims if dim not in over)
    if all(dim.size is not None for dim in over):
        return Tensor(tf.reduce_mean(y.raw, axes), dims, y.zero_beyond & set(dims), y.finite)
    total = Tensor(tf.reduce_sum(y.raw, axes), dims)
    count = count_frames(c.sizes, x, over)
    divisor = tf.cast(tf.maximum(count.raw, 1), x.dtype)
    raw = (
        total.raw / Tensor(divisor, count.dims).aligned(dims)
        if x.dtype.is_floating
        else total.raw // Tensor(divisor, count.dims).aligned(dims)
    )
    return Tensor(raw, dims, y.zero_beyond & set(dims), y.finite)


def logsumexp(raw: tf.Tensor, axes: list[int]) -> tf.Tensor:
    """log(sum(exp(x))); -inf, with no gradient, where all are."""
    top = tf.stop_gradient(tf.reduce_max(raw, axes, keepdims=True))
    top = tf.where(tf.math.is_finite(top), top, tf.zeros_like(top))
    total = tf.reduce_sum(tf.exp(raw - top), axes)
    none = tf.equal(total, 0)
    result = tf.math.log(tf.where(none, tf.ones_like(total), total)) + tf.squeeze(top, axes)
    return tf.where(none, tf.cast(-math.inf, raw.dtype), result)


@lowers(ArgReduce)
def arg_reduce(c: Context, op: ArgReduce, x: Tensor) -> Tensor:
    function, worst = (tf.argmax, lowest) if op.kind == "max" else (tf.argmin, highest)
    y = masked(c.sizes, x, dims_with(c.sizes, x, [op.over]), worst(x.dtype))
    axis, others = y.axis(op.over), tuple(d for d in x.dims if d is not op.over)
    raw = y.raw
    if op.over.size is None:  # of no frames the first, as where other sequences of a batch have some
        missing = tf.cast(tf.equal(c.size(op.over), 0), tf.int32)
        raw = tf.pad(raw, [[0, missing if dim is op.over else 0] for dim in y.dims])
    if len(y.dims) <= ARGMAX_AXES:
        return Tensor(function(raw, axis, tf.int32), others)
    rows, shape = as_rows(Tensor(raw, y.dims).in_order((*others, op.over)))
    return Tensor(tf.reshape(function(rows, -1, tf.int32), shape[:-1]), others)


@lowers(Softmax)
def softmax(c: Context, op: Softmax, x: Tensor) -> Tensor:
    along = dims_with(c.sizes, x, [op.over])
    frames = real_frames(c.sizes, x, along)
    y = masked(c.sizes, move_last(x, op.over), along, x.dtype.min)
    kernel = tf.nn.log_softmax if op.log else tf.nn.softmax
    if len(y.dims) <= SOFTMAX_AXES:
        raw = kernel(y.raw)
    else:
        rows, shape = as_rows(y.raw)
        raw = tf.reshape(kernel(rows), shape)
    if frames is None:
        return Tensor(raw, y.dims, finite=y.finite)
    # Of an empty sequence nothing is real: not even the uniform distribution that is left of it.
    beyond = tf.cast(-math.inf if op.log else 0, raw.dtype)
    raw = tf.where(frames.aligned(y.dims), raw, beyond)
    return Tensor(raw, y.dims, frozenset() if op.log else frozenset([op.over]), finite=y.finite and not op.log)


@lowers(Normalize)
def normalize(c: Context, op: Normalize, x: Tensor) -> Tensor:
    mean = _mean(c, x, op.over)
    raws, dims = aligned([x, mean])
    centered = Tensor(raws[0] - raws[1], dims, finite=x.finite)
    variance = _mean(c, Tensor(tf.square(centered.raw), dims, finite=x.finite), op.over)
    scale = tf.math.rsqrt(variance.raw + tf.cast(op.epsilon, x.dtype))
    return Tensor(centered.raw * Tensor(scale, variance.dims).aligned(dims), dims, finite=x.finite)


@lowers(Moments)
def moments(c: Context, op: Moments, x: Tensor) -> tuple[Tensor, Tensor]:
    padded = [dim for dim in x.dims if c.sizes.has_padding(dim)]
    lacking = dict.fromkeys(d for dim in padded for d in c.sizes.lengths(dim).dims if d not in x.dims)
    if lacking:  # what is the same for all sequences counts in each that has the frame
        x = broadcast(c.sizes, x, (*lacking, *x.dims))
    over = tuple(dim for dim in x.dims if dim not in op.kept)
    mean = _mean(c, x, over)
    raws, dims = aligned([x, mean])
    variance = _mean(c, Tensor(tf.square(raws[0] - raws[1]), dims, finite=x.finite), over)
    return mean, variance


@lowers(TopK)
def top_k(c: Context, op: TopK, x: Tensor) -> tuple[Tensor, Tensor]:
    k = op.k.size
    if k is None:
        raise ValueError(f"{c.where}: the number of entries to keep, {op.k}, must be static")
    worst = lowest(x.dtype)
    y = masked(c.sizes, move_last(x, op.over), dims_with(c.sizes, x, [op.over]), worst)
    dims = (*y.dims[:-1], op.k)
    raw = y.raw
    if op.over.size is None or op.over.size < k:
        missing = tf.maximum(k - c.size(op.over), 0)
        raw = tf.pad(raw, [[0, 0]] * (len(dims) - 1) + [[0, missing]], constant_values=tf.cast(worst, x.dtype))
    values, indices = tf.math.top_k(raw, k)
    count = c.sizes.lengths(op.over).aligned(dims[:-1]) if op.over.is_dynamic else c.size(op.over)
    if op.over.is_dynamic:
        count = tf.expand_dims(count, -1) if c.sizes.lengths(op.over).dims else count
    exists = tf.range(k) < count
    return Tensor(values, dims, finite=False), Tensor(tf.where(exists, indices, 0), dims)


@lowers(Last)
def last(c: Context, op: Last, x: Tensor, init: Tensor) -> Tensor:
    lengths = c.sizes.lengths(op.over)
    return take_frames(c, x, op.over, lengths.with_raw(lengths.raw - 1), init)
