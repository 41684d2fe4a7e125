"""Recurrent layers in a loop and outside of it: every unit, every initial state, over steps and over inner frames."""

from __future__ import annotations

from typing import Any

import pytest

from returnn_lite.compiler import ModeName
from tests.loop.probing import add, assert_same, check, everywhere, linear, over_inner_frames, refused

UNITS = [
    *("lstm", "lstmp", "nativelstm", "nativelstm2", "nativelstmlowmem", "cudnnlstm", "vanillalstm", "basicrnn"),
    *("lstmblock", "lstmblockfused", "standardlstm", "basiclstm", "zoneoutlstm", "layernormvariantslstm"),
    *("gru", "grublock", "rhn"),
]
MEAN = {"class": "reduce", "mode": "mean", "axis": "T"}


def unit(name: str, layer: str = "rec", **options: Any) -> dict[str, Any]:
    return {"class": layer, "unit": name, "n_out": 4, "from": "x", **options}


@pytest.mark.one_in(2)
@everywhere
@pytest.mark.parametrize("name", UNITS)
def test_rec_one_step(name: str, place: str) -> None:
    check({"probe": unit(name)}, place)


@pytest.mark.one_in(2)
@everywhere
@pytest.mark.parametrize("name", UNITS)
def test_rnn_cell(name: str, place: str) -> None:
    check({"probe": unit(name, "rnn_cell")}, place)


STATES: dict[str, Any] = {
    "a number": 0.5,
    "zeros": "zeros",
    "ones": "ones",
    "trained": "var",
    "a layer": "base:first",
    "each its own": {"c": "base:first", "h": 0.5},
    "each by a rule": {"c": "var", "h": "zeros"},
}


@pytest.mark.parametrize("place", ["frames", "labels", "cycle"])
@pytest.mark.parametrize("name", STATES)
def test_initial_state(name: str, place: str) -> None:
    """With a layer outside of the loop, which a unit under a mask would call `base:base:first`."""
    around = {"first": {**MEAN, "from": "memory"}}
    check({"probe": unit("lstmblock", "rnn_cell", initial_state=STATES[name])}, place, around=around)


@everywhere
def test_state_before_the_first_step(place: str) -> None:
    """What `prev:` of a unit begins with is its initial state."""
    check({"y": unit("lstmblock", "rnn_cell", initial_state=0.5), "probe": add("y", "prev:y")}, place)


@everywhere
@pytest.mark.parametrize(("name", "state"), [("gru", "s"), ("lstmblock", {"c": "s", "h": "prev:probe"})])
def test_state_at_each_step(name: str, state: Any, place: str) -> None:
    check({"s": linear("x", "prev:probe"), "probe": unit(name, "rnn_cell", state=state)}, place)


@everywhere
def test_get_last_hidden_state(place: str) -> None:
    """In a step it is the state after that step."""
    state = {"class": "get_last_hidden_state", "key": "c", "n_out": 4, "from": "cell"}
    check({"cell": unit("lstmblock", "rnn_cell"), "probe": state}, place)


@over_inner_frames
@pytest.mark.parametrize("options", [{}, {"direction": -1}, {"unit": "gru"}], ids=["forwards", "backwards", "gru"])
def test_rec_over_inner_frames(options: dict[str, Any], place: str) -> None:
    check({"probe": {**unit("lstm"), **options}}, place, inner=True)


@over_inner_frames
def test_rnn_cell_at_inner_frames(place: str) -> None:
    """In a loop a cell runs over the loop's steps; other dims are batch dims."""
    check({"probe": unit("lstmblock", "rnn_cell")}, place, inner=True)


@over_inner_frames
def test_loop_in_loop(place: str) -> None:
    """A body of its own over the inner frames, in each step."""
    body = {"output": linear("data:source", "prev:output")}
    check({"probe": {"class": "rec", "unit": body, "from": "x"}}, place, inner=True)


@everywhere
def test_last_output_of_a_loop_in_a_loop(place: str) -> None:
    body = {"output": linear("data:source", "prev:output"), "last": linear("output", need_last=True)}
    last = {"class": "rec_last_output", "rec_layer": "inner", "sub_layer_name": "last", "from": []}
    inner = {"class": "rec", "unit": body, "from": "frames"}
    check({"frames": add("memory", "x"), "inner": inner, "probe": last}, place)


def test_loop_without_a_known_number_of_steps() -> None:
    """A body in a body is no single step by itself: without frames it needs an end."""
    refused({"probe": {"class": "rec", "unit": {"output": linear("base:x")}, "from": []}}, "labels", "layer 'end'")


@pytest.mark.parametrize("mode", ["train", "search"])
def test_a_cell_that_no_step_changes(mode: ModeName) -> None:
    """Its state, too, comes from around: in a search, before which nobody knows how many steps there are, as well."""
    unit = {
        "cell": {"class": "rnn_cell", "unit": "gru", "n_out": 4, "from": "base:state", "state": "base:state"},
        "prob": {"class": "softmax", "from": "cell", "target": "classes", "loss": "ce"},
        "output": {"class": "choice", "from": "prob", "target": "classes", "beam_size": 3, "initial_output": 0},
        "end": {"class": "compare", "from": "output", "value": 0},
    }
    config = {
        "extern_data": {"data": {"dim": 4}, "classes": {"dim": 5, "sparse": True, "available_for_inference": False}},
        "target": "classes",
        "network": {
            "state": {**MEAN, "from": "data"},
            "output": {"class": "rec", "from": [], "unit": unit, "target": "classes", "max_seq_len": 4},
            "decision": {"class": "decide", "from": "output", "only_on_search": True},
        },
    }
    assert_same(config, [mode])
