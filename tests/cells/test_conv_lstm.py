"""Convolutional LSTMs against formulas in NumPy, one sequence at a time; and whatever has spatial dims in a state."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import returnn_lite as rl

Array = NDArray[np.float64]
LENGTHS = (5, 3)
SHAPES = {1: (4,), 2: (4, 3), 3: (3, 2, 2)}
"""Spatial sizes, by how many there are."""


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def hard_sigmoid(x: Array) -> Array:
    return np.clip(0.2 * x + 0.5, 0, 1)


def convolved(
    x: Array, kernel: Array, strides: Sequence[int] = (), dilation: Sequence[int] = (), *, same: bool = True
) -> Array:
    """x [sizes.., in] with a kernel [sizes.., in, out], place by place; the odd zero of "same" is behind."""
    count = x.ndim - 1
    strides, dilation = strides or (1,) * count, dilation or (1,) * count
    reach = [(size - 1) * rate + 1 for size, rate in zip(kernel.shape, dilation, strict=False)]
    if same:
        places = [-(-n // stride) for n, stride in zip(x.shape, strides, strict=False)]
        total = [max((p - 1) * s + r - n, 0) for p, s, r, n in zip(places, strides, reach, x.shape[:-1], strict=True)]
        x = np.pad(x, [*((n // 2, n - n // 2) for n in total), (0, 0)])
    else:
        places = [-(-(n - r + 1) // stride) for n, r, stride in zip(x.shape[:-1], reach, strides, strict=True)]
    y = np.zeros((*places, kernel.shape[-1]))
    for place in itertools.product(*map(range, places)):
        for at in itertools.product(*map(range, kernel.shape[:-2])):
            seen = [p * s + a * d for p, s, a, d in zip(place, strides, at, dilation, strict=True)]
            y[place] += x[tuple(seen)] @ kernel[at]
    return y


def of_tensorflow(x: Array, params: Mapping[str, Array], *, forget_bias: float = 1.0, skip: bool = False) -> Array:
    """The outputs of one sequence [T, sizes.., in]: [x; h] is convolved at once."""
    kernel = params["kernel"]
    channels = kernel.shape[-1] // 4
    c = h = np.zeros((*x.shape[1:-1], channels))
    outputs = []
    for frame in x:
        z = convolved(np.concatenate([frame, h], -1), kernel) + params.get("biases", 0)
        i, j, f, o = np.split(z, 4, -1)
        c = sigmoid(f + forget_bias) * c + sigmoid(i) * np.tanh(j)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(np.concatenate([h, frame], -1) if skip else h)
    return np.stack(outputs)


def of_keras(
    x: Array, params: Mapping[str, Array], *, gate: Any = sigmoid, act: Any = np.tanh, masks: Any = None, **options: Any
) -> Array:
    """The same with Keras' parameters; `masks` are those of x and of h, four each."""
    of_x, of_h = masks or ([1.0] * 4, [1.0] * 4)
    kernels = [np.split(params[name], 4, -1) for name in ("kernel", "recurrent_kernel")]
    biases = np.split(params.get("bias", np.zeros(params["kernel"].shape[-1])), 4, -1)
    outputs: list[Array] = []
    c: Any = 0.0
    for frame in x:
        i, f, g, o = (convolved(frame * of_x[k], kernels[0][k], **options) + biases[k] for k in range(4))
        if outputs:
            i, f, g, o = (z + convolved(outputs[-1] * of_h[k], kernels[1][k]) for k, z in enumerate((i, f, g, o)))
        c = gate(f) * c + gate(i) * act(g)
        outputs.append(gate(o) * act(c))
    return np.stack(outputs)


def source(count: int, features: int = 2) -> Array:
    return np.random.default_rng(count).normal(size=(2, 5, *SHAPES[count], features))


def data(count: int, features: int = 2) -> dict[str, Any]:
    return {"data": {"shape": (None, *SHAPES[count], features), "dim": features}}


def compiled(layers: Mapping[str, Any], extern_data: Mapping[str, Any], mode: str = "eval", **options: Any) -> Any:
    """A network whose parameters are drawn by the order of their names."""
    net = rl.compile(dict(layers), dict(extern_data), mode, behavior_version=21, **options)
    for seed, name in enumerate(sorted(net.params)):
        net.params[name].assign(0.5 * np.random.default_rng(seed).normal(size=net.params[name].shape))
    return net


def below(net: Any, scope: str = "output/rec/") -> dict[str, Array]:
    return {name.removeprefix(scope): np.asarray(value, np.float64) for name, value in net.params.items()}


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
        np.testing.assert_allclose(found[b, :length], expected, rtol=1e-4, atol=2e-6)


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
