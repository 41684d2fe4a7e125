"""Lowerings of the primitives that change gradients. What comes back beyond a sequence's length counts as 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import tensorflow as tf

from returnn_lite.ir.ops.gradients import FilterGradient, TransformGradient
from returnn_lite.tf.context import Context, Family
from returnn_lite.tf.gradient_rules import with_gradient
from returnn_lite.tf.layout import Tensor
from returnn_lite.tf.mask import broadcast, padded_dims, real_frames

lowers = Family()


@lowers(FilterGradient)
def filter_gradient(c: Context, op: FilterGradient, x: Tensor, *steps: Tensor) -> Tensor:
    x = _broadcast(c, x, steps)
    axes = [x.axis(dim) for dim in op.over]

    def change(dy: tf.Tensor) -> tf.Tensor:
        largest = tf.reduce_max(tf.square(dy), axes, keepdims=True)
        return tf.where(largest < tf.cast(op.threshold, dy.dtype), dy, tf.zeros_like(dy))

    return _changed(c, x, [], lambda dy, _: change(dy))


@lowers(TransformGradient)
def transform_gradient(c: Context, op: TransformGradient, x: Tensor, *others: Tensor) -> Tensor:
    x = _broadcast(c, x, others)
    operands = [other.aligned(x.dims) for other in others[:2]]

    def change(dy: tf.Tensor, scale_and_shift: Sequence[tf.Tensor]) -> tf.Tensor:
        scale, shift = scale_and_shift
        if op.sum_over is not None:
            shift = shift * tf.reduce_sum(tf.abs(dy), x.axis(op.sum_over), keepdims=True)
        changed = dy * scale + shift
        if op.clip_over is None:
            return changed
        largest = tf.reduce_max(tf.abs(dy), x.axis(op.clip_over), keepdims=True)
        return tf.clip_by_value(changed, -largest, largest)

    return _changed(c, x, operands, change)


def _broadcast(c: Context, x: Tensor, others: Sequence[Tensor]) -> Tensor:
    """x with the dims of the other operands, too."""
    lacking = dict.fromkeys(dim for other in others for dim in other.dims if dim not in x.dims)
    return broadcast(c.sizes, x, (*lacking, *x.dims)) if lacking else x


def _changed(
    c: Context, x: Tensor, operands: list[tf.Tensor], change: Callable[[tf.Tensor, list[tf.Tensor]], tf.Tensor]
) -> Tensor:
    """x, whose gradient is `change` of the gradient and the operands."""
    frames = real_frames(c.sizes, x, padded_dims(c.sizes, x))
    real = [] if frames is None else [frames.aligned(x.dims)]

    def kept(dy: tf.Tensor, real: list[tf.Tensor]) -> tf.Tensor:
        return tf.where(real[0], dy, tf.zeros_like(dy)) if real else dy

    def gradient(dy: tf.Tensor) -> list[tf.Tensor | None]:
        dy = kept(tf.convert_to_tensor(dy), real)
        return [kept(change(dy, operands), real), *[None for _ in (*operands, *real)]]

    # All that the gradient needs is an argument: so it is found there in the body of a loop, too.
    (raw,) = with_gradient([x.raw], [x.raw, *operands, *real], gradient)
    return replace(x, raw=raw, _derived={})
