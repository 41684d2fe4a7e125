"""The states that a unit is said to have are those that it has; a cell reads its own state of the step before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.layers.recurrent import RnnCell
from tests.layers.harness import Bench

UNITS = ("lstm", "nativelstm2", "LSTMBlock", "standardlstm", "BasicLSTMCell", "gru", "GRUCell", "basicrnn")


@pytest.mark.parametrize("unit", UNITS)
def test_the_keys_of_a_unit_are_known_before_it_is_built(unit: str) -> None:
    bench = Bench()
    cell = RnnCell(unit=unit)
    outputs = bench.outputs(cell, bench.input("x", bench.batch, bench.time, bench.feature(4)), n_out=3)
    assert sorted(outputs.state) == sorted(cell.state_keys())


def test_a_state_that_is_not_there() -> None:
    unit = {
        "before": {"class": "get_last_hidden_state", "from": "prev:s", "key": "c", "n_out": 3},
        "s": {"class": "rnn_cell", "unit": "gru", "n_out": 3, "from": ["data:source", "before"]},
        "output": {"class": "copy", "from": "s"},
    }
    network = {"output": {"class": "rec", "from": "data", "unit": unit}}
    with pytest.raises(rl.ConfigError, match="'prev:s' has no state 'c'"):
        rl.compile(network, {"data": {"dim": 2}}, "forward", behavior_version=21)


def test_layers_without_a_state() -> None:
    unit = {
        "before": {"class": "get_last_hidden_state", "from": "prev:s", "n_out": 3},
        "s": {"class": "linear", "n_out": 3, "activation": None, "from": ["data:source", "before"]},
        "output": {"class": "copy", "from": "s"},
    }
    network = {"output": {"class": "rec", "from": "data", "unit": unit}}
    with pytest.raises(rl.ConfigError, match="'prev:s' has no state"):
        rl.compile(network, {"data": {"dim": 2}}, "forward", behavior_version=21)


LSTM = {"class": "lstm", "units": 2}
STACK = [LSTM, {"class": "residual", "cell": {"class": "gru", "units": 2}}]
BOTH = {"unit": LSTM, "direction": "both"}
PICKED: dict[str, tuple[dict[str, Any], str | int | None, str, list[str]]] = {
    "by name": ({"unit": LSTM}, "c", "rnn", ["c"]),
    "a number": ({"unit": LSTM}, 0, "rnn", ["c"]),
    "another number": ({"unit": LSTM}, 1, "rnn", ["h"]),
    "by path": ({"unit": STACK}, "1/cell/h", "rnn", ["1/cell/h"]),
    "of a cell": ({"unit": STACK}, "0", "rnn", ["0/c", "0/h"]),
    "of a cell with a number": ({"unit": STACK}, 1, "rnn", ["1/cell/h"]),
    "of a direction": (BOTH, "backward", "rnn", ["backward/c", "backward/h"]),
    "of a direction by its part": (BOTH, "c", "rnn/backward", ["backward/c"]),
    "of a stack of both": ({"unit": [LSTM, LSTM], "direction": "both"}, "forward/1/c", "rnn", ["forward/1/c"]),
    "all": ({"unit": STACK}, None, "rnn", ["0/c", "0/h", "1/cell/h"]),
}


@pytest.mark.parametrize("name", PICKED)
def test_a_last_state_by_name(name: str) -> None:
    """What a key picks is what all its states are, side by side, each by its whole name."""
    layer, key, source, names = PICKED[name]
    last = {"class": "get_last_hidden_state", "is_output_layer": True}
    layers = {
        "rnn": {"class": "rec", "from": "data", **layer},
        "output": {**last, "from": source, "key": key},
        **{f"state{place}": {**last, "from": "rnn", "key": one} for place, one in enumerate(names)},
    }
    net = rl.compile(layers, {"data": {"dim": 2}}, "eval", behavior_version=21)
    found = net.run({"data": np.random.default_rng(1).normal(size=(2, 3, 2))}, {"data": [3, 2]}).layers
    expected = np.concatenate([found[f"state{place}"].value for place in range(len(names))], 1)
    np.testing.assert_array_equal(found["output"].value, expected)
    assert np.abs(expected).max() > 0.001


NOT_THERE: dict[str, tuple[str | int, str]] = {
    "a part of a name": ("forward/h", r"output\.key: 'rnn' has no state 'forward/h'. It has forward/0/h, forward/0/c"),
    "a number": (2, r"output\.key: 'rnn' has 2 states, none with the number 2. It has forward/0/h"),
    "below zero": (-1, "none with the number -1"),
}


@pytest.mark.parametrize("name", NOT_THERE)
def test_no_such_last_state(name: str) -> None:
    key, message = NOT_THERE[name]
    network = {
        "rnn": {"class": "rec", "from": "data", "unit": [LSTM], "direction": "both"},
        "output": {"class": "get_last_hidden_state", "from": "rnn", "key": key},
    }
    with pytest.raises(rl.ConfigError, match=message):
        rl.check({"network": network, "extern_data": {"data": {"dim": 2}}, "behavior_version": 21}, "eval")
