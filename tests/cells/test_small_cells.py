"""Small recurrent cells with their options: against the formulas, in each way of running them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from tests.cells.probing import (
    FUNCTIONS,
    SIZE,
    Weights,
    assert_is,
    compiled,
    first_values,
    output_of,
    refusal,
    shapes,
    sigmoid,
)

N, P = 5, 3
Options = Mapping[str, Any]
Step = Callable[[Weights, np.ndarray, list[np.ndarray], Options], tuple[np.ndarray, list[np.ndarray]]]
"""From parameters, a frame and the states before to the output and the states after."""


def act(options: Options, default: str = "tanh", name: str = "activation") -> Any:
    return FUNCTIONS[options.get(name, default)]


def mixed(gate: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    return gate * old + (1 - gate) * new


def ugrnn(w: Weights, x: np.ndarray, states: list[np.ndarray], options: Options) -> tuple[np.ndarray, list[np.ndarray]]:
    g, c = np.split(np.concatenate([x, *states]) @ w["kernel"] + w["bias"], 2)
    h = mixed(sigmoid(g + options.get("forget_bias", 1.0)), states[0], act(options)(c))
    return h, [h]


def intersection(
    w: Weights, x: np.ndarray, states: list[np.ndarray], options: Options
) -> tuple[np.ndarray, list[np.ndarray]]:
    if "in_projection/kernel" in w:
        x = x @ w["in_projection/kernel"] + w["in_projection/bias"]
    time, s, depth, y = np.split(np.concatenate([x, *states]) @ w["kernel"] + w["bias"], 4)
    bias = options.get("forget_bias", 1.0)
    h = mixed(sigmoid(time + bias), states[0], np.tanh(s))
    return mixed(sigmoid(depth + bias), x, act(options, "relu", "y_activation")(y)), [h]


def indrnn(
    w: Weights, x: np.ndarray, states: list[np.ndarray], options: Options
) -> tuple[np.ndarray, list[np.ndarray]]:
    h = act(options)(x @ w["kernel_w"] + states[0] * w["kernel_u"] + w["bias"])
    return h, [h]


def indygru(
    w: Weights, x: np.ndarray, states: list[np.ndarray], options: Options
) -> tuple[np.ndarray, list[np.ndarray]]:
    (h,) = states
    total = x @ w["gates/kernel_w"] + np.concatenate([h, h]) * w["gates/kernel_u"] + w["gates/bias"]
    r, u = np.split(sigmoid(total), 2)
    c = act(options)(x @ w["candidate/kernel"] + r * h * w["candidate/kernel_u"] + w["candidate/bias"])
    h = mixed(u, h, c)
    return h, [h]


def nas(w: Weights, x: np.ndarray, states: list[np.ndarray], options: Options) -> tuple[np.ndarray, list[np.ndarray]]:
    c, m = states
    a = np.split(x @ w["kernel"], 8)
    b = np.split(m @ w["recurrent_kernel"] + w.get("bias", 0.0), 8)
    l0, l2, l5, l7 = (sigmoid(a[i] + b[i]) for i in (0, 2, 5, 7))
    l4, l6 = (np.tanh(a[i] + b[i]) for i in (4, 6))
    l1, l3 = np.maximum(a[1] + b[1], 0), np.maximum(a[3] * b[3], 0)
    c = np.tanh(np.tanh(l0 * l1) + c) * np.tanh(l2 + l3)
    m = np.tanh(c * np.tanh(np.tanh(l4 * l5) + sigmoid(l6 + l7)))
    m = m @ w["projection_weights"] if "projection_weights" in w else m
    return m, [c, m]


def sru(w: Weights, x: np.ndarray, states: list[np.ndarray], options: Options) -> tuple[np.ndarray, list[np.ndarray]]:
    v, f, r, s = np.split(x @ w["kernel"], 4)
    of_f, of_r = np.split(w["bias"], 2)
    c = mixed(sigmoid(f + of_f), states[0], v)
    return mixed(sigmoid(r + of_r), act(options)(c), s), [c]


def minimal(
    w: Weights, x: np.ndarray, states: list[np.ndarray], options: Options
) -> tuple[np.ndarray, list[np.ndarray]]:
    z = act(options)(x @ w["kernel"] + w["bias"])
    u = sigmoid(np.concatenate([z, *states]) @ w["gate/kernel"] + w["gate/bias"])
    h = mixed(u, states[0], z)
    return h, [h]


def chaos_free(
    w: Weights, x: np.ndarray, states: list[np.ndarray], options: Options
) -> tuple[np.ndarray, list[np.ndarray]]:
    of_t, of_i, new = np.split(x @ w["kernel"], 3)
    total = np.concatenate([of_t, of_i]) + states[0] @ w["recurrent_kernel"] + w["bias"]
    t, i = np.split(sigmoid(total), 2)
    h = t * act(options)(states[0]) + i * act(options)(new)
    return h, [h]


CASES: dict[str, tuple[str, Step, tuple[int, ...], dict[str, Any]]] = {
    "ugrnn": ("ugrnn", ugrnn, (N,), {}),
    "ugrnn, options": ("ugrnn", ugrnn, (N,), {"activation": "softsign", "forget_bias": -0.5}),
    "intersection": ("intersection", intersection, (SIZE,), {"units": SIZE}),
    "intersection, a switch for nothing": ("intersection", intersection, (SIZE,), {"units": SIZE, "num_in_proj": 9}),
    "intersection, projected": ("intersection", intersection, (N,), {"num_in_proj": 7}),
    "intersection, options": (
        "intersection",
        intersection,
        (N,),
        {"num_in_proj": N, "y_activation": "softsign", "forget_bias": 0.25},
    ),
    "indrnn": ("indrnn", indrnn, (N,), {}),
    "indrnn, relu": ("indrnn", indrnn, (N,), {"activation": "relu"}),
    "indygru": ("indygru", indygru, (N,), {}),
    "indygru, relu": ("indygru", indygru, (N,), {"activation": "relu"}),
    "nas": ("nas", nas, (N, N), {}),
    "nas, bias": ("nas", nas, (N, N), {"use_bias": True}),
    "nas, projected": ("nas", nas, (N, P), {"projection": P}),
    "nas, projected with bias": ("nas", nas, (N, N), {"projection": N, "use_bias": True}),
    "sru": ("sru", sru, (N,), {}),
    "sru, softsign": ("sru", sru, (N,), {"activation": "softsign"}),
    "minimal": ("minimalrnn", minimal, (N,), {}),
    "minimal, softsign": ("minimalrnn", minimal, (N,), {"activation": "softsign"}),
    "chaos free": ("cfn", chaos_free, (N,), {}),
    "chaos free, softsign": ("cfn", chaos_free, (N,), {"activation": "softsign"}),
}


@pytest.mark.parametrize("name", CASES)
def test_formulas(name: str) -> None:
    unit, step, sizes, options = CASES[name]

    def formula(weights: Weights, xs: np.ndarray) -> np.ndarray:
        states, found = [np.zeros(size) for size in sizes], []
        for x in xs:
            y, states = step(weights, x, states, options)
            found.append(y)
        return np.stack(found)

    assert_is({"class": unit, "units": N, **options}, formula)


SHAPES: dict[str, tuple[dict[str, Any], dict[str, tuple[int, ...]]]] = {
    "ugrnn": ({}, {"kernel": (SIZE + N, 2 * N), "bias": (2 * N,)}),
    "intersection": (
        {"num_in_proj": 1},
        {
            "in_projection/kernel": (SIZE, N),
            "in_projection/bias": (N,),
            "kernel": (2 * N, 4 * N),
            "bias": (4 * N,),
        },
    ),
    "indrnn": ({}, {"kernel_w": (SIZE, N), "kernel_u": (N,), "bias": (N,)}),
    "indygru": (
        {},
        {
            "gates/kernel_w": (SIZE, 2 * N),
            "gates/kernel_u": (2 * N,),
            "gates/bias": (2 * N,),
            "candidate/kernel": (SIZE, N),
            "candidate/kernel_u": (N,),
            "candidate/bias": (N,),
        },
    ),
    "nas": (
        {"projection": P},
        {"kernel": (SIZE, 8 * N), "recurrent_kernel": (P, 8 * N), "projection_weights": (N, P)},
    ),
    "sru": ({}, {"kernel": (SIZE, 4 * N), "bias": (2 * N,)}),
    "minimalrnn": ({}, {"kernel": (SIZE, N), "bias": (N,), "gate/kernel": (2 * N, N), "gate/bias": (N,)}),
    "cfn": ({}, {"kernel": (SIZE, 3 * N), "recurrent_kernel": (N, 2 * N), "bias": (2 * N,)}),
}


@pytest.mark.parametrize("unit", SHAPES)
def test_parameters(unit: str) -> None:
    options, expected = SHAPES[unit]
    assert shapes({"class": unit, "units": N, **options}) == expected


def test_what_parameters_start_with() -> None:
    found = first_values({"class": "indygru", "units": 100})
    for name in ("gates/kernel_u", "candidate/kernel_u"):
        assert found[name].min() < -0.8 and found[name].max() > 0.8 and np.abs(found[name]).max() <= 1
    assert (found["gates/bias"] == 1).all() and not found["candidate/bias"].any()
    own = first_values({"class": "indrnn", "units": 100})["kernel_u"]
    assert own.min() < -0.8 and own.max() > 0.8 and np.abs(own).max() <= 1
    given = first_values({"class": "indrnn", "units": 100}, recurrent_weights_init=1.0)["kernel_u"]
    assert (given == 1).all()
    for unit in ("ugrnn", "sru", "minimalrnn", "cfn"):
        assert not any(value.any() for name, value in first_values(unit, n_out=N).items() if name.endswith("bias"))


SAME: dict[str, dict[str, Any]] = {
    "tf.contrib.rnn.NASCell": {"class": "nas"},
    "tf.contrib.rnn.UGRNNCell": {"class": "ugrnn"},
    "tf.contrib.rnn.IndRNNCell": {"class": "indrnn"},
    "tf.contrib.rnn.IndyGRUCell": {"class": "indygru"},
    "tf.contrib.rnn.SRUCell": {"class": "sru"},
    "tf.contrib.rnn.MinimalRNNCell": {"class": "minimalrnn"},
    "tf.contrib.rnn.CFNCell": {"class": "cfn"},
    "chaos_free_network": {"class": "cfn"},
}


@pytest.mark.parametrize("name", SAME)
def test_names_of_other_systems(name: str) -> None:
    ours = output_of(compiled({**SAME[name], "units": N}))
    np.testing.assert_array_equal(output_of(compiled({"class": name, "num_units": N})), ours)


def test_intersection_by_its_old_name() -> None:
    ours = output_of(compiled({"class": "intersection", "units": N, "num_in_proj": 1}))
    theirs = output_of(compiled({"class": "tf.contrib.rnn.IntersectionRNNCell", "num_units": N, "num_in_proj": 64}))
    np.testing.assert_array_equal(theirs, ours)


def test_num_proj_is_the_projection() -> None:
    ours = output_of(compiled({"class": "nas", "units": N, "projection": P}))
    assert ours.shape[-1] == P
    np.testing.assert_array_equal(output_of(compiled({"class": "nas", "num_units": N, "num_proj": P})), ours)


@pytest.mark.parametrize("unit", ["ugrnn", "nas", "sru", "minimalrnn"])
def test_labels(unit: str) -> None:
    """A label is a row of the weights of the source."""
    layer = {"class": "rec", "unit": {"class": unit, "units": N}, "from": "data"}
    labels, found = np.array([[1, 6, 6, 0]]), []
    for entry, source in (({"dim": 7, "sparse": True}, labels), ({"dim": 7}, np.eye(7)[labels])):
        net = rl.compile({"output": layer}, {"data": entry}, "eval", behavior_version=21)
        for parameter in net.params.values():
            parameter.assign(np.random.default_rng(3).normal(size=parameter.shape))
        found.append(net.run({"data": source}, {"data": [4]}).layers["output"].value)
    np.testing.assert_allclose(*found, 1e-5, 1e-6)


@pytest.mark.parametrize("unit", ["keras.gru", "keras.lstm", "simplernn", "intersection"])
def test_labels_are_refused(unit: str) -> None:
    """Where what a source says of single features counts."""
    options = {"dropout": 0.5} if unit != "intersection" else {}
    layer = {"class": "rec", "unit": {"class": unit, "units": N, **options}, "from": "data"}
    config = {"network": {"output": layer}, "extern_data": {"data": {"dim": 7, "sparse": True}}}
    message = "dropout of a source of labels" if options else "an intersection needs a source of 5 features"
    for mode in ("train", "eval"):
        with pytest.raises(rl.ConfigError, match=message):
            rl.check({**config, "behavior_version": 21}, mode)


REFUSED = {
    "size of the source": (
        {"class": "intersection", "units": N},
        rf"an intersection needs a source of {N} features.*'num_in_proj'",
    ),
    "no units": ({"class": "nas", "projection": 3}, r"the size of the output, .* Add 'units'"),
    "projection of 0": ({"class": "nas", "units": N, "projection": 0}, "projection: expected a number of at least 1"),
    "option of another": ({"class": "sru", "units": N, "forget_bias": 1.0}, r"'forget_bias' is not an option of sru"),
    "function": ({"class": "cfn", "units": N, "activation": "tan h"}, r"there is no activation 'tan h'"),
    "initialiser": ({"class": "ugrnn", "units": N, "initializer": "zeros"}, r"'initializer' is not an option of ugrnn"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    unit, message = REFUSED[name]
    assert re.search(message, refusal(unit))
