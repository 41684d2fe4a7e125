"""Dropout in Keras' loops: masks of a sequence or of a step, new ones in each batch, none out of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from returnn_lite.cells import GRU, LSTM, Cell, Dropout

SOURCE = np.random.default_rng(3).normal(size=(2, 5, 3)).astype("float32")


def dropped(layer: Callable[..., Any], **options: Any) -> np.ndarray:
    """Which outputs are 0 in training [B, T, n]."""
    zero: np.ndarray = np.asarray(layer(SOURCE, training=True, **options)) == 0
    return zero


def layer_of(unroll: bool = False, **options: Any) -> keras.layers.RNN:
    cell = Dropout(GRU(200), output_dropout=0.5, **options)
    return keras.layers.RNN(cell, return_sequences=True, unroll=unroll)


def share(equal: np.ndarray) -> float:
    return float(np.mean(equal))


def is_half(part: float) -> bool:
    """Of 200 fair draws or more, within six standard deviations."""
    return 0.29 < part < 0.71


@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "graph"])
def test_masks_of_a_sequence(in_graph: bool) -> None:
    layer = layer_of(variational=True)
    layer(SOURCE)
    run = tf.function(lambda source, training: layer(source, training=training)) if in_graph else layer
    first, second = dropped(run), dropped(run)
    assert (first == first[:, :1]).all(), "the same at all steps"
    assert is_half(share(first)) and is_half(share(first[0] == first[1])), "others for each sequence"
    assert is_half(share(first == second)), "others in each batch"
    assert not (np.asarray(layer(SOURCE)) == 0).any(), "none out of training"


@pytest.mark.parametrize("unroll", [False, True])
def test_masks_of_a_step(unroll: bool) -> None:
    layer = layer_of(unroll=unroll)
    layer(SOURCE)
    found = dropped(tf.function(lambda source, training: layer(source, training=training)))
    assert all(is_half(share(found[:, t] == found[:, t + 1])) for t in range(4))


def test_a_loop_of_ones_own_says_where_a_sequence_ends() -> None:
    cell = Dropout(GRU(200), output_dropout=0.5, variational=True)

    def step() -> np.ndarray:
        return np.asarray(cell(SOURCE[:, 0], cell.get_initial_state(batch_size=2), training=True)[0]) == 0

    first = step()
    assert (step() == first).all()
    cell.reset_dropout_mask()
    assert is_half(share(step() == first))


def test_masks_inside_of_stacks() -> None:
    """Of Keras' stack, and of both directions."""
    cells = [Dropout(LSTM(100), output_dropout=0.5, variational=True), Dropout(GRU(100), output_dropout=0.5)]
    stacked = keras.layers.RNN(cells, return_sequences=True)
    both = keras.layers.Bidirectional(keras.layers.RNN(Cell(cells), return_sequences=True))
    for layer in (stacked, both):
        assert is_half(share(dropped(layer)))


def test_a_seed_gives_the_same_numbers_again() -> None:
    def output() -> np.ndarray:
        cell = Cell({"class": "keras.lstm", "units": 4, "dropout": 0.5, "recurrent_dropout": 0.5}, seed=5)
        return np.asarray(keras.layers.RNN(cell)(SOURCE, training=True))

    np.testing.assert_array_equal(output(), output())
