"""The forms of `initial_state` for units with cells inside: by path, by structure, joined; and `stateful`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

SIZES = {"s0": 4, "s1": 4, "s2": 5, "all": 13, "lstm": 8}
"""Of the data: h and c of an LSTM, h of a GRU, all of them one after the other, those of the LSTM."""
DATA = {"data": {"dim": 3}, **{name: {"shape": (size,), "time_dim_axis": None} for name, size in SIZES.items()}}
RANDOM = np.random.default_rng(3)
PARTS = {name: RANDOM.normal(size=(2, size)) for name, size in SIZES.items() if name.startswith("s")}
FEEDS = {
    "data": RANDOM.normal(size=(2, 5, 3)),
    **PARTS,
    "all": np.concatenate([PARTS["s0"], PARTS["s1"], PARTS["s2"]], -1),
    "lstm": np.concatenate([PARTS["s0"], PARTS["s1"]], -1),
}
UNITS = [{"class": "lstm", "units": 4}, {"class": "dropout", "cell": {"class": "gru", "units": 5}}]
Net = dict[str, Any]


def output(layer: Net, *, in_loop: bool = False, optimize: bool = True) -> np.ndarray:
    """The output of a layer on the data, whose parameters are drawn by the order of their names."""
    net = compiled(layer, in_loop=in_loop, optimize=optimize)
    return np.asarray(net.run(FEEDS, {"data": [5, 3]}).layers["output"].value)


def compiled(layer: Net, *, in_loop: bool = False, optimize: bool = True) -> rl.Network:
    if in_loop:
        step = {**layer, "class": "rnn_cell", "from": "data:source"}
        layer = {"class": "rec", "from": "data", "unit": {"output": step}}
    else:
        layer = {"class": "rec", "from": "data", **layer}
    net = rl.compile({"output": layer}, DATA, "eval", behavior_version=21, optimize=optimize)
    for seed, name in enumerate(sorted(net.params)):
        net.params[name].assign(np.random.default_rng(seed).normal(size=net.params[name].shape))
    return net


def based(given: Any) -> Any:
    """The references of an option as they are in a loop."""
    if isinstance(given, dict):
        return {name: based(value) for name, value in given.items()}
    if isinstance(given, list):
        return [based(value) for value in given]
    return f"base:{given}" if isinstance(given, str) else given


BY_PATH = {"0/h": "data:s0", "0/c": "data:s1", "1/cell/h": "data:s2"}
FORMS: dict[str, Any] = {
    "by steps": {"0": {"h": "data:s0", "c": "data:s1"}, "1": {"cell": {"h": "data:s2"}}},
    "a list": [["data:s1", "data:s0"], "data:s2"],
    "lists": [["data:s1", "data:s0"], ["data:s2"]],
    "mixed": {"0": ["data:s1", "data:s0"], "1/cell/h": "data:s2"},
    "joined": "data:all",
    "of a cell joined": ["data:lstm", "data:s2"],
}


@pytest.mark.parametrize("in_loop", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str, in_loop: bool) -> None:
    expected = output({"unit": UNITS, "initial_state": BY_PATH})
    given = based(FORMS[form]) if in_loop else FORMS[form]
    found = output({"unit": UNITS, "initial_state": given}, in_loop=in_loop, optimize=form != "lists")
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1, :3], expected[1, :3], rtol=1e-5, atol=1e-6)
    assert np.abs(expected - output({"unit": UNITS})).max() > 0.01


REFUSED: dict[str, tuple[Any, str]] = {
    "no such cell": ({"2": 1.0}, "the unit has no state '2'.*It has 0/h, 0/c, 1/cell/h"),
    "no such state": ({"0": {"x": 1.0}}, "the unit has no state '0/x'"),
    "too many": ([1.0, 1.0, 1.0], "initial_state has 3 entries for 2 states"),
    "too few of a cell": ([[1.0], 1.0], "initial_state has 1 entries for 2 states below '0'"),
    "another size": ("data:lstm", "."),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    given, message = REFUSED[name]
    layer = {"class": "rec", "from": "data", "unit": UNITS, "initial_state": given}
    with pytest.raises(rl.ConfigError, match=message):
        rl.check({"network": {"output": layer}, "extern_data": DATA, "behavior_version": 21}, "eval")


STATEFUL: dict[str, tuple[Net, int]] = {
    "rec": ({"unit": UNITS}, 1),
    "both directions": ({"unit": {"class": "gru", "units": 4}, "direction": "both"}, 0),
}


@pytest.mark.parametrize("name", STATEFUL)
def test_stateful(name: str) -> None:
    """The first batch begins with zero, the second with what the first ended with; forwards that is one sequence."""
    options, forwards = STATEFUL[name]
    net, plain = compiled({**options, "stateful": True}), compiled(options)
    lengths = {"data": [5, 5]}
    first, second = (np.asarray(net.run(FEEDS, lengths).layers["output"].value) for _ in range(2))
    np.testing.assert_allclose(first, plain.run(FEEDS, lengths).layers["output"].value, rtol=1e-5, atol=1e-6)
    assert np.abs(second - first).max() > 0.01
    if forwards:
        twice = {**FEEDS, "data": np.concatenate([FEEDS["data"]] * 2, 1)}
        whole = np.asarray(plain.run(twice, {"data": [10, 10]}).layers["output"].value)
        np.testing.assert_allclose(second, whole[:, 5:], rtol=1e-5, atol=1e-6)


def test_stateful_backwards_goes_on_from_the_first_frame() -> None:
    """The backward state after the first batch is that before the second one's last frame."""
    unit = {"class": "gru", "units": 4}
    net = compiled({"unit": unit, "direction": "both", "stateful": True, "merge": "none"})
    backward = compiled({"unit": unit, "direction": -1})
    for name in backward.params:
        backward.params[name].assign(net.params[name.replace("rec/", "rec/backward/")].numpy())
    lengths = {"data": [5, 5]}
    found = [np.asarray(net.run(FEEDS, lengths).layers["output"].value)[:, :, 4:] for _ in range(2)]
    twice = {**FEEDS, "data": np.concatenate([FEEDS["data"]] * 2, 1)}
    whole = np.asarray(backward.run(twice, {"data": [10, 10]}).layers["output"].value)
    np.testing.assert_allclose(found[0], whole[:, 5:], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], whole[:, :5], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("given", [{"stateful": True}, {"initial_state": "keep_over_epoch"}], ids=str)
def test_what_has_a_number_for_each_frame_of_a_batch_is_not_for_the_next(given: dict[str, Any]) -> None:
    unit = {"class": "lstm_attention", "encoder": "data", "kind": "soft_coverage"}
    layer = {"class": "rec", "from": "data", "unit": unit, "n_out": 4, **given}
    with pytest.raises(rl.ConfigError, match="the next batch has other frames") as raised:
        rl.check({"network": {"output": layer}, "extern_data": DATA, "behavior_version": 21}, "eval")
    assert raised.value.diagnostics[0].path == ("network", "output", *given)
