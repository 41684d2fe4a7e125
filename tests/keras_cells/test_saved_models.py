"""A Keras model with our cells: trained, saved, and loaded where nothing but Keras and returnn_lite is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from returnn_lite.cells import GRU, LSTM, Cell, Dropout

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
LOADING = """
import sys
import numpy as np
import keras
import returnn_lite.cells
model = keras.models.load_model(sys.argv[1])
np.save(sys.argv[2], model.predict(np.load(sys.argv[3]), verbose=0))
print(type(model.layers[1].forward_layer.cell).__name__, type(model.layers[2].cell).__name__)
"""


def model_of_cells() -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((None, 3))
    below = Dropout(LSTM(6, peephole=True), output_dropout=0.1, variational=True)
    frames = keras.layers.Bidirectional(keras.layers.RNN(below, return_sequences=True))(inputs)
    stack = Cell([GRU(5), {"class": "residual", "cell": {"class": "layer_norm_basic_lstm", "units": 5}}])
    outputs = keras.layers.Dense(1)(keras.layers.RNN(stack)(frames))
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(0.02), "mse")
    return model


@pytest.mark.one_in(6)
def test_fit_save_and_load(tmp_path: Path) -> None:
    model = model_of_cells()
    source = np.random.default_rng(0).normal(size=(32, 6, 3)).astype("float32")
    losses = model.fit(source, source.sum((1, 2))[:, None] / 4, epochs=10, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    saved, found, data = tmp_path / "model.keras", tmp_path / "found.npy", tmp_path / "source.npy"
    model.save(saved)
    np.save(data, source)
    command = [sys.executable, "-c", LOADING, str(saved), str(found), str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["dropout", "Cell"]
    np.testing.assert_allclose(np.load(found), model.predict(source, verbose=0), 1e-5, 1e-6)


@pytest.mark.one_in(5)
def test_an_exported_model_gives_the_same_and_no_gradients(tmp_path: Path) -> None:
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, keras.layers.RNN(LSTM(4, peephole=True))(inputs))
    model.export(tmp_path, verbose=False)
    loaded = tf.saved_model.load(tmp_path)
    source = tf.random.stateless_normal((2, 5, 3), (1, 2))
    np.testing.assert_allclose(loaded.serve(source), model(source), 1e-6, 1e-6)
    stopped = (tf.errors.InvalidArgumentError, TypeError)
    # Ours, or TensorFlow's own: it has the gradient of a sum traced for two arguments.
    with pytest.raises(stopped, match=r"has no gradients|missing a required argument"), tf.GradientTape() as tape:
        tape.watch(source)
        tape.gradient(tf.reduce_sum(loaded.serve(source)), source)


@pytest.mark.one_in(5)
def test_weights_go_through_a_file_of_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.h5"
    source = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    first, second = model_of_cells(), model_of_cells()
    for weight in second.trainable_weights:
        weight.assign(weight.value + 1.0)
    second.save_weights(path)
    assert np.abs(first.predict(source, verbose=0) - second.predict(source, verbose=0)).max() > 1e-3
    first.load_weights(path)
    np.testing.assert_allclose(first.predict(source, verbose=0), second.predict(source, verbose=0), 1e-5, 1e-6)
