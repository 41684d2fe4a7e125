"""Keras' RNN for cells whose states and outputs have spatial dims."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable("returnn_lite")
class RNN(keras.layers.RNN):  # type: ignore[misc]
    """`keras.layers.RNN`, which in a functional or sequential model knows the shapes of states and outputs with spatial
    dims, too: [batch, time, height, width, channels] for a convolutional LSTM."""

    def compute_output_shape(
        self, sequences_shape: Sequence[int | None], initial_state_shape: Any = None
    ) -> tuple[Any, ...]:
        """The shape of the output, and of the states if they are returned."""
        batch, frames = sequences_shape[:2]
        output = (batch, *((frames,) if self.return_sequences else ()), *_sizes(self.cell.output_size))
        if not self.return_state:
            return output
        return (output, *keras.tree.map_structure(lambda size: (batch, *_sizes(size)), list(self.state_size)))


def _sizes(size: Any) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else tuple(size)
