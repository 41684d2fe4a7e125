"""What happens to gradients before the optimizer sees them, in RETURNN's order."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from returnn_lite.engine.gradient_options import GradientOptions

Gradients = dict[str, tf.Tensor]


class Accumulator:
    """Running sums of gradients over `every` steps; does nothing if that is 1."""

    def __init__(self, every: int, params: Mapping[str, tf.Variable]) -> None:
        self.every = max(every, 1)
        self._sums = (
            {name: tf.Variable(tf.zeros_like(variable), trainable=False) for name, variable in params.items()}
            if self.every > 1
            else {}
        )

    def add(self, gradients: Mapping[str, tf.Tensor], step: tf.Tensor) -> Gradients:
        """The sums with these gradients; they begin anew where `step` (int64, from 0) is a multiple of `every`."""
        if self.every == 1:
            return dict(gradients)
        first = tf.equal(step % self.every, 0)
        return {
            name: self._sums[name].assign(tf.where(first, gradient, self._sums[name] + gradient))
            for name, gradient in gradients.items()
        }

    def is_full(self, step: tf.Tensor) -> tf.Tensor:
        """Whether the parameters are updated in this step."""
        return tf.equal(step % self.every, self.every - 1)

    def state(self) -> dict[str, tf.Variable]:
        """The sums, by names for a checkpoint."""
        return {f"accumulated_gradient/{name}": variable for name, variable in self._sums.items()}


def transformed(gradients: Mapping[str, tf.Tensor], options: GradientOptions, seed: tf.Tensor) -> Gradients:
    """Noise, clipping and filters. `seed` (int32 scalar) decides the noise."""
    found = dict(gradients)
    if options.gradient_noise:
        found = {
            name: gradient
            + tf.random.stateless_normal(
                tf.shape(gradient), tf.stack([seed, number]), 0.0, options.gradient_noise, gradient.dtype
            )
            for number, (name, gradient) in enumerate(found.items())
        }
    if limit := options.gradient_clip:
        found = {name: tf.clip_by_value(gradient, -limit, limit) for name, gradient in found.items()}
    if limit := options.gradient_clip_norm:
        found = {name: tf.clip_by_norm(gradient, limit) for name, gradient in found.items()}
    if limit := options.gradient_clip_avg_norm:
        found = {name: _clipped_by_average_norm(gradient, limit) for name, gradient in found.items()}
    if limit := options.gradient_clip_global_norm:
        clipped, _ = tf.clip_by_global_norm(list(found.values()), limit)
        found = dict(zip(found, clipped, strict=True))
    if options.gradient_nan_inf_filter:
        found = {
            name: tf.where(tf.math.is_finite(gradient), gradient, tf.zeros_like(gradient))
            for name, gradient in found.items()
        }
    if limit := options.grad_norm_to_clip_to_zero:
        keep = tf.linalg.global_norm(list(found.values())) <= limit
        found = {name: tf.where(keep, gradient, tf.zeros_like(gradient)) for name, gradient in found.items()}
    return found


def _clipped_by_average_norm(gradient: tf.Tensor, limit: float) -> tf.Tensor:
    average = tf.norm(gradient) / tf.cast(tf.size(gradient), gradient.dtype)
    return gradient * (limit / tf.maximum(average, limit))
