"""A cell as Keras and TensorFlow ask for it: sizes, states, options, parameters; and what is refused."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import returnn_lite as rl
from returnn_lite import cells
from returnn_lite.cells import LSTM, Cell
from tests.keras_cells.units import UNITS, shape_of_source

SOURCE = np.random.default_rng(3).normal(size=(2, 5, 3)).astype("float32")


@pytest.mark.parametrize("name", UNITS)
def test_config_round_trip(name: str) -> None:
    cell = Cell(UNITS[name], input_shape=shape_of_source(name), seed=3, bias_init=0.5)
    config = cell.get_config()
    again = Cell.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    assert (again.state_size, again.output_size) == (cell.state_size, cell.output_size)


def test_a_name_with_options_a_list_and_cells_inside() -> None:
    lstm = {"class": "lstm", "units": 64, "peephole": True}
    assert Cell("lstm", units=64, peephole=True).unit == lstm
    assert Cell([LSTM(64, peephole=True), "gru"]).unit == [lstm, "gru"]
    assert Cell({"class": "residual", "cell": Cell(lstm)}).unit == {"class": "residual", "cell": lstm}
    assert cells.Residual(LSTM(64, peephole=True)).unit == {"class": "residual", "cell": lstm}
    assert cells.Stack([Cell(lstm)]).unit == {"class": "stack", "cells": [lstm]}


def test_a_class_for_each_name() -> None:
    assert cells.LSTMCell is cells.LSTM is LSTM
    assert cells.LayerNormLSTM(3).state_size == [3, 3]
    config = cells.NASCell(3, seed=1).get_config()
    assert config["units"] == 3
    assert type(keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(cells.NAS(3)))) is cells.NAS
    assert "Hochreiter" in (LSTM.__doc__ or "") or "first argument is `units`" in (LSTM.__doc__ or "")
    with pytest.raises(AttributeError, match="no cell 'Lstmm'"):
        _ = cells.Lstmm


def test_one_state_is_bare_and_goes_back_as_it_came() -> None:
    cell = cells.GRU(4)
    assert cell.state_size == cell.output_size == 4
    state = cell.zero_state(2, tf.float32)
    assert state.shape == (2, 4)
    _, bare = cell(SOURCE[:, 0], state)
    _, listed = cell(SOURCE[:, 0], [state])
    _, paired = LSTM(4)(SOURCE[:, 0], LSTM(4).zero_state(2))
    np.testing.assert_array_equal(np.asarray(bare), np.asarray(listed[0]))
    assert isinstance(listed, list) and [one.shape for one in paired] == [(2, 4)] * 2


def test_first_states() -> None:
    cell = LSTM(4)
    for states in (cell.get_initial_state(batch_size=3), cell.get_initial_state(np.zeros((3, 7)), dtype="float32")):
        assert [one.shape for one in states] == [(3, 4)] * 2
    with pytest.raises(rl.ConfigError, match="Give batch_size"):
        cell.get_initial_state()


def test_parameters_under_the_names_of_a_layer() -> None:
    cell = LSTM(4, seed=1)
    cell.build((None, 3))
    names = {"rec/W", "rec/W_re", "rec/b"}
    assert set(cell.parameters()) == names
    values = {name: np.full_like(value, 0.5) for name, value in cell.parameters("lstm").items()}
    cell.set_parameters({**values, "other/W": np.zeros(1)}, "lstm")
    assert all((value == 0.5).all() for value in cell.parameters().values())
    with pytest.raises(rl.ConfigError, match="same parameters: rec/W"):
        cell.set_parameters({"rec/b": np.zeros(16), "rec/W_re": np.zeros((4, 16))})
    with pytest.raises(rl.ConfigError, match=r"the shape is \(3,\), not \(3, 16\)"):
        cell.set_parameters({**cell.parameters(), "rec/W": np.zeros(3)})


def test_first_weights_are_those_of_a_network() -> None:
    """The rules of the unit and the options of the layer, with the seed."""
    layer = {"class": "rec", "unit": {"class": "lstm", "units": 4}, "from": "data", "bias_init": 0.25}
    net = rl.compile({"output": layer}, {"data": {"dim": 3}}, "train", behavior_version=21)
    cell = LSTM(4, seed=42, bias_init=0.25)
    cell.build((None, 3))
    for name, value in cell.parameters("output").items():
        assert value.shape == tuple(net.params[name].shape)
        assert abs(np.std(value) - np.std(net.params[name].numpy())) < 0.1
    assert (cell.parameters()["rec/b"] == 0.25).all()
    other, same = LSTM(4), LSTM(4, seed=42, bias_init=0.25)
    other.build((None, 3))
    same.build((None, 3))
    assert (other.parameters()["rec/W"] != cell.parameters()["rec/W"]).any()
    assert (same.parameters()["rec/W"] == cell.parameters()["rec/W"]).all()


@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16"])
def test_types_of_numbers(dtype: str) -> None:
    layer = keras.layers.RNN(LSTM(4, dtype=dtype), dtype=dtype)
    assert layer(SOURCE).dtype == keras.DTypePolicy(dtype).compute_dtype
    assert layer.cell.weights[0].dtype == keras.DTypePolicy(dtype).variable_dtype


@pytest.mark.parametrize(
    ("unit", "options", "message"),
    [
        ("lstmm", {}, "unit.class: the unit 'lstmm' is not supported. Did you mean 'lstm'?"),
        ("lstm", {"unitz": 3}, "unit.unitz: 'unitz' is not an option of lstm"),
        (["lstm"], {"units": 3}, "options are for a cell with a name"),
        ({"class": "lstm_attention", "encoder": "enc", "units": 3}, {}, "unit.encoder: the cell reads the layer 'enc'"),
        ({"class": "residual", "residual_fn": max, "cell": "gru"}, {}, "a function can't be kept in a saved model"),
        (["lstm", keras.layers.LSTMCell(3)], {}, "unit.1: a LSTMCell can't be kept in a saved model"),
        ({"class": "conv2d_lstm", "kernel_size": 3, "units": 2}, {"input_shape": (4,)}, "2 sizes can't go over the 0"),
    ],
)
def test_mistakes_at_construction(unit: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(rl.ConfigError) as error:
        Cell(unit, **options)
    assert message in str(error.value)


def test_another_backend_of_keras_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(rl.ConfigError, match="cells run in TensorFlow, but Keras has jax"):
        LSTM(3)


def test_sizes_that_depend_on_the_source() -> None:
    for unknown in (Cell("lstm"), Cell("conv2d_lstm", units=2, kernel_size=3)):
        with pytest.raises(rl.ConfigError, match="Give units; or input_shape"):
            keras.layers.RNN(unknown)
    cell = Cell("conv2d_lstm", units=2, kernel_size=3, input_shape=(4, 5, 1))
    assert cell.state_size == [tf.TensorShape((4, 5, 2))] * 2
    with pytest.raises(rl.ConfigError, match=r"the cell is for \(4, 5, 1\), not \(4, 6, 1\)"):
        cell.build((None, 4, 6, 1))
    with pytest.raises(rl.ConfigError, match="an intersection needs a source of 4 features"):
        keras.layers.RNN(cells.IntersectionRNN(4))(SOURCE)
    with pytest.raises(rl.ConfigError, match="a step needs a source of known size"):
        LSTM(3).build((None, None))
    with pytest.raises(ValueError, match="has the states h, c, but gets 1"):
        LSTM(3)(SOURCE[:, 0], [np.zeros((2, 3), "float32")])
