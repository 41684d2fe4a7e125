"""Convolutional LSTMs against formulas in NumPy, one sequence at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.compiled import Compiled
from returnn_lite.compiler import build, optimized
from tests.cells.conv_lstms import (
    LENGTHS,
    Array,
    below,
    compiled,
    data,
    hard_sigmoid,
    of_keras,
    of_tensorflow,
    sigmoid,
    source,
)
from tools.cells.draws import given_masks

WAYS: dict[str, dict[str, Any]] = {"rec": {}, "plain": {"optimize": False}, "rnn_cell": {"in_loop": True}}


def ran(unit: Any, count: int, *, in_loop: bool = False, **options: Any) -> tuple[Array, dict[str, Array]]:
    """The output [B, T, ...] of a unit, and its parameters."""
    layers: dict[str, Any] = {"output": {"class": "rec", "from": "data", "unit": unit}}
    if in_loop:
        step = {"class": "rnn_cell", "from": "data:source", "unit": unit}
        layers = {"output": {"class": "rec", "from": "data", "unit": {"output": step}}}
    net = compiled(layers, data(count), **options)
    output = net.run({"data": source(count)}, {"data": LENGTHS}).layers["output"].value
    params = below(net, "output/rec/output/rec/" if in_loop else "output/rec/")
    return np.moveaxis(output, -2, 1) if in_loop else output, params


def assert_equal(found: Array, count: int, formula: Any) -> None:
    """Each sequence is what the formula says of it alone."""
    for b, length in enumerate(LENGTHS):
        expected = formula(source(count)[b, :length])
        np.testing.assert_allclose(found[b, :length], expected, rtol=1e-9, atol=1e-9)


TENSORFLOW: dict[str, tuple[int, dict[str, Any]]] = {
    "1d": (1, {"class": "Conv1DLSTMCell", "kernel_shape": [3]}),
    "even": (2, {"class": "Conv2DLSTMCell", "kernel_shape": [2, 4]}),
    "3d without bias": (3, {"class": "Conv3DLSTMCell", "kernel_shape": [2, 1, 2], "use_bias": False}),
    "one size for all": (2, {"class": "conv_lstm", "conv_ndims": 2, "kernel_size": 3}),
    "checked": (2, {"class": "tf.contrib.rnn.ConvLSTMCell", "kernel_shape": [1, 1], "input_shape": [4, 3, 2]}),
    "forget bias": (1, {"class": "conv_lstm", "kernel_size": [2], "forget_bias": -0.5}),
    "skip": (2, {"class": "conv_lstm", "kernel_size": [2, 3], "skip_connection": True}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", TENSORFLOW)
def test_tensorflow(name: str, way: str) -> None:
    count, unit = TENSORFLOW[name]
    found, params = ran({**unit, "units": 3}, count, **WAYS[way])
    skip = unit.get("skip_connection", False)
    forget_bias = unit.get("forget_bias", 1.0)
    assert_equal(found, count, lambda x: of_tensorflow(x, params, forget_bias=forget_bias, skip=skip))
    assert params["kernel"].shape[-2:] == (5, 12)
    assert ("biases" in params) == unit.get("use_bias", True)


KERAS: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "1d": (1, {"class": "keras.ConvLSTM1D", "kernel_size": 2}, {"same": False}),
    "2d, strides": (
        2,
        {"class": "ConvLSTM2D", "kernel_size": 2, "strides": [2, 1]},
        {"same": False, "strides": (2, 1)},
    ),
    "same, strides": (
        2,
        {"class": "ConvLSTM2D", "kernel_size": [3, 2], "strides": 2, "padding": "same"},
        {"strides": (2, 2)},
    ),
    "dilation": (2, {"class": "ConvLSTM2D", "kernel_size": 2, "dilation_rate": 2}, {"same": False, "dilation": (2, 2)}),
    "3d": (3, {"class": "keras.layers.ConvLSTM3D", "kernel_size": [2, 1, 2]}, {"same": False}),
    "without bias": (1, {"class": "ConvLSTM1D", "kernel_size": 3, "use_bias": False}, {"same": False}),
    "hard": (
        1,
        {"class": "keras.ConvLSTM1D", "kernel_size": 2, "recurrent_activation": "hard_sigmoid"},
        {"same": False, "gate": lambda x: np.clip(x / 6 + 0.5, 0, 1)},
    ),
    "v1, 1d": (1, {"class": "keras.v1.ConvLSTM1D", "kernel_size": 2}, {"same": False, "gate": hard_sigmoid}),
    "v1": (2, {"class": "keras.v1.ConvLSTM2D", "kernel_size": 2}, {"same": False, "gate": hard_sigmoid}),
    "v2": (1, {"class": "keras.v2.ConvLSTM1D", "kernel_size": 2}, {"same": False, "gate": hard_sigmoid}),
    "activations": (
        1,
        {"class": "ConvLSTM1D", "kernel_size": 2, "activation": "relu", "recurrent_activation": "tanh"},
        {"same": False, "act": lambda x: np.maximum(x, 0), "gate": np.tanh},
    ),
    "linear": (
        1,
        {"class": "ConvLSTM1D", "kernel_size": 2, "activation": None, "data_format": "channels_last"},
        {"same": False, "act": lambda x: x},
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", KERAS)
def test_keras(name: str, way: str) -> None:
    count, unit, formula = KERAS[name]
    found, params = ran({**unit, "filters": 3}, count, **WAYS[way])
    assert_equal(found, count, lambda x: of_keras(x, params, **formula))
    assert params["kernel"].shape[-2:] == (2, 12)
    assert params["recurrent_kernel"].shape[-2:] == (3, 12)
    assert ("bias" in params) == unit.get("use_bias", True)


@pytest.mark.parametrize(("name", "count"), [("keras.ConvLSTM1D", 1), ("keras.v2.ConvLSTM1D", 4)])
def test_dropout_has_masks_for_all_steps(name: str, count: int) -> None:
    """One mask for all gates in Keras 3, one for each before."""
    unit = {"class": name, "filters": 3, "kernel_size": 2, "dropout": 0.5, "recurrent_dropout": 0.25}
    drawn = np.random.default_rng(5)
    shapes = {"dropout": (2, 4, 2), "recurrent_dropout": (2, 3, 3)}
    masks = {
        f"{key}/{i}": (drawn.uniform(size=shape) < 0.6) * 1.0 for key, shape in shapes.items() for i in range(count)
    }
    layers = {"output": {"class": "rec", "from": "data", "unit": unit}}
    built = build({"network": layers, "extern_data": data(1), "behavior_version": 21}, "train")
    net = Compiled(built, optimized(built, True), "float64")
    params = {}
    for seed, (path, parameter) in enumerate(sorted(net.executable.params.items())):
        parameter.assign(0.5 * np.random.default_rng(seed).normal(size=parameter.shape))
        params[path.removeprefix("output/rec/")] = parameter.numpy()
    with given_masks(masks):
        output = net.run({"data": source(1)}, {"data": LENGTHS}).layers["output"].value
    gate = hard_sigmoid if "v2" in name else sigmoid
    for b, length in enumerate(LENGTHS):
        scaled = [
            [masks[f"{key}/{min(k, count - 1)}"][b] / kept for k in range(4)]
            for key, kept in (("dropout", 0.5), ("recurrent_dropout", 0.75))
        ]
        expected = of_keras(source(1)[b, :length], params, gate=gate, masks=scaled, same=False)
        np.testing.assert_allclose(output[b, :length], expected, rtol=1e-9, atol=1e-9)
    still = compiled(layers, data(1)).run({"data": source(1)}, {"data": LENGTHS}).layers["output"].value
    assert_equal(still, 1, lambda x: of_keras(x, params, gate=gate, same=False))


def test_what_parameters_start_with() -> None:
    def first(unit: dict[str, Any], **options: Any) -> dict[str, Array]:
        layers = {"output": {"class": "rec", "from": "data", "unit": {"units": 3, "kernel_size": 2, **unit}, **options}}
        return below(rl.compile(layers, data(1), "train", behavior_version=21))

    keras = first({"class": "ConvLSTM1D"})
    np.testing.assert_array_equal(keras["bias"], np.repeat([0.0, 1.0, 0.0, 0.0], 3))
    rows = keras["recurrent_kernel"].reshape(-1, 12)
    np.testing.assert_allclose(rows @ rows.T, np.eye(6), atol=1e-5)
    limit = np.sqrt(6 / (2 * 2 + 2 * 12))
    assert 0.8 * limit < np.abs(keras["kernel"]).max() < limit
    assert not first({"class": "ConvLSTM1D", "unit_forget_bias": False})["bias"].any()
    assert (first({"class": "ConvLSTM1D"}, bias_init=0.5)["bias"] == 0.5).all()
    assert (first({"class": "ConvLSTM1D"}, recurrent_weights_init=0.1)["recurrent_kernel"] == np.float32(0.1)).all()
    assert not first({"class": "Conv1DLSTMCell"})["biases"].any()
    assert (first({"class": "Conv1DLSTMCell"}, forward_weights_init=0.25)["kernel"] == 0.25).all()
