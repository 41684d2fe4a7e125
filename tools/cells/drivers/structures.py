"""Structures of inputs, outputs and states: the recorder's own cell, as a network of ours.

With the inputs a, b and the states p, s: p' = tanh(a wa + p wp + s ws); s' = 0.5 sigmoid(b wb + p' wq) + 0.5 s; the
outputs are 2 p' and s' - b.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tools.cells.case import Case
from tools.cells.layouts.layout import Tensors
from tools.cells.plan import Net, Plan, Shown, entry_of, frames_of, last_frame, sequence

OUTPUTS = {"out/0": "twice", "out/1/q": "output"}
STATES = {"state/0/p": ("p", "state0/0/p"), "state/1": ("s", "state0/1")}
WEIGHTS = ("wa", "wp", "ws", "wb", "wq")


def plan_of(case: Case, in_loop: bool) -> Plan:
    """A loop over a network: a structure is layers with names. There is no cell, so that all ways are the same."""
    found = sequence(case, "data", "in/a") | sequence(case, "b", "in/b/0", like="data")
    firsts = {name: f"before_{name}" for name, _ in STATES.values()}
    for name, key in STATES.values():
        entry = entry_of(case.arrays[key], frames=False)
        found |= Plan(extern_data={firsts[name]: entry}, feeds={firsts[name]: lambda recorded, key=key: recorded[key]})
    loop = {"class": "rec", "from": "data", "unit": _layers(case), "is_output_layer": True}

    def parameters(recorded: Tensors) -> dict[str, Any]:
        return {f"loop/rec/{name}/W": recorded[f"param/rnn/nested_cell/{name}"] for name in WEIGHTS}

    found |= Plan({"loop": loop}, parameters=parameters)
    for key, layer in OUTPUTS.items():
        found |= frames_of(case, key, [f"loop/{layer}"])
    lengths = case.lengths if case.lengths is not None else np.full(case.record["batch"], case.record["time"])
    for key, (layer, before) in STATES.items():
        first = case.arrays[before]
        shown = Shown((f"loop/{layer}",), lambda value, first=first: last_frame(value, lengths, first))
        found |= Plan(shown={key: shown})
    return found


def _layers(case: Case) -> Net:
    def product(name: str, source: str) -> Net:
        size = case.arrays[f"param/rnn/nested_cell/{name}"].shape[1]
        return {"class": "linear", "from": source, "n_out": size, "with_bias": False}

    def pointwise(eval_: str, *sources: str, **options: Any) -> Net:
        return {"class": "eval", "from": list(sources), "eval": eval_, "is_output_layer": True, **options}

    return {
        "b": {"class": "rec_unstack", "from": "base:data:b"},
        "wa": product("wa", "data:source"),
        "wp": product("wp", "prev:p"),
        "ws": product("ws", "prev:s"),
        "wb": product("wb", "b"),
        "wq": product("wq", "p"),
        "p": pointwise(
            "tf.tanh(source(0) + source(1) + source(2))", "wa", "wp", "ws", initial_output="base:data:before_p"
        ),
        "s": pointwise(
            "0.5 * tf.sigmoid(source(0) + source(1)) + 0.5 * source(2)",
            "wb",
            "wq",
            "prev:s",
            initial_output="base:data:before_s",
        ),
        "twice": pointwise("2 * source(0)", "p"),
        "output": pointwise("source(0) - source(1)", "s", "b"),
    }
