"""Lowerings of the primitives that make histories."""

from __future__ import annotations

from dataclasses import replace

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.ir.ops.histories import CumConcat, CumConcatStep, EmptyHistory
from returnn_lite.tf.context import Context, Family
from returnn_lite.tf.gathers import frame_numbers
from returnn_lite.tf.layout import Tensor, aligned, merged_dims, move_first, working_order
from returnn_lite.tf.mask import broadcast

lowers = Family()


@lowers(EmptyHistory)
def empty_history(c: Context, op: EmptyHistory, like: Tensor) -> Tensor:
    dims = history_layout(like.dims, op.history)
    shape = [0 if dim is op.history else c.size(dim) for dim in dims]
    return Tensor(tf.zeros(shape, like.dtype), dims)


def history_layout(dims: tuple[Dim, ...], history: Dim) -> tuple[Dim, ...]:
    """The history second to last: rows of what a product multiplies."""
    order = working_order(dim for dim in dims if dim is not history)
    return (*order[:-1], history, *order[-1:])


@lowers(CumConcatStep)
def cum_concat_step(
    c: Context, op: CumConcatStep, x: Tensor, before: Tensor, count: Tensor, *mask: Tensor
) -> tuple[Tensor, Tensor]:
    rest = merged_dims([before.dims, x.dims, *(m.dims for m in mask)])
    dims = history_layout(rest, op.history)
    axis = dims.index(op.history)
    size = tf.shape(before.raw)[before.axis(op.history)]

    def filled(tensor: Tensor, frames: int | tf.Tensor) -> tf.Tensor:
        shape = [frames if dim is op.history else c.size(dim) for dim in dims]
        return tensor.repeated(dims, shape)

    old, new = filled(before, size), filled(x, 1)
    if not mask:
        after = count.with_raw(count.raw + 1)
        c.sizes.define(op.history, Tensor(tf.cast(after.raw, tf.int32), after.dims))
        return Tensor(tf.concat([old, new], axis), dims), after
    # Each sequence appends behind its own frames, and only if the mask says so.
    raws, layout = aligned([count, mask[0]])
    after = Tensor(raws[0] + tf.cast(raws[1], count.dtype), layout)
    c.sizes.define(op.history, Tensor(tf.cast(after.raw, tf.int32), after.dims))
    longer = tf.concat([old, tf.zeros_like(new)], axis)
    raws, layout = aligned([Tensor(tf.range(size + 1), (op.history,)), count, mask[0]])
    here = Tensor(tf.logical_and(tf.equal(raws[0], tf.cast(raws[1], tf.int32)), raws[2]), layout)
    raw = tf.where(here.aligned(dims), new, longer)
    cut = raw[(slice(None),) * axis + (slice(0, c.size(op.history)),)]
    return Tensor(cut, dims), after


@lowers(CumConcat)
def cum_concat(c: Context, op: CumConcat, x: Tensor, before: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    if op.over not in x.dims:
        x = broadcast(c.sizes, x, (op.over, *x.dims))
    seen = frame_numbers(c, op.over)
    seen = seen.with_raw(seen.raw + 1)
    c.sizes.define(op.history, seen, c.size(op.over), exact=False)
    numbers = Tensor(tf.cast(seen.raw, count.dtype), seen.dims)
    frames = move_first(x, op.over).rename({op.over: op.history})
    # Zero beyond the sequence, but a frame of `over` sees fewer of them.
    return replace(frames, zero_beyond=frames.zero_beyond - {op.history}), numbers
