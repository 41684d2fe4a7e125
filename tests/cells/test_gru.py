"""GRUs and simple recurrent networks with their options: against the formulas, in each way of running them."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
    below,
    compiled,
    first_values,
    network,
    output_of,
    refusal,
    shapes,
    weights_of,
)
from tools.cells.draws import given_masks

N = 5
Masks = Mapping[str, np.ndarray]
"""Of one sequence, by the names of draws; 0 where something is dropped."""


def gru(weights: Weights, xs: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
    """TensorFlow's GRU by Cho et al., or cuDNN's, on a sequence."""
    w = {name.removeprefix("gru_cell/"): value for name, value in weights.items()}
    act = FUNCTIONS[options.get("activation", "tanh")]
    gate = FUNCTIONS[options.get("recurrent_activation", "sigmoid")]
    bias, new, rec = (w.get(f"{name}/bias", 0.0) for name in ("gates", "candidate/input_projection", "candidate"))
    hidden = w.get("candidate/hidden_projection/bias", 0.0)
    h, found = np.zeros(N), []
    for x in xs:
        r, u = np.split(gate(np.concatenate([x, h]) @ w["gates/kernel"] + bias), 2)
        if options.get("reset_after"):
            seen = h @ w["candidate/hidden_projection/kernel"] + hidden
            total = x @ w["candidate/input_projection/kernel"] + new + r * seen
        else:
            total = np.concatenate([x, r * h]) @ w["candidate/kernel"] + rec
        h = u * h + (1 - u) * act(total)
        found.append(h)
    return np.stack(found)


OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no bias": {"use_bias": False},
    "activation": {"activation": "softsign"},
    "gates": {"recurrent_activation": "hard_sigmoid"},
    "reset after": {"reset_after": True},
    "reset after, no bias": {"reset_after": True, "use_bias": False},
    "all": {"reset_after": True, "activation": "relu", "recurrent_activation": "hard_sigmoid", "use_bias": False},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_gru(name: str) -> None:
    options = OPTIONS[name]
    assert_is({"class": "gru", "units": N, **options}, lambda weights, xs: gru(weights, xs, options))


NO_MASKS: Masks = {}


def masked(value: np.ndarray, masks: Masks, name: str, rate: float, gate: int, one: bool) -> np.ndarray:
    """What a gate of Keras' cells sees of a value."""
    mask = masks.get(f"{name}/{0 if one else gate}")
    return value if mask is None else value * (mask != 0) / (1 - rate)


def keras_gru(weights: Weights, xs: np.ndarray, options: Mapping[str, Any], masks: Masks = NO_MASKS) -> np.ndarray:
    """Keras' GRU on a sequence."""
    act, gate = (
        FUNCTIONS[options.get(*default)] for default in (("activation", "tanh"), ("recurrent_activation", "sigmoid"))
    )
    after, one = options.get("reset_after", True), options.get("implementation", 2) == 2
    kernel, recurrent = np.split(weights["kernel"], 3, 1), np.split(weights["recurrent_kernel"], 3, 1)
    bias = weights.get("bias", np.zeros(3 * N))
    of_x, of_h = (np.split(one, 3) for one in (bias if after and bias.ndim == 2 else (bias, np.zeros(3 * N))))
    h, found = np.zeros(N), []
    for x in xs:
        seen_x = [masked(x, masks, "dropout", options.get("dropout", 0), i, one) for i in range(3)]
        seen = [masked(h, masks, "recurrent_dropout", options.get("recurrent_dropout", 0), i, one) for i in range(3)]
        in_x = [value @ k + b for value, k, b in zip(seen_x, kernel, of_x, strict=True)]
        z, r = (gate(in_x[i] + seen[i] @ recurrent[i] + of_h[i]) for i in range(2))
        if after:
            candidate = in_x[2] + r * (seen[2] @ recurrent[2] + of_h[2])
        else:
            candidate = in_x[2] + (r * seen[2]) @ recurrent[2]
        h = z * (seen[0] if one else h) + (1 - z) * act(candidate)
        found.append(h)
    return np.stack(found)


KERAS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no bias": {"use_bias": False},
    "functions": {"activation": "relu", "recurrent_activation": "hard_sigmoid_relu6"},
    "no function": {"activation": None},
    "reset before": {"reset_after": False},
    "reset before, no bias": {"reset_after": False, "use_bias": False},
    "gate by gate": {"implementation": 1},
}


@pytest.mark.parametrize("name", KERAS)
def test_keras_gru(name: str) -> None:
    options = KERAS[name]
    assert_is({"class": "keras.GRUCell", "units": N, **options}, lambda weights, xs: keras_gru(weights, xs, options))


BOTH = {"dropout": 0.25, "recurrent_dropout": 0.5}
DROPPED: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "one mask": ({"implementation": 2, **BOTH}, (1, 1)),
    "one mask, reset before": ({"implementation": 2, "reset_after": False, **BOTH}, (1, 1)),
    "three masks": ({"implementation": 1, **BOTH}, (3, 3)),
    "three masks, reset before": ({"implementation": 1, "reset_after": False, **BOTH}, (3, 3)),
    "of x only": ({"dropout": 0.25}, (1, 0)),
    "of x only, gate by gate": ({"dropout": 0.25, "implementation": 1}, (3, 0)),
    "of h only": ({"recurrent_dropout": 0.5, "implementation": 1}, (0, 3)),
}


def drawn_masks(counts: tuple[int, int]) -> dict[str, np.ndarray]:
    """So many masks of x and of h for the batch."""
    generator = np.random.default_rng(7)
    return {
        f"{name}/{i}": (generator.uniform(size=(len(LENGTHS), size)) > 0.4).astype("float32")
        for name, count, size in (("dropout", counts[0], SIZE), ("recurrent_dropout", counts[1], N))
        for i in range(count)
    }


def dropped_output(unit: Any, masks: Masks, way: str, optimize: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The output in training with these masks, and the parameters."""
    config = {"network": network(unit, way), "extern_data": {"data": {"dim": SIZE}}, "behavior_version": 21}
    built = build(config, "train")
    net = Compiled(built, optimized(built, optimize), "float64")
    weights = {}
    for name, parameter in net.executable.params.items():
        parameter.assign(np.random.default_rng(len(name)).normal(size=parameter.shape))
        weights[below(name)] = parameter.numpy()
    with given_masks(masks):
        return output_of(net), weights


@pytest.mark.parametrize(("way", "optimize"), [("rec", True), ("rec", False), ("rnn_cell", True)])
@pytest.mark.parametrize("name", DROPPED)
def test_dropout_of_keras_gru(name: str, way: str, optimize: bool) -> None:
    options, counts = DROPPED[name]
    masks = drawn_masks(counts)
    output, weights = dropped_output({"class": "keras.GRUCell", "units": N, **options}, masks, way, optimize)
    for i, length in enumerate(LENGTHS):
        if length:
            own = {key: mask[i] for key, mask in masks.items()}
            expected = keras_gru(weights, SOURCE[i, :length], options, own)
            np.testing.assert_allclose(output[i, :length], expected, 1e-9, 1e-9)


def test_recurrent_dropout_is_gate_by_gate_in_keras_today() -> None:
    unit = {"class": "keras.GRUCell", "units": N, **BOTH}
    masks = drawn_masks((3, 3))
    one_by_one, _ = dropped_output({**unit, "implementation": 1}, masks, "rec", True)
    np.testing.assert_array_equal(dropped_output(unit, masks, "rec", True)[0], one_by_one)
    together = {name: mask for name, mask in masks.items() if name.endswith("0")}
    as_before, _ = dropped_output({**unit, "class": "tf.compat.v2.keras.layers.GRUCell"}, together, "rec", True)
    np.testing.assert_array_equal(as_before, dropped_output({**unit, "implementation": 2}, together, "rec", True)[0])


def test_nothing_is_dropped_in_use() -> None:
    unit = {"class": "keras.GRUCell", "units": N}
    np.testing.assert_array_equal(output_of(compiled({**unit, **BOTH})), output_of(compiled(unit)))


def simple_rnn(weights: Weights, xs: np.ndarray, options: Mapping[str, Any], masks: Masks = NO_MASKS) -> np.ndarray:
    """A simple recurrent network on a sequence, with TensorFlow's weights or Keras'."""
    joint = weights.get("basic_rnn_cell/kernel")
    if joint is None:
        joint = np.concatenate([weights["kernel"], weights["recurrent_kernel"]])
    bias = weights.get("bias", weights.get("basic_rnn_cell/bias", 0.0))
    act, h, found = FUNCTIONS[options.get("activation", "tanh")], np.zeros(N), []
    for x in xs:
        seen = []
        for name, value in (("dropout", x), ("recurrent_dropout", h)):
            keep = masks.get(f"{name}/0")
            seen.append(value if keep is None else value * keep / (1 - options[name]))
        h = act(np.concatenate(seen) @ joint + bias)
        found.append(h)
    return np.stack(found)


@pytest.mark.parametrize("options", [{}, {"use_bias": False}, {"activation": "relu", "use_bias": False}])
@pytest.mark.parametrize("unit", ["rnn", "keras.SimpleRNNCell"])
def test_simple_rnn(unit: str, options: dict[str, Any]) -> None:
    assert_is({"class": unit, "units": N, **options}, lambda weights, xs: simple_rnn(weights, xs, options))


@pytest.mark.parametrize("options", [{"dropout": 0.25}, {"recurrent_dropout": 0.5}, BOTH])
def test_dropout_of_simple_rnn(options: dict[str, float]) -> None:
    masks = {f"{name}/0": drawn_masks((1, 1))[f"{name}/0"] for name in options}
    output, weights = dropped_output({"class": "keras.SimpleRNNCell", "units": N, **options}, masks, "rec", True)
    for i, length in enumerate(LENGTHS):
        if length:
            own = {key: mask[i] for key, mask in masks.items()}
            expected = simple_rnn(weights, SOURCE[i, :length], options, own)
            np.testing.assert_allclose(output[i, :length], expected, 1e-9, 1e-9)


IN_KERAS: dict[str, tuple[Any, dict[str, Any]]] = {
    "GRU": (keras.layers.GRUCell, {}),
    "GRU, reset before": (keras.layers.GRUCell, {"reset_after": False, "use_bias": False, "activation": "softsign"}),
    "GRU, no function": (keras.layers.GRUCell, {"activation": None}),
    "GRU, hard": (keras.layers.GRUCell, {"recurrent_activation": "hard_sigmoid"}),
    "simple, hard": (keras.layers.SimpleRNNCell, {"activation": "hard_sigmoid"}),
    "simple": (keras.layers.SimpleRNNCell, {"activation": "relu"}),
}


@pytest.mark.parametrize("name", IN_KERAS)
def test_as_keras_computes_it(name: str) -> None:
    """With its own cell and our parameters, which are its own."""
    cls, options = IN_KERAS[name]
    net = compiled({"class": f"keras.{cls.__name__}", "units": N, **options})
    weights = weights_of(net)
    theirs = keras.layers.RNN(cls(N, dtype="float64", **options), return_sequences=True, dtype="float64")
    theirs.build(SOURCE.shape)
    assert {one.name: one.shape for one in theirs.weights} == {name: value.shape for name, value in weights.items()}
    theirs.set_weights([weights[one.name] for one in theirs.weights])
    expected, output = np.asarray(theirs(SOURCE)), output_of(net)
    for i, length in enumerate(LENGTHS):
        np.testing.assert_allclose(output[i, :length], expected[i, :length], 1e-6, 1e-6)


SAME: dict[str, dict[str, Any]] = {
    "tf.nn.rnn_cell.GRUCell": {"class": "gru"},
    "tf.contrib.rnn.GRUBlockCell": {"class": "gru"},
    "tf.contrib.rnn.GRUBlockCellV2": {"class": "gru"},
    "CudnnCompatibleGRUCell": {"class": "gru", "reset_after": True},
    "BasicRNNCell": {"class": "rnn"},
    "tf.keras.layers.SimpleRNNCell": {"class": "simplernn"},
    "tf.compat.v1.keras.layers.GRUCell": {
        "class": "keras.v2.gru",
        "reset_after": False,
        "recurrent_activation": "hard_sigmoid",
    },
}


@pytest.mark.parametrize("name", SAME)
def test_names_of_other_systems(name: str) -> None:
    theirs, ours = {"class": name, "num_units": N}, {**SAME[name], "units": N}
    assert shapes(theirs) == shapes(ours)
    np.testing.assert_array_equal(output_of(compiled(theirs)), output_of(compiled(ours)))


def test_parameters() -> None:
    assert shapes({"class": "gru", "units": N}) == {
        "gru_cell/gates/kernel": (SIZE + N, 2 * N),
        "gru_cell/gates/bias": (2 * N,),
        "gru_cell/candidate/kernel": (SIZE + N, N),
        "gru_cell/candidate/bias": (N,),
    }
    assert shapes({"class": "gru", "units": N, "reset_after": True}) == {
        "gru_cell/gates/kernel": (SIZE + N, 2 * N),
        "gru_cell/gates/bias": (2 * N,),
        "gru_cell/candidate/input_projection/kernel": (SIZE, N),
        "gru_cell/candidate/input_projection/bias": (N,),
        "gru_cell/candidate/hidden_projection/kernel": (N, N),
        "gru_cell/candidate/hidden_projection/bias": (N,),
    }
    of_keras = {"kernel": (SIZE, 3 * N), "recurrent_kernel": (N, 3 * N)}
    unit = {"class": "keras.gru", "units": N}
    assert shapes(unit) == {**of_keras, "bias": (2, 3 * N)}
    assert shapes({**unit, "reset_after": False}) == {**of_keras, "bias": (3 * N,)}
    assert shapes({**unit, "use_bias": False}) == of_keras
    assert shapes({"class": "rnn", "units": N, "use_bias": False}) == {"basic_rnn_cell/kernel": (SIZE + N, N)}


def test_what_parameters_start_with() -> None:
    found = first_values({"class": "gru", "units": N})
    assert (found["gru_cell/gates/bias"] == 1).all() and not found["gru_cell/candidate/bias"].any()
    given = first_values({"class": "gru", "units": N, "reset_after": True}, bias_init=0.5)
    assert all((value == 0.5).all() for name, value in given.items() if name.endswith("bias"))


@pytest.mark.parametrize(("unit", "columns"), [("keras.GRUCell", 3 * N), ("keras.SimpleRNNCell", N)])
def test_recurrent_weights_of_keras_are_orthogonal(unit: str, columns: int) -> None:
    weights = first_values({"class": unit, "units": N})["recurrent_kernel"]
    assert weights.shape == (N, columns)
    np.testing.assert_allclose(weights @ weights.T, np.eye(N), 1e-5, 1e-5)
    given = first_values({"class": unit, "units": N}, recurrent_weights_init=0.25)["recurrent_kernel"]
    assert (given == 0.25).all()


REFUSED = {
    "rate": ({"class": "keras.gru", "dropout": 1.0}, r"dropout: expected a number .*1"),
    "implementation": ({"class": "keras.gru", "implementation": 3}, r"implementation: expected one of 1, 2 or null"),
    "function": ({"class": "gru", "recurrent_activation": "sigm"}, r"there is no activation 'sigm'"),
    "dropout of TensorFlow's": ({"class": "gru", "dropout": 0.1}, r"'dropout' is not an option of gru"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    unit, message = REFUSED[name]
    assert re.search(message, refusal({**unit, "units": N}))
