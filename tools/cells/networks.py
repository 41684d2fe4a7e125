"""A recorded case as a network of ours: the same cell through `rec`, or step by step through `rnn_cell`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tools.cells.case import Array, Case

Net = dict[str, Any]
THROUGH = ("rec", "plain", "rnn_cell")
"""The ways: optimised; as it is written, without optimisation; a step in a loop."""


def unit_of(system: str, constructor: Mapping[str, Any]) -> Net:
    """The constructor as a unit: its class with the system before the name, so are those of the cells inside."""
    found: Net = {}
    for name, value in constructor.items():
        if name == "class":
            found[name] = f"{system}.{value}" if not str(value).startswith(system) else value
        elif isinstance(value, Mapping) and "class" in value:
            found[name] = unit_of(system, value)
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            found[name] = [unit_of(system, one) for one in value]
        else:
            found[name] = value
    return found


def config_of(case: Case, keys: list[str], states: Mapping[str, Array], through: str) -> Net:
    """The config: the layer `output` with the cell, and `state:KEY` with each state; in a loop after each step."""
    unit = unit_of(case.system, case.constructor)
    data = {"data": _entry(case.arrays["in/x"], time=True)}
    data |= {f"state0_{i}": _entry(states[key], time=False) for i, key in enumerate(keys) if key in states}
    base = "base:" if through == "rnn_cell" else ""
    given = {key: f"{base}data:state0_{i}" for i, key in enumerate(keys) if key in states}
    layer: Net = {"class": "rnn_cell" if base else "rec", "unit": unit, "from": "data:source" if base else "data"}
    layers = {"output": {**layer, **({"initial_state": given} if given else {})}}
    for i, key in enumerate(keys):
        layers[f"state_{i}"] = {"class": "get_last_hidden_state", "key": key, "from": "output", "is_output_layer": True}
    network = {"output": {"class": "rec", "from": "data", "unit": layers}} if base else layers
    return {"network": network, "extern_data": data, "behavior_version": 21}


def _entry(array: Array, *, time: bool) -> Net:
    """The declaration of an array [B, T, ..., F], or [B, ..., F]."""
    if array.dtype.kind == "i":
        return {"dim": int(array.max()) + 1, "sparse": True}
    inner = array.shape[2:] if time else array.shape[1:]
    return {"shape": ((None,) if time else ()) + inner, "dim": inner[-1], **({} if time else {"time_dim_axis": None})}
