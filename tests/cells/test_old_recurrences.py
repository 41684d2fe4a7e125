"""A loop, a layer or a cell of another system as the class of a layer: what to write."""

from __future__ import annotations

import re

import pytest

import returnn_lite as rl

EXPECTED = {
    "dynamic_rnn": "class: rec, unit: CELL",
    "tf.nn.static_rnn": "class: rec, unit: CELL",
    "tf.keras.layers.Bidirectional": "direction: both, merge: concat",
    "stack_bidirectional_dynamic_rnn": r"unit: \[CELL, CELL\]",
    "static_state_saving_rnn": "stateful: true",
    "raw_rnn": "prev:output, the end is end",
    "keras.LSTM": r"class: rec, unit: keras\.LSTM",
    "MultiRNNCell": r"class: rec, unit: \[CELL, CELL\]",
    "layered_LSTM": "initial_state",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_what_to_write(name: str) -> None:
    config = {"network": {"output": {"class": name, "from": "data", "n_out": 2}}, "extern_data": {"data": {"dim": 3}}}
    with pytest.raises(rl.ConfigError, match=f"there is no layer class '{re.escape(name)}'.*{EXPECTED[name]}"):
        rl.check({**config, "behavior_version": 21}, "eval")


OPTIONS = {
    "go_backwards": "direction: -1",
    "merge_mode": "Write 'merge'",
    "num_layers": "a list of units",
    "return_sequences": "get_last_hidden_state",
    "time_major": "dims have no order here",
    "unrol": "Did you mean 'unroll'",
}


@pytest.mark.parametrize("name", OPTIONS)
def test_what_to_write_for_an_option(name: str) -> None:
    layer = {"class": "rec", "unit": "lstm", "from": "data", "n_out": 2, name: True}
    config = {"network": {"output": layer}, "extern_data": {"data": {"dim": 3}}, "behavior_version": 21}
    with pytest.raises(rl.ConfigError, match=f"unknown option '{name}' of rec.*{OPTIONS[name]}"):
        rl.check(config, "eval")


def test_a_loop_as_a_unit() -> None:
    """It is told what a layer of that class is told."""
    layer = {"class": "rec", "unit": "raw_rnn", "from": "data", "n_out": 2}
    config = {"network": {"output": layer}, "extern_data": {"data": {"dim": 3}}, "behavior_version": 21}
    with pytest.raises(rl.ConfigError, match=r"prev:output, the end is end"):
        rl.check(config, "eval")
