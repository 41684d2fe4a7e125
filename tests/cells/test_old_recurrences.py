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
    "MultiRNNCell": "class: rec, unit: MultiRNNCell",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_what_to_write(name: str) -> None:
    config = {"network": {"output": {"class": name, "from": "data", "n_out": 2}}, "extern_data": {"data": {"dim": 3}}}
    with pytest.raises(rl.ConfigError, match=f"there is no layer class '{re.escape(name)}'.*{EXPECTED[name]}"):
        rl.check({**config, "behavior_version": 21}, "eval")
