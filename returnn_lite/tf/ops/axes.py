"""Lowerings of the primitives that change dims but hardly values."""

from __future__ import annotations

from dataclasses import replace

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.ir.ops.axes import (
    Expand,
    MaskFrames,
    MergeDims,
    Pad,
    Relabel,
    Reverse,
    ShiftFrames,
    SplitDim,
    Squeeze,
    Window,
)
from returnn_lite.tf.context import Context, Family
from returnn_lite.tf.gathers import frame_numbers, take_frames
from returnn_lite.tf.layout import Tensor, aligned, merged_dims, working_order
from returnn_lite.tf.mask import broadcast, masked, real_frames
from returnn_lite.tf.product import multiplied
from returnn_lite.tf.sizes import Size

lowers = Family()


@lowers(Expand)
def expand(c: Context, op: Expand, x: Tensor) -> Tensor:
    new = tuple(dim for dim in op.dims if dim not in x.dims)
    return broadcast(c.sizes, x, merged_dims([x.dims, working_order((*x.dims, *new))]))


@lowers(Squeeze)
def squeeze(c: Context, op: Squeeze, x: Tensor) -> Tensor:
    axis = x.axis(op.dim)
    dims = tuple(dim for dim in x.dims if dim is not op.dim)
    return Tensor(tf.squeeze(x.raw, axis), dims, x.zero_beyond, x.finite)


@lowers(Relabel)
def relabel(c: Context, op: Relabel, x: Tensor) -> Tensor:
    mapping = {op.old: op.new}
    if not c.sizes.knows(op.new):
        extent = c.sizes.extent(op.old)
        c.sizes.define(op.new, extent.lengths.rename(mapping), extent.size, extent.exact)
        return x.rename(mapping)
    old, new = c.sizes.lengths(op.old), c.sizes.lengths(op.new)
    if old.raw is new.raw or (op.old.size is not None and op.new.size is not None):
        return x.rename(mapping)
    raws, dims = aligned([old.rename(mapping), new])
    what = f"{op.reason or f'{op.old} and {op.new}'}: lengths of {op.old} and {op.new} differ"
    check = c.require(Tensor(tf.equal(*raws), dims), what, "has {0} and {1}", raws)
    with tf.control_dependencies([check]):
        raw = tf.identity(x.raw)
    if c.step is not None:
        raw = _resized(raw, x.axis(op.old), c.size(op.new))
    raw = tf.ensure_shape(raw, [op.new.size if dim is op.old else dim.size for dim in x.dims])
    return replace(x.rename(mapping), raw=raw)


def _resized(raw: tf.Tensor, axis: int, size: Size) -> tf.Tensor:
    """An axis with another amount of padding: in a step, one dim may have the size of the whole, the other its own."""
    raw = raw[(slice(None),) * axis + (slice(0, size),)]
    missing = [[0, size - tf.shape(raw)[axis] if i == axis else 0] for i in range(len(raw.shape))]
    return tf.pad(raw, missing)


@lowers(MergeDims)
def merge_dims(c: Context, op: MergeDims, x: Tensor) -> Tensor:
    # A ragged dim that comes first stays contiguous; any other has its padding merged too, which shall be zero.
    inner = [dim for dim in op.dims if c.sizes.has_padding(dim)]
    if inner and not c.sizes.has_padding(op.out):
        x = masked(c.sizes, x, inner)
    position = max(x.axis(dim) for dim in op.dims)  # so features that are merged come last
    before = tuple(dim for dim in x.dims[:position] if dim not in op.dims)
    after = tuple(dim for dim in x.dims[position:] if dim not in op.dims)
    raw = x.in_order((*before, *op.dims, *after))
    merged = multiplied(c.shape(op.dims))
    raw = tf.reshape(raw, [*c.shape(before), merged, *c.shape(after)])
    if op.out.size is None:
        raw = raw[(slice(None),) * len(before) + (slice(0, c.size(op.out)),)]
    zero = x.zero_beyond & {*before, *after}
    return Tensor(raw, (*before, op.out, *after), zero, x.finite)


@lowers(SplitDim)
def split_dim(c: Context, op: SplitDim, x: Tensor) -> Tensor:
    size, wanted = c.size(op.dim), multiplied(c.shape(op.outs))
    axis = x.axis(op.dim)
    y = masked(c.sizes, x, [op.dim], op.pad_value)
    raw = y.raw
    if not (isinstance(size, int) and isinstance(wanted, int) and size == wanted):
        if isinstance(size, int) and isinstance(wanted, int) and size > wanted:
            raise ValueError(f"{c.where}: {op.dim} does not fit into {[str(dim) for dim in op.outs]}")
        paddings = [[0, 0]] * axis + [[0, wanted - size]] + [[0, 0]] * (len(x.dims) - axis - 1)
        raw = tf.pad(raw, paddings, constant_values=tf.cast(op.pad_value, x.dtype))
    dims = (*x.dims[:axis], *op.outs, *x.dims[axis + 1 :])
    zero = y.zero_beyond & set(dims) if op.pad_value == 0 else frozenset()
    return Tensor(tf.reshape(raw, c.shape(dims)), dims, zero, y.finite)


@lowers(Pad)
def pad(c: Context, op: Pad, x: Tensor) -> Tensor:
    if op.mode == "constant" and op.left >= 0 and op.right >= 0:
        y = masked(c.sizes, x, [op.over], op.value)
        paddings = [[op.left, op.right] if dim is op.over else [0, 0] for dim in x.dims]
        raw = tf.pad(y.raw, paddings, constant_values=tf.cast(op.value, x.dtype))
        zero = (x.zero_beyond - {op.over}) if op.value == 0 else frozenset()
        return Tensor(raw, _renamed(x, op), zero, y.finite)
    numbers = frame_numbers(c, op.out)
    raws, dims = aligned([numbers, c.sizes.lengths(op.over)])
    index, length = raws[0] - op.left, raws[1]
    if op.mode == "constant":
        return take_frames(c, x, op.over, numbers.with_raw(index), op.value)
    # What is reflected is reflected again where a sequence is shorter than what is added to it, as in NumPy.
    match op.mode:
        case "reflect":
            last = length - 1
            index = last - tf.abs(last - index % tf.maximum(2 * last, 1))
        case "symmetric":
            index = tf.minimum(index % tf.maximum(2 * length, 1), (-1 - index) % tf.maximum(2 * length, 1))
        case "replication":
            index = tf.minimum(tf.maximum(index, 0), length - 1)
        case _:
            raise ValueError(f"{c.where}: there is no padding mode {op.mode!r}")
    frames = Tensor(tf.broadcast_to(index, tf.shape(raws[0] + raws[1])), dims)
    what = f"mode {op.mode} repeats frames of {op.over.name}, so there must be some"
    check = c.require(_has_frames(c, op.over), what, "has none", advice="Pad with mode constant.")
    with tf.control_dependencies([check]):
        return take_frames(c, x, op.over, frames.with_raw(tf.identity(frames.raw)), 0)


def _has_frames(c: Context, dim: Dim) -> Tensor:
    """Whether a dim has frames, for all that its length varies over but padding."""
    lengths = c.sizes.lengths(dim)
    has = lengths.with_raw(lengths.raw > 0)
    real = real_frames(c.sizes, lengths, lengths.dims)
    return has if real is None else has.with_raw(tf.logical_or(has.raw, tf.logical_not(real.aligned(has.dims))))


def _renamed(x: Tensor, op: Pad | ShiftFrames) -> tuple[Dim, ...]:
    return tuple(op.out if dim is op.over else dim for dim in x.dims)


@lowers(Window)
def window(c: Context, op: Window, x: Tensor) -> Tensor:
    y = masked(c.sizes, x, [op.over])
    axis, width = y.axis(op.over), c.size(op.window)
    starts = frame_numbers(c, op.out).raw * op.stride
    # Frame i of the sequence is frame i + left of what is padded; the last window ends where `behind` does.
    behind = tf.maximum(tf.reduce_max(tf.concat([starts, [0]], 0)) + width - op.left - c.size(op.over), 0)
    paddings = [[max(op.left, 0), behind] if dim is op.over else [0, 0] for dim in y.dims]
    index = starts[:, None] + tf.range(width)[None, :] - min(op.left, 0)
    raw = tf.gather(tf.pad(y.raw, paddings), index, axis=axis)
    dims = (*y.dims[:axis], op.out, op.window, *y.dims[axis + 1 :])
    return Tensor(raw, dims, y.zero_beyond - {op.over} - {op.out}, y.finite)


MOST_REVERSED = 5
"""The most dims that TensorFlow's kernel for reversed sequences takes."""


@lowers(Reverse)
def reverse(c: Context, op: Reverse, x: Tensor) -> Tensor:
    axis = x.axis(op.over)
    if not c.sizes.has_padding(op.over):
        return Tensor(tf.reverse(x.raw, [axis]), x.dims, x.zero_beyond, x.finite)
    lengths = c.sizes.lengths(op.over)
    if len(lengths.dims) == 1 and lengths.dims[0] in x.dims and len(x.dims) <= MOST_REVERSED:
        raw = tf.reverse_sequence(x.raw, lengths.raw, seq_axis=axis, batch_axis=x.axis(lengths.dims[0]))
        return Tensor(raw, x.dims, x.zero_beyond, x.finite)
    raws, dims = aligned([frame_numbers(c, op.over), lengths])
    return take_frames(c, x, op.over, Tensor(raws[1] - 1 - raws[0], dims), 0)


@lowers(ShiftFrames)
def shift_frames(c: Context, op: ShiftFrames, x: Tensor) -> Tensor:
    longer = op.amount >= 0 and (op.out == op.over or op.out == op.over + op.amount)
    y = x if longer else masked(c.sizes, x, [op.over], op.value)
    axis, size, wanted = y.axis(op.over), c.size(op.over), c.size(op.out)
    raw = y.raw
    if op.amount < 0:
        raw = raw[(slice(None),) * axis + (slice(-op.amount, None),)]
        size = tf.maximum(size + op.amount, 0)
    left = max(op.amount, 0)
    right = tf.maximum(wanted - size - left, 0)
    paddings = [[left, right] if dim is op.over else [0, 0] for dim in y.dims]
    raw = tf.pad(raw, paddings, constant_values=tf.cast(op.value, x.dtype))
    raw = raw[(slice(None),) * axis + (slice(0, wanted),)]
    zero = x.zero_beyond - {op.over, op.out} if op.value == 0 else frozenset()
    return Tensor(raw, _renamed(x, op), zero, y.finite)


@lowers(MaskFrames)
def mask_frames(c: Context, op: MaskFrames, x: Tensor) -> Tensor:
    return masked(c.sizes, x, [op.over], op.value)
