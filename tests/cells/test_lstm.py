"""LSTMs with their options: against the formulas, in each way of running them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.cells.probing import (
    FUNCTIONS,
    LENGTHS,
    SIZE,
    SOURCE,
    Weights,
    assert_is,
    compiled,
    first_values,
    output_of,
    refusal,
    shapes,
)

N, P = 5, 3
FOLDERS = {"standardlstm": "lstm_cell/", "basiclstm": "basic_lstm_cell/", "lstm": "", "nativelstmlowmem": ""}


def lstm(unit: str, weights: Weights, xs: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    """The outputs of an LSTM on a sequence, by Gers et al. and Sak et al."""
    folder = FOLDERS[unit]
    joint = {"lstm": "", "nativelstmlowmem": "W"}.get(unit, f"{folder}kernel")
    kernel = weights[joint] if joint else np.concatenate([weights["W"], weights["W_re"]])
    bias = weights.get(f"{folder}bias", weights.get("b", np.zeros(4 * N)))
    order, usual = ("ijfo", 1.0) if folder else ("jifo", 0.0)
    act = FUNCTIONS[options.get("activation", "tanh")]
    gate = FUNCTIONS[options.get("recurrent_activation", "sigmoid")]
    peephole = {name: weights.get(f"{folder}w_{name}_diag", np.zeros(N)) for name in "ifo"}
    clip = options.get("cell_clip") or np.inf
    limit = options.get("projection_clip") or np.inf
    projection = weights.get(f"{folder}projection/kernel")
    c, h, found = np.zeros(N), np.zeros(N if projection is None else projection.shape[1]), []
    for x in xs:
        z = dict(zip(order, np.split(np.concatenate([x, h]) @ kernel + bias, 4), strict=True))
        i = gate(z["i"] + peephole["i"] * c)
        f = gate(z["f"] + options.get("forget_bias", usual) + peephole["f"] * c)
        c = np.clip(f * c + i * act(z["j"]), -clip, clip)
        h = gate(z["o"] + peephole["o"] * c) * act(c)
        if projection is not None:
            h = np.clip(h @ projection, -limit, limit)
        found.append(h)
    return np.stack(found)


OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "forget bias": {"forget_bias": 0.5},
    "no bias": {"use_bias": False},
    "peepholes": {"peephole": True},
    "clip": {"cell_clip": 0.3},
    "projection": {"projection": P},
    "projection as large": {"projection": N},
    "clipped projection": {"projection": P, "projection_clip": 0.2},
    "activation": {"activation": "softsign"},
    "gates": {"recurrent_activation": "hard_sigmoid"},
    "other gates": {"recurrent_activation": "hard_sigmoid_relu6"},
    "all": {
        "projection": P,
        "projection_clip": 0.4,
        "peephole": True,
        "cell_clip": 0.5,
        "forget_bias": 2.0,
        "activation": "relu",
        "recurrent_activation": "hard_sigmoid",
        "use_bias": False,
    },
}


@pytest.mark.parametrize(
    ("unit", "name"),
    [*(("standardlstm", name) for name in OPTIONS), *((unit, name) for unit in FOLDERS for name in ("nothing", "all"))],
)
def test_options(unit: str, name: str) -> None:
    options = OPTIONS[name]
    spec = {"class": unit, "units": N, **options}
    assert_is(spec, lambda weights, xs: lstm(unit, weights, xs, options))


NAMES_OF_OPTIONS = {
    "projection": ({"num_proj": P, "proj_clip": 0.2}, {"projection": P, "projection_clip": 0.2}),
    "PyTorch's": ({"proj_size": P}, {"projection": P}),
    "peepholes": ({"use_peepholes": True}, {"peephole": True}),
    "peephole": ({"use_peephole": True, "cell_clip": 0.1}, {"peephole": True, "cell_clip": 0.1}),
    "a clip of -1": ({"cell_clip": -1.0}, {}),
    "only its clip": ({"proj_clip": 0.01}, {}),
    "functions that are null": ({"activation": None, "recurrent_activation": None}, {}),
    "shards": ({"num_unit_shards": 3, "num_proj_shards": 2, "state_is_tuple": False}, {}),
}


@pytest.mark.parametrize("name", NAMES_OF_OPTIONS)
def test_names_of_options(name: str) -> None:
    theirs, ours = NAMES_OF_OPTIONS[name]
    found = output_of(compiled({"class": "tf.nn.rnn_cell.LSTMCell", "num_units": N, **theirs}))
    np.testing.assert_array_equal(found, output_of(compiled({"class": "standardlstm", "units": N, **ours})))


SAME = {
    "tf.nn.rnn_cell.LSTMCell": {"class": "standardlstm"},
    "tf.contrib.rnn.LSTMBlockCell": {"class": "standardlstm"},
    "tf.contrib.rnn.LSTMBlockFusedCell": {"class": "standardlstm"},
    "CudnnCompatibleLSTMCell": {"class": "standardlstm", "forget_bias": 0.0},
    "BasicLSTMCell": {"class": "basiclstm", "forget_bias": 1.0},
    "LSTMBlock": {"class": "lstm"},
}


@pytest.mark.parametrize("name", SAME)
def test_names_of_other_systems(name: str) -> None:
    assert shapes({"class": name, "units": N}) == shapes({**SAME[name], "units": N})
    found = output_of(compiled({"class": name, "units": N}))
    np.testing.assert_array_equal(found, output_of(compiled({**SAME[name], "units": N})))


def test_parameters() -> None:
    found = shapes({"class": "standardlstm", "units": N, "projection": P, "peephole": True})
    assert found == {
        **{f"lstm_cell/w_{gate}_diag": (N,) for gate in "ifo"},
        "lstm_cell/kernel": (SIZE + P, 4 * N),
        "lstm_cell/bias": (4 * N,),
        "lstm_cell/projection/kernel": (N, P),
    }
    native = shapes({"class": "lstm", "units": N, "projection": P, "use_bias": False})
    assert native == {"W": (SIZE, 4 * N), "W_re": (P, 4 * N), "projection/kernel": (N, P)}


def test_what_parameters_start_with() -> None:
    """Glorot and Bengio's uniform numbers, those of a vector of n within sqrt(3 / n); biases 0."""
    found = first_values({"class": "standardlstm", "units": 100, "peephole": True, "projection": 50})
    assert not found["lstm_cell/bias"].any()
    limits = {
        "lstm_cell/kernel": np.sqrt(6 / (SIZE + 50 + 400)),
        "lstm_cell/w_f_diag": np.sqrt(3 / 100),
        "lstm_cell/projection/kernel": np.sqrt(6 / 150),
    }
    for name, limit in limits.items():
        assert 0.9 * limit < np.abs(found[name]).max() <= limit, name


@pytest.mark.parametrize("unit", ["tf.lstm", "lstm", "cifg", "glstm"])
def test_an_initializer_is_that_of_all_weights_unless_the_layer_says(unit: str) -> None:
    spec = {"class": unit, "units": N, "projection": P, "initializer": 0.5}
    spec |= {"peephole": True} if unit != "glstm" else {}
    found = first_values(spec)
    assert all((value == (0.0 if name.endswith(("b", "bias")) else 0.5)).all() for name, value in found.items())
    found = first_values(spec, forward_weights_init=0.25, recurrent_weights_init=0.25)
    assert all((value == (0.0 if name.endswith(("b", "bias")) else 0.25)).all() for name, value in found.items())


REFUSED = {
    "no units": ({"class": "lstm", "projection": 3}, r"the size of the output, .* Add 'units'"),
    "no projection": ({"class": "lstm", "units": 3, "projection": 0}, "projection: expected a number of at least 1"),
    "a word": ({"class": "tf.lstm", "units": 3, "cell_clip": "a"}, r"unit\.cell_clip: expected a number"),
    "initialiser": (
        {"class": "lstm", "units": 3, "initializer": "ortho"},
        r"output\.unit: there is no initialiser 'ortho'. Did you mean",
    ),
    "function": (
        {"class": "lstm", "units": 3, "recurrent_activation": "sigm"},
        r"output\.unit: .* 'sigm'. Did you mean",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    unit, message = REFUSED[name]
    assert re.search(message, refusal(unit))


def test_another_size_than_that_of_the_projection() -> None:
    said = refusal({"class": "lstm", "units": 6, "projection": 3}, n_out=6)
    assert "the unit has 3 features, but n_out is 6" in said


def test_the_gradient_of_a_clip_is_its_slope() -> None:
    """Where TensorFlow's block LSTM has that of no clip."""
    unit = {"class": "tf.LSTMBlockCell", "units": N, "cell_clip": 0.2}
    net = compiled(unit, mode="train", loss="as_is")
    (kernel,) = (parameter for name, parameter in net.params.items() if name.endswith("kernel"))
    gradient = net.gradients({"data": SOURCE}, {"data": list(LENGTHS)})["output/rec/lstm_cell/kernel"]
    value, direction = kernel.numpy(), np.random.default_rng(2).normal(size=kernel.shape)
    around = []
    for step in (1e-6, -1e-6):
        kernel.assign(value + step * direction)
        output = output_of(net)
        around.append(sum(output[i, :length].sum() for i, length in enumerate(LENGTHS)))
    np.testing.assert_allclose((gradient * direction).sum(), (around[0] - around[1]) / 2e-6, 1e-6)
