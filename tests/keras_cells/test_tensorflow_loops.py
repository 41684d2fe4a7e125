"""A cell in TensorFlow's own loops, which drive Keras' cells no more."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import returnn_lite as rl
from returnn_lite.cells import GRU, LSTM, Cell

SOURCE = np.random.default_rng(3).normal(size=(3, 5, 4)).astype("float32")
LENGTHS = [5, 2, 0]
REAL = np.arange(5) < np.array(LENGTHS)[:, None]


def driven(cell: Any) -> Any:
    run = tf.function(lambda source: tf.compat.v1.nn.dynamic_rnn(cell, source, LENGTHS, dtype=tf.float32))
    return run(SOURCE)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("cell", [LSTM(4), GRU(4), Cell(["lstm", {"class": "gru", "units": 4}])], ids=lambda c: c.name)
def test_dynamic_rnn(cell: Cell) -> None:
    cell.build((None, 4))
    output, states = driven(cell)
    expected, *ends = keras.layers.RNN(cell, return_sequences=True, return_state=True)(SOURCE, mask=REAL)
    np.testing.assert_allclose(output, np.where(REAL[..., None], expected, 0.0), 1e-5, 1e-6)
    for state, end in zip(tf.nest.flatten(states), ends, strict=True):
        np.testing.assert_allclose(state, end, 1e-5, 1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_in_a_wrapper_of_tensorflow() -> None:
    cell = LSTM(4)
    cell.build((None, 4))
    plain, wrapped = driven(cell)[0], driven(tf.nn.RNNCellResidualWrapper(cell))[0]
    np.testing.assert_allclose(wrapped[REAL], plain[REAL] + SOURCE[REAL], 1e-5, 1e-6)


def test_a_graph_of_tensorflow_1_makes_no_weights() -> None:
    with tf.Graph().as_default(), pytest.raises(rl.ConfigError, match="in a graph of TensorFlow 1"):
        LSTM(4).build((None, 4))
