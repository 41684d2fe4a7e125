"""What the cells share: a layer whose weights are declared by name, and whose states start as zeros."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

Shape = tuple[int, ...]
Weights = Mapping[str, keras.Variable]


class FormulaCell(keras.layers.Layer):
    """A cell for `keras.layers.RNN`. A subclass says the shapes of its weights, and computes a step from them."""

    def __init__(self, *states: Shape, output: int | None = None) -> None:
        super().__init__()
        self.shapes = states
        self.state_size = [shape[-1] for shape in states]
        self.output_size = output or states[0][-1]
        self.weights_by_name: dict[str, keras.Variable] = {}

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        """By name, for a source of so many features."""
        raise NotImplementedError

    def build(self, input_shape: Shape) -> None:
        """Makes the weights."""
        for name, shape in self.weight_shapes(input_shape[-1]).items():
            start = "glorot_uniform" if len(shape) > 1 else "zeros"
            self.weights_by_name[name] = self.add_weight(shape=shape, initializer=start, name=name.replace("/", "."))
        self.built = True

    def __getitem__(self, name: str) -> tf.Tensor:
        return self.weights_by_name[name].value

    def get_initial_state(self, batch_size: tf.Tensor) -> list[tf.Tensor]:
        """Zeros."""
        return [tf.zeros((batch_size, *shape)) for shape in self.shapes]

    def affine(self, kernel: str, bias: str | None, *values: tf.Tensor) -> tf.Tensor:
        """The product of values one after the other with a kernel, and a bias."""
        product = tf.matmul(tf.concat(values, -1) if len(values) > 1 else values[0], self[kernel])
        return product if bias is None else product + self[bias]

    def normed(self, value: tf.Tensor, gamma: str, beta: str | None, epsilon: float = 1e-12) -> tf.Tensor:
        """Layer normalisation over the features."""
        mean, variance = tf.nn.moments(value, [-1], keepdims=True)
        shift = None if beta is None else self[beta]
        return tf.nn.batch_normalization(value, mean, variance, shift, self[gamma], epsilon)


def lstm(z: tf.Tensor, c: tf.Tensor, order: str, forget_bias: float = 0.0) -> tuple[tf.Tensor, tf.Tensor]:
    """The new h and c from the pre-activations of all gates."""
    parts = dict(zip(order, tf.split(z, len(order), -1), strict=True))
    return gated(parts, c, forget_bias)


def gated(parts: Mapping[str, tf.Tensor], c: tf.Tensor, forget_bias: float = 0.0) -> tuple[tf.Tensor, tf.Tensor]:
    """The same from those of each gate."""
    f, i, o = tf.sigmoid(parts["f"] + forget_bias), tf.sigmoid(parts["i"]), tf.sigmoid(parts["o"])
    c = f * c + i * tf.tanh(parts["j"])
    return o * tf.tanh(c), c
