"""The history of the hypotheses that are left when a search loop has ended."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from returnn_lite.dims import Dim, Symbol
from returnn_lite.tf.context import Context
from returnn_lite.tf.gathers import take
from returnn_lite.tf.layout import Tensor, move_first, move_last


def steps_of_sequences(ended: Tensor, over: Dim, beam: Dim) -> Tensor:
    """How many steps of `over` each sequence takes itself: those before which not all its hypotheses had ended."""
    flags = move_first(ended, over)
    running = Tensor(tf.logical_not(flags.raw), flags.dims)
    if beam in running.dims:
        running = Tensor(
            tf.reduce_any(running.raw, running.axis(beam)), tuple(d for d in running.dims if d is not beam)
        )
    return Tensor(tf.reduce_sum(tf.cast(running.raw, tf.int32), 0), running.dims[1:])


def last_of_sequences(c: Context, stacked: Tensor, over: Dim, steps: Tensor) -> Tensor:
    """What each sequence had after as many steps as it took; zero if it took none."""
    frames = move_first(stacked, over)
    ran = Symbol(f"{over.name} and before")
    c.sizes.define(ran, Tensor(tf.shape(frames.raw)[0] + 1, ()))
    before = tf.zeros([1, *c.shape(frames.dims[1:])], frames.raw.dtype)  # also where no step ran
    raw = tf.concat([before, frames.raw], 0)
    return take(c, Tensor(raw, (ran, *frames.dims[1:])), ran, steps)


def final_order(c: Context, back_pointers: Tensor, over: Dim, beam: Dim, own_steps: Tensor) -> Tensor:
    """For each step and each final hypothesis the hypothesis of that step that it goes back to: [over, .., beam].

    `back_pointers` say for each hypothesis after a step which one before the step it extends; they count in a
    sequence's own steps.
    """
    pointers = move_first(move_last(back_pointers, beam), over)
    shape = [*c.shape(pointers.dims[1:-1]), c.size(beam)]
    last = tf.broadcast_to(tf.range(c.size(beam)), shape)
    steps = c.size(over)
    known = tf.expand_dims(own_steps.aligned(pointers.dims[1:-1]), -1)
    array = tf.TensorArray(tf.int32, steps, element_shape=last.shape)

    def trace(i: tf.Tensor, current: tf.Tensor, order: tf.TensorArray) -> Any:
        t = steps - 1 - i
        before = tf.gather(pointers.raw[t], current, batch_dims=len(shape) - 1)
        before = tf.where(t < known, before, current)
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


def steps_before_end(ended: Tensor, over: Dim, include_end: bool, most: Tensor) -> Tensor:
    """How many steps there are before the first at which `ended` is true, that one counted with `include_end`, but not
    more than the most of each sequence."""
    flags = move_first(ended, over)
    running = tf.math.cumprod(tf.cast(tf.logical_not(flags.raw), tf.int32), 0)
    count = tf.reduce_sum(running, 0)
    if include_end:
        steps = tf.minimum(tf.cast(most.aligned(flags.dims[1:]), tf.int32), tf.shape(flags.raw)[0])
        count = tf.minimum(count + 1, tf.maximum(steps, 0))
    return Tensor(count, flags.dims[1:])
