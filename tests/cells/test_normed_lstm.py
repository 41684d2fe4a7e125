"""LSTMs with layer normalisation and with multiplicative integration, against their formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.layers.cells.decoding import unit_of
from tests.cells.probing import (
    FUNCTIONS,
    LENGTHS,
    SIZE,
    SOURCE,
    Weights,
    assert_is,
    below,
    compiled,
    first_values,
    network,
    output_of,
    refusal,
    shapes,
    sigmoid,
)

N, P = 5, 3
FOLDERS = {"i": "input", "j": "transform", "f": "forget", "o": "output", "c": "state"}
KERNELS, PRODUCTS = "layer_norm_lstm", "milstm"


def normed(v: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float) -> np.ndarray:
    """Ba et al. 2016."""
    return np.asarray((v - v.mean()) / np.sqrt(v.var() + epsilon) * gamma + beta)


def pre_activations(unit: str, weights: Weights, x: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Of an LSTM, or by Wu et al. 2016."""
    if unit == KERNELS:
        return np.asarray(np.concatenate([x, h]) @ weights["kernel"] + weights.get("bias", 0))
    u, p = x @ weights["W"], h @ weights["W_re"]
    products = weights["alpha"] * u * p + weights["beta1"] * p + weights["beta2"] * u
    return np.asarray(products + weights.get("b", 0))


def lstm(unit: str, weights: Weights, xs: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    """The outputs of a normalised LSTM on a sequence."""
    how = options.get("norm", "gate" if unit == KERNELS else None)
    epsilon = options.get("variance_epsilon", 1e-12 if how == "gate" else 1e-4)
    order, forget_bias = ("ijfo", 1.0) if unit == KERNELS else ("jifo", 0.0)
    act = FUNCTIONS[options.get("activation", "tanh")]
    seen = {name: weights.get(f"w_{name}_diag", np.zeros(N)) for name in "ifo"}
    clip, projection = options.get("cell_clip") or np.inf, weights.get("projection/kernel")

    def norm(name: str, v: np.ndarray) -> np.ndarray:
        folder = FOLDERS[name]
        return normed(v, weights[f"{folder}/gamma"], weights[f"{folder}/beta"], epsilon) if how == "gate" else v

    c, h, found = np.zeros(N), np.zeros(N if projection is None else P), []
    for x in xs:
        z = pre_activations(unit, weights, x, h)
        if how == "joint":
            z = normed(z, weights["norm/gamma"], weights["norm/beta"], epsilon)
        gates = {name: norm(name, part) for name, part in zip(order, np.split(z, 4), strict=True)}
        f = sigmoid(gates["f"] + options.get("forget_bias", forget_bias) + seen["f"] * c)
        c = norm("c", f * c + sigmoid(gates["i"] + seen["i"] * c) * act(gates["j"]))
        c = np.clip(c, -clip, clip)
        h = sigmoid(gates["o"] + seen["o"] * c) * act(c)
        if projection is not None:
            h = np.clip(h @ projection, *np.array([-1, 1]) * options.get("projection_clip", np.inf))
        found.append(h)
    return np.stack(found)


OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "gates": {"norm": "gate"},
    "joint": {"norm": "joint"},
    "joint without bias": {"norm": "joint", "use_bias": False, "variance_epsilon": 0.1},
    "no norm": {"norm": None, "forget_bias": 0.25},
    "epsilon": {"norm": "gate", "variance_epsilon": 0.5, "activation": "relu"},
    "all": {
        "norm": "gate",
        "peephole": True,
        "cell_clip": 0.4,
        "projection": P,
        "projection_clip": 0.3,
        "forget_bias": -0.5,
    },
    "all, joint": {"norm": "joint", "peephole": True, "cell_clip": 0.4, "projection": P, "activation": "relu"},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("unit", [KERNELS, PRODUCTS])
def test_options(unit: str, name: str) -> None:
    spec = {"class": unit, "units": N, **OPTIONS[name]}
    assert_is(spec, lambda weights, xs: lstm(unit, weights, xs, OPTIONS[name]))


SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "TensorFlow's": (
        {"class": "tf.contrib.rnn.LayerNormLSTMCell", "num_units": N, "num_proj": P, "use_peepholes": True},
        {"class": KERNELS, "units": N, "norm": None, "projection": P, "peephole": True},
    ),
    "TensorFlow's with norms": (
        {"class": "tf.contrib.rnn.LayerNormLSTMCell", "num_units": N, "layer_norm": True, "proj_clip": 0.1},
        {"class": KERNELS, "units": N},
    ),
    "TensorFlow's first one": (
        {"class": "tf.contrib.rnn.LayerNormBasicLSTMCell", "num_units": N, "forget_bias": 0.5},
        {"class": KERNELS, "units": N, "forget_bias": 0.5},
    ),
    "without norms": (
        {"class": "LayerNormBasicLSTMCell", "num_units": N, "layer_norm": False},
        {"class": KERNELS, "units": N, "norm": None},
    ),
    "Caffe2's": (
        {"class": "caffe2.LayerNormLSTM", "units": N},
        {"class": KERNELS, "units": N, "norm": "joint", "forget_bias": 0.0, "variance_epsilon": 1e-4},
    ),
    "Caffe2's, multiplicative": (
        {"class": "caffe2.LayerNormMILSTM", "dim_out": N, "forget_bias": 1.0, "memory_optimization": False},
        {"class": PRODUCTS, "units": N, "norm": "joint", "forget_bias": 1.0},
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_names_of_other_systems(name: str) -> None:
    theirs, ours = SAME[name]
    np.testing.assert_array_equal(output_of(compiled(theirs)), output_of(compiled(ours)))


def test_without_norms_it_is_the_lstm() -> None:
    plain = compiled({"class": "standardlstm", "units": N, "peephole": True})
    found = compiled({"class": KERNELS, "units": N, "norm": None, "peephole": True})
    for name, parameter in plain.params.items():
        found.params[f"output/rec/{below(name).removeprefix('lstm_cell/')}"].assign(parameter.numpy())
    np.testing.assert_allclose(output_of(found), output_of(plain), 1e-12, 1e-12)


def test_parameters() -> None:
    of_norms = {f"{folder}/{part}": (N,) for folder in FOLDERS.values() for part in ("gamma", "beta")}
    kernel = {"kernel": (SIZE + N, 4 * N)}
    assert shapes({"class": KERNELS, "units": N}) == kernel | of_norms
    joint = {"norm/gamma": (4 * N,), "norm/beta": (4 * N,)}
    assert shapes({"class": KERNELS, "units": N, "norm": "joint"}) == kernel | joint | {"bias": (4 * N,)}
    vectors = dict.fromkeys(("alpha", "beta1", "beta2", "b"), (4 * N,))
    products = {"W": (SIZE, 4 * N), "W_re": (N, 4 * N)}
    assert shapes({"class": PRODUCTS, "units": N}) == products | vectors
    assert shapes({"class": "layer_norm_milstm", "units": N}) == products | vectors | joint


def test_first_values() -> None:
    found = first_values({"class": PRODUCTS, "units": N})
    assert {name: set(found[name]) for name in ("alpha", "beta1", "beta2", "b")} == {
        "alpha": {1.0},
        "beta1": {1.0},
        "beta2": {1.0},
        "b": {0.0},
    }
    found = first_values({"class": KERNELS, "units": N, "norm_gain": 0.5, "norm_shift": 0.25})
    assert all(set(found[f"{folder}/gamma"]) == {0.5} for folder in FOLDERS.values())
    assert all(set(found[f"{folder}/beta"]) == {0.25} for folder in FOLDERS.values())
    assert set(first_values({"class": KERNELS, "units": N, "norm": None})["bias"]) == {0.0}
    basic = {"class": "layernormbasiclstm", "units": N, "layer_norm": False}
    drawn = first_values(basic)["bias"]
    assert len(set(drawn)) == 4 * N
    assert np.abs(drawn).max() <= np.sqrt(3 / (4 * N))
    assert set(first_values(basic, bias_init=0.5)["bias"]) == {0.5}


def test_dropout_of_the_candidate() -> None:
    """What is dropped adds nothing to the cell state; what is kept is divided by the probability of that."""
    unit = {"class": KERNELS, "units": N, "norm": None, "dropout_keep_prob": 0.75}
    cell = unit_of(unit, None, in_loop=False)
    assert getattr(cell, "dropout") == pytest.approx(0.25)  # noqa: B009
    dropping = compiled(unit, mode="train")
    weights = {below(name): parameter.numpy() for name, parameter in dropping.params.items()}
    xs = np.random.default_rng(3).normal(size=(200, 1, SIZE))
    output = output_of(dropping, xs, (1,) * len(xs))
    kept = 0
    for x, y in zip(xs[:, 0], output[:, 0], strict=True):
        i, j, _, o = np.split(x @ weights["kernel"][:SIZE] + weights["bias"], 4)
        whole = sigmoid(o) * np.tanh(sigmoid(i) * np.tanh(j) / 0.75)
        is_kept = y != 0
        np.testing.assert_allclose(y[is_kept], whole[is_kept], 1e-9)
        kept += is_kept.sum()
    assert 0.7 < kept / (len(xs) * N) < 0.8
    assert len(np.unique(output[:, 0] != 0, axis=0)) > 10  # each sequence has its own mask
    eval_ = compiled(unit, mode="eval")
    assert (output_of(eval_, xs, (1,) * len(xs)) != 0).all()


def test_dropout_is_new_at_each_step() -> None:
    unit = {"class": KERNELS, "units": 40, "dropout": 0.5, "norm": None, "forget_bias": -100.0}
    frames = np.repeat(np.random.default_rng(4).normal(size=(1, 1, SIZE)), 3, 1)
    dropped = output_of(compiled(unit, mode="train"), frames, (3,))[0] == 0
    assert 0.2 < dropped.mean() < 0.8
    assert (dropped[0] != dropped[1]).any()
    assert (dropped[1] != dropped[2]).any()


def test_of_labels() -> None:
    """A source of labels picks rows of the weights."""
    labels = np.array([[1, 3, 0], [2, 0, 0]])
    outputs = []
    for entry, data in (({"dim": SIZE, "sparse": True}, labels), ({"dim": SIZE}, np.eye(SIZE)[labels])):
        net = rl.compile(network({"class": PRODUCTS, "units": N}), {"data": entry}, "eval", dtype="float64")
        for seed, name in enumerate(sorted(net.params)):
            net.params[name].assign(np.random.default_rng(seed).normal(size=net.params[name].shape))
        found = net.run({"data": data}, {"data": [3, 2]}).layers["output"]
        outputs.append(np.moveaxis(found.value, found.dims.index("B"), 0)[[0, 0, 0, 1, 1], [0, 1, 2, 0, 1]])
    np.testing.assert_allclose(*outputs, 1e-12, 1e-12)


def test_padding_says_nothing() -> None:
    net = compiled({"class": "layer_norm_milstm", "units": N})
    other = np.where(np.arange(SOURCE.shape[1])[:, None] < np.array(LENGTHS)[:, None, None], SOURCE, 1e3)
    for mine, theirs, length in zip(output_of(net), output_of(net, other), LENGTHS, strict=True):
        np.testing.assert_array_equal(mine[:length], theirs[:length])


NESTED = [
    {"class": KERNELS, "units": 6, "projection": SIZE, "peephole": True, "dropout": 0.3},
    {"class": "residual", "cell": {"class": "layer_norm_milstm", "units": SIZE}},
    {"class": PRODUCTS, "units": N, "norm": "gate"},
]


def test_inside_of_others() -> None:
    outputs = [output_of(compiled(NESTED, way, optimize)) for way, optimize in (("rec", True), ("rnn_cell", False))]
    for whole, steps, length in zip(*outputs, LENGTHS, strict=True):
        np.testing.assert_allclose(whole[:length], steps[:length], 1e-9, 1e-9)


def test_under_a_mask() -> None:
    """The steps that a mask leaves out are no steps of the cell, which gives there what it gave last."""
    cell = {"class": "rnn_cell", "from": "data", "unit": NESTED}
    loop = {
        "first": {"class": "gather", "from": "data:source", "axis": "F", "position": 0},
        "mask": {"class": "compare", "from": "first", "value": 0.0, "kind": "greater"},
        "output": {"class": "masked_computation", "mask": "mask", "from": "data:source", "unit": cell},
    }
    for optimize in (True, False):
        layers = {"output": {"class": "rec", "from": "data", "unit": loop}}
        net = rl.compile(layers, {"data": {"dim": SIZE}}, "eval", dtype="float64", optimize=optimize)
        alone = compiled(NESTED)
        for name, parameter in net.params.items():
            parameter.assign(alone.params[f"output/rec/{name.partition('/rec/')[2].partition('rec/')[2]}"].numpy())
        output = output_of(net)
        for source, found, length in zip(SOURCE, output, LENGTHS, strict=True):
            kept = source[:length, 0] > 0
            if not kept.any():
                continue
            expected = output_of(alone, source[None, :length][:, kept], (int(kept.sum()),))[0]
            np.testing.assert_allclose(found[:length][kept], expected, 1e-9, 1e-9)


REFUSED = {
    "another norm": ({"norm": "all"}, "expected one of 'gate', 'joint' or null"),
    "a number": ({"layer_norm": [1]}, "norm"),
    "dropout of all": ({"dropout": 1.0}, "dropout"),
    "zeros beyond the end": ({"drop_states": True}, "A sequence has no frames beyond its end"),
    "a name": ({"dropout_keep_prob": "a"}, "dropout"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    options, message = REFUSED[name]
    assert message in refusal({"class": KERNELS, "units": N, **options})
