"""The states that a unit is said to have are those that it has; a cell reads its own state of the step before."""

from __future__ import annotations

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
