"""Cells as a user writes them for Keras, and what they compute, in NumPy."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tests.cells.probing import Weights


@keras.saving.register_keras_serializable("returnn_lite_tests")
class Plain(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """h' = tanh(x W + h R); W has no name, as many have none."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = units
        self.state_size = units

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], self.units), initializer="glorot_uniform")
        self.rows = self.add_weight(shape=(self.units, self.units), initializer="orthogonal", name="recurrent")

    def call(self, inputs: Any, states: Any) -> Any:
        h = keras.ops.tanh(inputs @ self.kernel + states[0] @ self.rows)
        return h, [h]


class Nested(keras.layers.Layer):  # type: ignore[misc]
    """A sum of all frames with a count, and the frame before: states (count [1], {sum, last}); output a dense layer of
    (sum / count, last)."""

    def __init__(self, units: int, features: int, **options: Any) -> None:
        super().__init__(**options)
        self.dense = keras.layers.Dense(units)
        self.state_size = (1, {"sum": features, "last": features})
        self.output_size = units

    def call(self, inputs: Any, states: Any) -> Any:
        count, sums = states
        count, total = count + 1, sums["sum"] + inputs
        joined = keras.ops.concatenate([total / count, sums["last"]], axis=-1)
        return self.dense(joined), (count, {"sum": total, "last": inputs})


class Noisy(keras.layers.Layer):  # type: ignore[misc]
    """h' = h + dropout(x) with a mask for each step."""

    def __init__(self, features: int, **options: Any) -> None:
        super().__init__(**options)
        self.noise = keras.layers.Dropout(0.5)
        self.state_size = features

    def call(self, inputs: Any, states: Any) -> Any:
        h = states[0] + self.noise(inputs)
        return h, [h]


def plain(weights: Weights, frames: np.ndarray) -> np.ndarray:
    """[T, n]"""
    h = np.zeros(len(weights["recurrent"]))
    outputs = []
    for x in frames:
        h = np.tanh(x @ weights["kernel"] + h @ weights["recurrent"])
        outputs.append(h)
    return np.stack(outputs)


def nested(weights: Weights, frames: np.ndarray) -> np.ndarray:
    """[T, n]"""
    means = np.cumsum(frames, 0) / np.arange(1, len(frames) + 1)[:, None]
    last = np.concatenate([np.zeros_like(frames[:1]), frames[:-1]])
    joined: np.ndarray = np.concatenate([means, last], 1) @ weights["dense/kernel"] + weights["dense/bias"]
    return joined
