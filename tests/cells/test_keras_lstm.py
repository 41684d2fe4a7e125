"""The LSTM with Keras' weights: against its formula, with given dropout masks, and against Keras itself."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from returnn_lite.compiled import Compiled
from returnn_lite.compiler import build, optimized
from tests.cells.probing import (
    FUNCTIONS,
    LENGTHS,
    SIZE,
    SOURCE,
    Weights,
    assert_is,
    compiled,
    first_values,
    network,
    output_of,
    shapes,
    weights_of,
)
from tools.cells.draws import given_masks

N = 5


def keras_lstm(
    weights: Weights, xs: np.ndarray, options: dict[str, Any], of_x: Any = None, of_h: Any = None
) -> np.ndarray:
    """The outputs on a sequence; `of_x` and `of_h` are what each gate multiplies x and h with."""
    functions = {**FUNCTIONS, "hard_sigmoid": FUNCTIONS["hard_sigmoid_relu6"]}
    act = functions[options.get("activation", "tanh")]
    gate = functions[options.get("recurrent_activation", "sigmoid")]
    kernels = np.split(weights["kernel"], 4, 1)
    recurrent = np.split(weights["recurrent_kernel"], 4, 1)
    biases = np.split(weights.get("bias", np.zeros(4 * N)), 4)
    of_x, of_h = [1] * 4 if of_x is None else of_x, [1] * 4 if of_h is None else of_h
    c, h, found = np.zeros(N), np.zeros(N), []
    for x in xs:
        i, f, j, o = ((x * of_x[k]) @ kernels[k] + (h * of_h[k]) @ recurrent[k] + biases[k] for k in range(4))
        c = gate(f) * c + gate(i) * act(j)
        h = gate(o) * act(c)
        found.append(h)
    return np.stack(found)


OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no bias": {"use_bias": False},
    "relu": {"activation": "relu", "implementation": 1},
    "identity": {"activation": None, "recurrent_activation": "hard_sigmoid"},
    "hard": {"activation": "hard_sigmoid", "recurrent_activation": "hard_sigmoid"},
    "by our name": {"recurrent_activation": "hard_sigmoid_relu6"},
    "dropout in evaluation": {"dropout": 0.4, "recurrent_dropout": 0.3},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str) -> None:
    options = OPTIONS[name]
    assert_is({"class": "keras.lstm", "units": N, **options}, lambda w, xs: keras_lstm(w, xs, options))


MODES = {
    "keras.LSTMCell": {"recurrent_activation": "sigmoid"},
    "tf.compat.v1.keras.layers.LSTMCell": {"class": "keras.v2.lstm", "recurrent_activation": "hard_sigmoid"},
    "keras.v2.LSTMCell": {"recurrent_activation": "sigmoid"},
}


@pytest.mark.parametrize("name", MODES)
def test_defaults_of_each_mode(name: str) -> None:
    found = output_of(compiled({"class": name, "units": N}))
    np.testing.assert_array_equal(found, output_of(compiled({"class": "keras.lstm", "units": N, **MODES[name]})))


DROPOUT: dict[str, tuple[dict[str, Any], int]] = {
    "both": ({"dropout": 0.4, "recurrent_dropout": 0.3}, 4),
    "only x": ({"dropout": 0.4}, 1),
    "a mask for each gate": ({"dropout": 0.4, "implementation": 1}, 4),
    "one mask": ({"dropout": 0.4, "recurrent_dropout": 0.3, "implementation": 2}, 1),
    "of mode 1": ({"class": "keras.v1.lstm", "dropout": 0.4, "recurrent_activation": "sigmoid"}, 4),
}


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("name", DROPOUT)
def test_dropout(name: str, optimize: bool) -> None:
    """One mask for all steps of a sequence."""
    options, count = DROPOUT[name]
    draw = np.random.default_rng(3)
    rates = {"dropout": (SIZE, options["dropout"]), "recurrent_dropout": (N, options.get("recurrent_dropout", 0.0))}
    masks = {
        f"{which}/{k}": (draw.random((len(LENGTHS), size)) > rate).astype(float)
        for which, (size, rate) in rates.items()
        if rate
        for k in range(count)
    }
    config = {"network": network({"class": "keras.lstm", "units": N, **options}), "behavior_version": 21}
    built = build({**config, "extern_data": {"data": {"dim": SIZE}}}, "train")
    net = Compiled(built, optimized(built, optimize), "float64")
    for number, parameter in enumerate(net.executable.params.values()):
        parameter.assign(np.random.default_rng(number).normal(size=parameter.shape))
    weights = weights_of(net.executable)
    with given_masks(masks):
        found = net.run({"data": SOURCE}, {"data": list(LENGTHS)}).layers["output"]
    output = np.moveaxis(np.asarray(found.value), found.dims.index("B"), 0)
    for sequence, length in enumerate(LENGTHS):
        seen = [
            [masks[f"{which}/{k % count}"][sequence] / (1 - rate) for k in range(4)] if rate else None
            for which, (_, rate) in rates.items()
        ]
        if length:
            expected = keras_lstm(weights, SOURCE[sequence, :length], options, *seen)
            np.testing.assert_allclose(output[sequence, :length], expected, 1e-9, 1e-9)


@pytest.mark.parametrize(
    "options", [{}, {"use_bias": False, "activation": "relu"}, {"recurrent_activation": "hard_sigmoid"}]
)
def test_keras_gives_the_same_with_our_weights(options: dict[str, Any]) -> None:
    net = compiled({"class": "keras.lstm", "units": N, **options})
    weights = weights_of(net)
    layer = keras.layers.RNN(keras.layers.LSTMCell(N, **options), return_sequences=True)
    layer.build((None, None, SIZE))
    names = ["kernel", "recurrent_kernel", *(["bias"] if "bias" in weights else [])]
    layer.set_weights([weights[name] for name in names])
    theirs = np.asarray(layer(SOURCE.astype("float32")))
    output = output_of(net)
    for sequence, length in enumerate(LENGTHS):
        np.testing.assert_allclose(output[sequence, :length], theirs[sequence, :length], 1e-4, 1e-5)


def test_parameters_and_what_they_start_with() -> None:
    assert shapes({"class": "keras.lstm", "units": N}) == {
        "kernel": (SIZE, 4 * N),
        "recurrent_kernel": (N, 4 * N),
        "bias": (4 * N,),
    }
    found = first_values({"class": "keras.lstm", "units": N})
    np.testing.assert_array_equal(found["bias"], np.repeat([0, 1, 0, 0], N))
    recurrent = found["recurrent_kernel"]
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(N), atol=1e-5)
    assert not first_values({"class": "keras.lstm", "units": N, "unit_forget_bias": False})["bias"].any()
    assert (first_values({"class": "keras.lstm", "units": N}, bias_init=0.5)["bias"] == 0.5).all()


NAMES = ("hard_sigmoid", "hard_sigmoid_relu6")
HARD: dict[str, tuple[str, str]] = {
    "keras.LSTM": ("keras.v2.lstm", "hard_sigmoid_relu6"),
    "keras.layers.GRUCell": ("keras.v2.gru", "hard_sigmoid_relu6"),
    "keras.SimpleRNN": ("simplernn", "hard_sigmoid_relu6"),
    "keras.v2.LSTMCell": ("keras.v2.lstm", "hard_sigmoid"),
    "tf.compat.v1.keras.layers.GRUCell": ("keras.v1.gru", "hard_sigmoid"),
    "tf.compat.v1.keras.layers.SimpleRNNCell": ("simplernn", "hard_sigmoid"),
    "gru": ("gru", "hard_sigmoid"),
    "lstm": ("lstm", "hard_sigmoid"),
}
"""By a name in a config: a name under which functions have our names, and which of these it means."""


@pytest.mark.parametrize("name", HARD)
def test_what_hard_sigmoid_is_under_a_name(name: str) -> None:
    """The same name is two functions: that of Keras 3, and that of TensorFlow and the Keras before it."""
    ours, meant = HARD[name]
    option = "activation" if ours == "simplernn" else "recurrent_activation"
    found = output_of(compiled({"class": name, "units": N, option: "hard_sigmoid"}))
    both = {one: output_of(compiled({"class": ours, "units": N, option: one})) for one in NAMES}
    np.testing.assert_array_equal(found, both[meant])
    assert np.abs(both[NAMES[0]] - both[NAMES[1]]).max() > 1e-3


def test_hard_sigmoid_of_keras_3() -> None:
    x = np.linspace(-4, 4, 33)
    np.testing.assert_allclose(FUNCTIONS["hard_sigmoid_relu6"](x), keras.activations.hard_sigmoid(x), rtol=1e-6)
