"""`keras.layers.RNN` with a cell of ours gives what a `rec` layer does with the same weights, with all gradients."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import returnn_lite as rl
from returnn_lite.cells import Cell
from returnn_lite.layers.cells.registry import all_cells, cell_class, known_name
from tests.keras_cells.units import UNITS, is_on_places, shape_of_source, source_of

LENGTHS = np.array([5, 3, 0])
REAL = np.arange(5) < LENGTHS[:, None]
SUM_OF_SQUARES = {
    "squares": {"class": "eval", "from": "output", "eval": "source(0) * source(0)"},
    "loss": {"class": "reduce", "mode": "sum", "from": "squares", "axes": "static", "loss": "as_is"},
}


def network(name: str, source: np.ndarray) -> tuple[Any, dict[str, np.ndarray]]:
    """A `rec` layer of the unit, and its data."""
    layer: dict[str, Any] = {"class": "rec", "unit": UNITS[name], "from": "data"}
    data: dict[str, Any] = {"data": {"shape": (None, *source.shape[2:]), "dim": source.shape[-1]}}
    feeds = {"data": source}
    if name == "embedding":
        data, feeds = {"data": {"dim": 7, "sparse": True}}, {"data": source[..., 0]}
    if name == "phased_lstm":
        layer["from"] = ["data:time", "data"]
        data = {"data": {"dim": source.shape[-1] - 1}, "time": {"dim": 1, "same_dim_tags_as": {"t": "data"}}}
        feeds = {"data": source[..., 1:], "time": source[..., :1]}
    keys = Cell(UNITS[name], input_shape=shape_of_source(name)).state_names
    states = {f"s{i}": {"class": "get_last_hidden_state", "from": "output", "key": key, "is_output_layer": True}
              for i, key in enumerate(keys)}  # fmt: skip
    net = rl.compile({"output": layer, **states, **SUM_OF_SQUARES}, data, "eval", behavior_version=21, dtype="float64")
    return net, feeds


def batch_first(layer: rl.compiler.LayerOutput) -> np.ndarray:
    return np.moveaxis(np.asarray(layer.value), layer.dims.index("B"), 0)


@pytest.mark.one_in(20)
@pytest.mark.parametrize("name", UNITS)
def test_outputs_states_and_gradients(name: str) -> None:
    source = source_of(name)
    cell = Cell(UNITS[name], input_shape=shape_of_source(name), dtype="float64", seed=7)
    layer = keras.layers.RNN(cell, return_sequences=True, return_state=True, dtype="float64")
    layer.build(source.shape)
    net, feeds = network(name, source)
    for parameter, value in cell.parameters("output").items():
        net.params[parameter].assign(np.random.default_rng(len(parameter)).normal(size=value.shape))
    cell.set_parameters(net.params, "output")
    with tf.GradientTape() as tape:
        output, *states = layer(source, mask=REAL)
        real = tf.boolean_mask(output, REAL)
        total = tf.reduce_sum(real * real)
    by_keras = tape.gradient(total, [weight.value for weight in cell.trainable_weights])
    found = net.run(feeds, {"data": LENGTHS})
    np.testing.assert_allclose(np.asarray(output)[REAL], batch_first(found.layers["output"])[REAL], 1e-9, 1e-9)
    for i, state in enumerate(states):
        np.testing.assert_allclose(np.asarray(state), batch_first(found.layers[f"s{i}"]), 1e-9, 1e-9)
    gradients = net.gradients(feeds, {"data": LENGTHS})
    for weight, gradient in zip(cell.trainable_weights, by_keras, strict=True):
        mine = gradients[f"output/rec/{weight.name.replace('.', '/')}"] / found.objective
        theirs = 0 * mine if gradient is None else np.asarray(tf.convert_to_tensor(gradient)) / np.asarray(total)
        np.testing.assert_allclose(theirs, mine, 1e-8, 1e-9, err_msg=weight.name)


def test_every_class_of_units_is_there() -> None:
    names = [known_name(unit["class"]) for unit in UNITS.values()]
    missing = set(all_cells()) - {cell_class(name) for name in names if name is not None}
    assert sorted(cls.__name__ for cls in missing) == ["Attention", "LstmAttention"]
    assert any(is_on_places(name) for name in UNITS)
