"""Lowerings of the primitives of masks."""

from __future__ import annotations

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.ir.ops.masks import Compress, Hold
from returnn_lite.tf.context import Context, Family
from returnn_lite.tf.gathers import take, take_frames
from returnn_lite.tf.layout import Tensor, common_layout, merged_dims
from returnn_lite.tf.mask import broadcast, masked
from returnn_lite.tf.product import multiplied

lowers = Family()


@lowers(Compress)
def compress(c: Context, op: Compress, x: Tensor, mask: Tensor) -> Tensor:
    return compressed(c, x, mask, op.over, op.out)


def compressed(c: Context, x: Tensor, mask: Tensor, over: Dim, out: Dim) -> Tensor:
    """The frames of x at which the mask is true; defines the length of `out`."""
    positions, taken = true_positions(c, mask, over)
    batch = tuple(d for d in mask.dims if d is not over)
    all_dims = merged_dims([mask.dims, c.sizes.lengths(over).dims])
    real = masked(c.sizes, broadcast(c.sizes, mask, all_dims), [over], False)
    lengths = tf.reduce_sum(tf.cast(real.raw, tf.int32), real.axis(over))
    c.sizes.define(out, Tensor(lengths, tuple(d for d in real.dims if d is not over)))
    if over not in x.dims:
        return broadcast(c.sizes, x, common_layout([x, Tensor(mask.raw, mask.rename({over: out}).dims)]))
    size, count = c.size(over), c.size(out)
    width = multiplied(c.shape(batch))
    layout = (*batch, over)
    rows = tf.reshape(tf.range(width), [*c.shape(batch), 1]) * count
    rows = tf.where(taken.in_order(layout), positions.in_order(layout) + rows, -1)
    frames = tf.broadcast_to(tf.range(size), tf.shape(rows))
    index = tf.math.unsorted_segment_sum(frames, rows, width * count)
    return take(c, x, over, Tensor(tf.reshape(index, [*c.shape(batch), count]), (*batch, out)))


def true_positions(c: Context, mask: Tensor, over: Dim) -> tuple[Tensor, Tensor]:
    """How many true frames of the mask there are before each, and the mask without frames that are not real.

    A mask that is the same for all sequences stays so: it goes on where the shorter ones have ended.
    """
    taken = mask if _is_same_for_all(c, mask, over) else masked(c.sizes, mask, [over], False)
    count = tf.cumsum(tf.cast(taken.raw, tf.int32), taken.axis(over), exclusive=True)
    return Tensor(count, taken.dims), taken


def _is_same_for_all(c: Context, mask: Tensor, over: Dim) -> bool:
    """True if sequences that are not equally long share the mask."""
    return any(dim not in mask.dims for dim in c.sizes.lengths(over).dims)


@lowers(Hold)
def hold(c: Context, op: Hold, y: Tensor, mask: Tensor, init: Tensor) -> Tensor:
    before, taken = true_positions(c, mask, op.out)
    index = Tensor(before.raw + tf.cast(taken.raw, tf.int32) - 1, before.dims)
    # A sequence that has ended has no more frames, but what is held for all sequences has.
    until = Tensor(tf.convert_to_tensor(c.size(op.over)), ()) if _is_same_for_all(c, mask, op.out) else None
    return take_frames(c, y, op.over, index, init, until)
