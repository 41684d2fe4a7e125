"""The history of the hypotheses that are left when a search loop has ended."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.tf.context import Context
from returnn_lite.tf.frames import take
from returnn_lite.tf.layout import Tensor, move_first, move_last


def final_order(c: Context, back_pointers: Tensor, over: Dim, beam: Dim) -> Tensor:
    """For each step and each final hypothesis the hypothesis of that step that it goes back to: [over, .., beam].

    `back_pointers` say for each hypothesis after a step which one before the step it extends.
    """
    pointers = move_first(move_last(back_pointers, beam), over)
    shape = [*c.shape(pointers.dims[1:-1]), c.size(beam)]
    last = tf.broadcast_to(tf.range(c.size(beam)), shape)
    steps = c.size(over)
    array = tf.TensorArray(tf.int32, steps, element_shape=last.shape)

    def trace(i: tf.Tensor, current: tf.Tensor, order: tf.TensorArray) -> Any:
        t = steps - 1 - i
        before = tf.gather(pointers.raw[t], current, batch_dims=len(shape) - 1)
        return i + 1, tf.ensure_shape(before, last.shape), order.write(t, current)

    _, _, array = tf.while_loop(lambda i, *_: i < steps, trace, (0, last, array))
    element_shape = tf.convert_to_tensor(shape, tf.int32)
    raw = tf.raw_ops.TensorListStack(
        input_handle=array.flow, element_shape=element_shape, element_dtype=tf.int32, num_elements=-1
    )
    return Tensor(tf.ensure_shape(raw, [None, *last.shape]), pointers.dims)


def in_final_order(c: Context, stacked: Tensor, order: Tensor | None, beam: Dim | None) -> Tensor:
    """A stacked value brought to the order of the final hypotheses; itself if it does not depend on the hypothesis."""
    if order is None or beam is None or beam not in stacked.dims:
        return stacked
    return take(c, stacked, beam, order)


def steps_before_end(ended: Tensor, over: Dim, include_end: bool) -> Tensor:
    """How many steps there are before the first at which `ended` is true, that one counted with `include_end`."""
    flags = move_first(ended, over)
    running = tf.math.cumprod(tf.cast(tf.logical_not(flags.raw), tf.int32), 0)
    count = tf.reduce_sum(running, 0)
    if include_end:
        count = tf.minimum(count + 1, tf.shape(flags.raw)[0])
    return Tensor(count, flags.dims[1:])
