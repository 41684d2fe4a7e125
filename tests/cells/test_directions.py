"""Units in both directions: what a layer for each and one that merges them compute; names, states, and what is
refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

DATA = {"data": {"dim": 3}, **{f"s{i}": {"shape": (4,), "dim": 4, "time_dim_axis": None} for i in range(4)}}
RANDOM = np.random.default_rng(1)
FEEDS = {"data": RANDOM.normal(size=(3, 6, 3)), **{f"s{i}": RANDOM.normal(size=(3, 4)) for i in range(4)}}
LENGTHS = {"data": [6, 0, 4]}
GRU = {"class": "gru", "units": 4}
LSTM = {"class": "lstm", "units": 4}
Net = dict[str, Any]


def run(layers: Net, names: dict[str, str] | None = None, *, optimize: bool = True) -> tuple[dict[str, Any], list[str]]:
    """All output layers, and the names of the parameters, which are drawn by name: by another one that `names` begins
    with, if that is said."""
    net = rl.compile(layers, DATA, "eval", behavior_version=21, optimize=optimize)
    for name in net.params:
        drawn = next((new + name.removeprefix(old) for old, new in (names or {}).items() if name.startswith(old)), name)
        seed = sum(ord(letter) * (place + 1) for place, letter in enumerate(drawn))
        net.params[name].assign(np.random.default_rng(seed).normal(size=net.params[name].shape))
    found = net.run({name: FEEDS[name] for name in FEEDS}, LENGTHS).layers
    return {name: output.value for name, output in found.items()}, sorted(net.params)


def both(**options: Any) -> Net:
    return {"class": "rec", "from": "data", "direction": "both", **options}


def one(name: str, unit: Any, source: Any = "data", **options: Any) -> Net:
    direction = -1 if name.startswith("backward") else 1
    return {"class": "rec", "from": source, "unit": unit, "direction": direction, **options}


def equal(found: np.ndarray, expected: np.ndarray) -> None:
    for b, length in enumerate(LENGTHS["data"] if found.ndim > 2 else [None] * 3):
        np.testing.assert_allclose(found[b, :length], expected[b, :length], rtol=1e-5, atol=1e-6)


RENAMED = {f"{direction}/rec/": f"output/rec/{direction}/" for direction in ("forward", "backward")}
MERGES = {"concat": None, "sum": "add", "mul": "mul", "ave": "average", "none": None}


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("merge", MERGES)
def test_both_directions_are_two_layers_merged(merge: str, optimize: bool) -> None:
    kind = MERGES[merge]
    sources = {"class": "copy"} if kind is None else {"class": "combine", "kind": kind}
    layers = {
        "forward": one("forward", GRU),
        "backward": one("backward", LSTM),
        "output": {**sources, "from": ["forward", "backward"]},
    }
    expected, _ = run(layers, RENAMED)
    found, names = run({"output": both(unit=GRU, unit_backward=LSTM, merge=merge)}, optimize=optimize)
    equal(found["output"], expected["output"])
    assert {name.split("/")[2] for name in names} == {"forward", "backward"}
    assert "output/rec/backward/W_re" in names


def test_a_list_is_a_stack_of_bidirectional_layers() -> None:
    layers = {
        "forward0": one("forward", GRU),
        "backward0": one("backward", GRU),
        "forward1": one("forward", LSTM, ["forward0", "backward0"]),
        "backward1": one("backward", LSTM, ["forward0", "backward0"]),
        "output": {"class": "copy", "from": ["forward1", "backward1"]},
    }
    renamed = {f"{way}{i}/rec/": f"output/rec/{way}/{i}/" for way in ("forward", "backward") for i in (0, 1)}
    expected, _ = run(layers, renamed)
    found, _ = run({"output": both(unit=[GRU, LSTM], n_out=8)})
    equal(found["output"], expected["output"])


def test_a_stack_with_a_class_runs_whole_in_each_direction() -> None:
    stack = {"class": "stack", "cells": [GRU, LSTM]}
    layers = {
        "forward": one("forward", stack),
        "backward": one("backward", stack),
        "output": {"class": "combine", "kind": "add", "from": ["forward", "backward"]},
    }
    expected, _ = run(layers, RENAMED)
    found, names = run({"output": both(unit=stack, merge="sum")})
    equal(found["output"], expected["output"])
    assert "output/rec/forward/1/W_re" in names


STATES: dict[str, Any] = {
    "by path": {f"{way}/{key}": f"data:s{i}" for i, (way, key) in enumerate(("fh", "fc", "bh", "bc"))},
    "in steps": {"forward": {"h": "data:s0", "c": "data:s1"}, "backward": {"c": "data:s3", "h": "data:s2"}},
    "a list": [["data:s1", "data:s0"], ["data:s3", "data:s2"]],
    "mixed": {"forward": ["data:s1", "data:s0"], "backward/h": "data:s2", "backward/c": "data:s3"},
}
STATES["by path"] = {
    key.replace("f/", "forward/").replace("b/", "backward/"): value for key, value in STATES["by path"].items()
}


@pytest.mark.parametrize("form", STATES)
def test_states_of_both_directions(form: str) -> None:
    keys = ("forward/h", "forward/c", "backward/h", "backward/c")
    layers = {
        "forward": one("forward", LSTM, initial_state={"h": "data:s0", "c": "data:s1"}),
        "backward": one("backward", LSTM, initial_state={"h": "data:s2", "c": "data:s3"}),
        "output": {"class": "copy", "from": ["forward", "backward"]},
    }
    lasts = {
        key: {"class": "get_last_hidden_state", "from": key.split("/")[0], "key": key[-1], "is_output_layer": True}
        for key in keys
    }
    expected, _ = run({**layers, **{key.replace("/", "_"): layer for key, layer in lasts.items()}}, RENAMED)
    own = {
        key.replace("/", "_"): {"class": "get_last_hidden_state", "from": "output", "key": key, "is_output_layer": True}
        for key in keys
    }
    found, _ = run({"output": both(unit=LSTM, initial_state=STATES[form]), **own})
    for name in ("output", *(key.replace("/", "_") for key in keys)):
        equal(found[name], expected[name])


def test_each_direction_is_a_part() -> None:
    copies = {
        name: {"class": "copy", "from": f"rnn/{name}", "is_output_layer": True} for name in ("forward", "backward")
    }
    found, _ = run({"rnn": both(unit=GRU, merge="mul", is_output_layer=True), **copies})
    equal(found["rnn"], found["forward"] * found["backward"])
    assert np.abs(found["forward"] - found["backward"]).max() > 0.1


def test_under_a_mask() -> None:
    mask = {"class": "compare", "kind": "greater", "from": "first", "value": 0.0}
    first = {"class": "gather", "from": "data", "position": 0, "axis": "F"}
    around = {"class": "masked_computation", "mask": "mask", "from": "data"}
    layers: Net = {"first": first, "mask": mask}
    layers["output"] = {**around, "unit": both(unit=GRU, merge="sum")}
    found, names = run(layers)
    for way in ("forward", "backward"):
        layers[way] = {**around, "unit": one(way, GRU)}
    layers["output"] = {"class": "combine", "kind": "add", "from": ["forward", "backward"]}
    expected, _ = run(layers, RENAMED)
    assert "output/rec/forward/gru_cell/gates/bias" in names
    counts = (FEEDS["data"][:, :, 0] > 0) & (np.arange(6) < np.array(LENGTHS["data"])[:, None])
    for b, count in enumerate(counts.sum(1)):
        np.testing.assert_allclose(found["output"][b, :count], expected["output"][b, :count], rtol=1e-5, atol=1e-6)


NETWORK: Net = {"output": {"class": "linear", "activation": "tanh", "n_out": 2, "from": ["data:source", "prev:output"]}}


@pytest.mark.parametrize(
    "run", [both(unit=GRU), {"class": "rec", "from": "data", "unit": NETWORK}], ids=["unit", "net"]
)
def test_gradients_stop_with_back_prop(run: Net) -> None:
    layers = {"rnn": {**run, "back_prop": False}, "output": {"class": "linear", "from": "rnn", "n_out": 2}}
    layers["output"] |= {"loss": "as_is"}
    net = rl.compile(layers, DATA, "train", behavior_version=21)
    gradients = net.gradients(FEEDS, LENGTHS)
    assert not any(np.any(gradients[name]) for name in gradients if name.startswith("rnn/"))
    assert np.any(gradients["output/W"])


def test_gradients_of_steps_that_are_computed_again() -> None:
    """Of both directions, in a stack of them: the same bits, as the units fill whole vectors of the machine, and no
    gradient is a sum of several, whose order may be another one."""
    found = []
    unit = [{"class": "gru", "units": 16}, {"class": "lstm", "units": 16}]
    for recompute in ("none", ["steps"]):
        layers = {
            "rnn": both(unit=unit, recompute=recompute),
            "output": {"class": "linear", "from": "rnn", "n_out": 2, "loss": "as_is"},
        }
        net = rl.compile(layers, DATA, "train", behavior_version=21)
        for seed, name in enumerate(sorted(net.params)):
            net.params[name].assign(np.random.default_rng(seed).normal(size=net.params[name].shape))
        found.append(net.gradients(FEEDS, LENGTHS))
    assert np.abs(found[0]["rnn/rec/backward/0/gru_cell/gates/kernel"]).max() > 0.01
    for name, gradient in found[0].items():
        np.testing.assert_array_equal(found[1][name], gradient)


@pytest.mark.parametrize("direction", [1, -1, "both"])
def test_over_another_axis_than_time(direction: Any) -> None:
    """A sequence at each frame."""
    source = np.random.default_rng(3).normal(size=(3, 5, 4, 3))
    layer = {"class": "rec", "from": "data", "unit": GRU, "direction": direction}
    found = []
    for own, data, feed, lengths in (
        ({**layer, "axis": "static:0"}, {"data": {"shape": (None, 4, 3), "dim": 3}}, source, [5, 5, 5]),
        (layer, {"data": {"dim": 3}}, source[:, 2], [4, 4, 4]),
    ):
        net = rl.compile({"output": own}, data, "eval", behavior_version=21, dtype="float64")
        for seed, name in enumerate(sorted(net.params)):
            net.params[name].assign(np.random.default_rng(seed).normal(size=net.params[name].shape))
        found.append(net.run({"data": feed}, {"data": lengths}).layers["output"])
    assert found[0].dims == ("B", "data:time", "data:static1", *found[0].dims[3:])
    np.testing.assert_allclose(found[0].value[:, 2], found[1].value, rtol=1e-9, atol=1e-9)


REFUSED: dict[str, tuple[Net, str]] = {
    "merge without directions": ({"unit": GRU, "direction": -1, "merge": "sum"}, "merge is for both directions"),
    "sizes": (
        {"unit": GRU, "unit_backward": {"class": "gru", "units": 3}, "merge": "sum"},
        "'sum' of 4 and 3 features",
    ),
    "n_out": ({"unit": GRU, "n_out": 9}, "both directions make 8 features, but n_out is 9"),
    "odd n_out": ({"unit": "gru", "n_out": 9}, "both directions can't make 9 features together"),
    "too few": ({"unit": "gru", "unit_backward": GRU, "n_out": 4}, "both directions can't make 4 features together"),
    "no size": ({"unit": "gru"}, "output size is not known|n_out"),
    "a list and none": ({"unit": [GRU], "unit_backward": GRU}, "needs one of as many backwards"),
    "as many": ({"unit": [GRU], "unit_backward": [GRU, GRU]}, "needs one of as many backwards"),
    "in a list": ({"unit": ["gru", "grux"], "n_out": 4}, r"output\.unit\.1: the unit 'grux'"),
    "backwards": ({"unit": GRU, "unit_backward": {"class": "gru", "foo": 1}}, r"output\.unit_backward\.foo"),
    "state": ({"unit": GRU, "state": "data:s0"}, "'state' is for one step of a loop"),
    "unknown state": ({"unit": GRU, "initial_state": {"h": 1.0}}, "no state 'h'.*It has forward/h, backward/h"),
    "a short list": ({"unit": GRU, "initial_state": [1.0]}, "initial_state has 1 entries for 2 states"),
    "a long list": (
        {"unit": LSTM, "initial_state": [[1.0], [1.0, 1.0]]},
        "initial_state has 1 entries for 2 states below 'forward'",
    ),
    "stateful and a state": ({"unit": GRU, "stateful": True, "initial_state": 1.0}, "Leave out initial_state"),
    "stateful network": (
        {"unit": {"output": {"class": "copy", "from": "data:source"}}, "stateful": True, "direction": 1},
        "stateful is for units with a name",
    ),
    "another word": ({"unit": GRU, "merge": "max"}, r"output\.merge: expected"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    options, message = REFUSED[name]
    config = {"network": {"output": both(**options)}, "extern_data": DATA, "behavior_version": 21}
    with pytest.raises(rl.ConfigError, match=message):
        rl.check(config, "eval")


def test_a_step_has_one_direction() -> None:
    loop = {"output": {"class": "rec", "from": "data:source", "unit": GRU, "direction": "both"}}
    config = {
        "network": {"output": {"class": "rec", "from": "data", "unit": loop}},
        "extern_data": DATA,
        "behavior_version": 21,
    }
    with pytest.raises(rl.ConfigError, match="one step of a loop can't run in both directions"):
        rl.check(config, "eval")
