"""raw_rnn, with the loop function that was recorded: each step reads the output of the one before.

Sequences end by themselves: the lengths are those of what was emitted, zero from the end on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tools.cells.case import Case
from tools.cells.layouts.layout import Tensors
from tools.cells.layouts.table import ours, state_keys
from tools.cells.plan import Net, Plan, Shown, entry_of, last_frame
from tools.cells.units import unit_of


def plan_of(case: Case, in_loop: bool) -> Plan:
    """A loop over a network; the cell in it is a `rec` or a `rnn_cell`."""
    inputs, keys = case.arrays["in/x0"], state_keys(case.system, case.constructor)
    emitted = case.arrays["out/e"]
    lengths = (emitted != 0).any(-1).sum(1)
    befores = case.keys("state0/")
    extern = {"first": entry_of(inputs, frames=False), "limit": {"shape": (), "dtype": "int32"}}
    feeds: dict[str, Any] = {
        "first": lambda recorded: recorded["in/x0"],
        "limit": lambda recorded: tf.constant(lengths, tf.int32),
    }
    for i, key in enumerate(befores):
        extern[f"before_{i}"] = entry_of(case.arrays[key], frames=False)
        feeds[f"before_{i}"] = lambda recorded, key=key: recorded[key]
    given = {key: f"base:data:before_{i}" for i, key in enumerate(keys)}
    cell = {"class": "rnn_cell" if in_loop else "rec", "unit": unit_of(case.system, case.constructor)}
    loop = _loop({**cell, "from": "prev:next", "initial_state": given}, inputs.shape[1], emitted.shape[-1], keys)
    steps: Net = {"class": "rec", "from": [], "unit": loop, "max_seq_len": emitted.shape[1], "include_eos": True}
    network = {"loop": {**steps, "is_output_layer": True}}

    def parameters(recorded: Tensors) -> dict[str, Any]:
        own = {key.removeprefix("param/"): recorded[key] for key in case.keys("param/")}
        return {f"loop/rec/cell/rec/{name}": value for name, value in ours(case.system, case.constructor, own).items()}

    real = np.arange(emitted.shape[1]) < lengths[:, None]
    shown = {f"out/{name}": Shown((f"loop/{name}",), lambda value: value, real) for name in ("e", "n")}
    for i, (key, before) in enumerate(zip(case.keys("state/"), befores, strict=True)):
        first = case.arrays[before]
        shown[key] = Shown((f"loop/state_{i}",), lambda value, first=first: last_frame(value, lengths, first))
    return Plan(network, extern, feeds, {}, parameters, {}, shown)


def _loop(cell: Net, size: int, units: int, keys: list[str]) -> Net:
    """The layers of a step: what it emits, the next input, and whether the sequence ends with it."""
    seen = {"class": "slice", "from": "cell", "axis": "F", "slice_end": size}
    summed = {"class": "reduce", "from": "cell", "mode": "sum", "axis": "F", "keep_dims": True}
    layers: Net = {
        "cell": cell,
        "seen": seen,
        "next": {"class": "activation", "activation": "tanh", "from": "seen", "initial_output": "base:data:first"},
        "e": {"class": "eval", "from": "cell", "eval": "2 * source(0) + 1", "is_output_layer": True},
        "n": {**summed, "is_output_layer": True},
        "count": {"class": "eval", "from": ":i", "eval": "source(0) + 1"},
        "end": {"class": "compare", "kind": "greater_equal", "from": ["count", "base:data:limit"]},
        "output": {"class": "copy", "from": "e"},
    }
    for i, key in enumerate(keys):
        state = {"class": "get_last_hidden_state", "from": "cell", "key": key, "is_output_layer": True}
        layers[f"state_{i}"] = state
    return layers
