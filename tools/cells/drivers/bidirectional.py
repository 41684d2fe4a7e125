"""Cells in both directions, and stacks of these: TensorFlow's functions, and Keras' Bidirectional."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tools.cells.case import Case, Constructor
from tools.cells.drivers.sequence import output_of, sources_of
from tools.cells.plan import Plan, Shown, frames_of
from tools.cells.recurrence import Recurrence

DIRECTIONS = {"fw": "forward_", "bw": "backward_"}
"""As TensorFlow calls them, and what Keras puts before the name of the layer."""
MERGED: Mapping[str, Any] = {
    "concat": lambda forward, backward: tf.concat([forward, backward], -1),
    "sum": tf.add,
    "mul": tf.multiply,
    "ave": lambda forward, backward: (forward + backward) / 2,
}


def plan_of(case: Case, in_loop: bool) -> Plan:
    """The layers `fw` and `bw`; of a stack those of each layer, over both of the layer below."""
    found, sources, mask = sources_of(case)
    layers = _layers(case)
    for place, cells in enumerate(layers):
        below = f"cell_{place}" if len(layers) > 1 else ""
        names = [f"{direction}{place or ''}" for direction in cells]
        for name, (direction, cell) in zip(names, cells.items(), strict=True):
            found |= Recurrence(
                name,
                cell,
                sources,
                _parameters(case, direction, below),
                _states(case, "state0/", direction, place if below else None),
                _states(case, "state/", direction, place if below else None),
                direction == "bw",
                mask,
            ).plan(case, in_loop)
        sources = names
    return found | _outputs(case, sources)


def _layers(case: Case) -> list[dict[str, Constructor]]:
    """The cells of each layer by direction."""
    made = case.constructor
    if "cells_fw" in made:
        return [{"fw": fw, "bw": bw} for fw, bw in zip(made["cells_fw"], made["cells_bw"], strict=True)]
    if "cell_fw" in made:
        return [{"fw": made["cell_fw"], "bw": made["cell_bw"]}]
    return [{"fw": made, "bw": made}]


def _parameters(case: Case, direction: str, below: str) -> list[str]:
    inside = f"/{below}/" if below else "/"
    ours = re.compile(rf"{inside}(.*/)?({direction}/|{DIRECTIONS[direction]})")
    return [key for key in case.keys("param/") if ours.search(f"/{key}")]


def _states(case: Case, prefix: str, direction: str, place: int | None) -> list[str]:
    """The keys of one direction; in a flat list the first half is that of the forward one."""
    keys = case.keys(prefix)
    if any(key.startswith(f"{prefix}{direction}") for key in keys):
        folder = f"{prefix}{direction}" if place is None else f"{prefix}{direction}/{place}"
        return [key for key in keys if f"{key}/".startswith(f"{folder}/")]
    half = len(keys) // 2
    return keys[:half] if direction == "fw" else keys[half:]


def _outputs(case: Case, names: list[str]) -> Plan:
    """The pair of outputs, or both merged as the record says."""
    if "out/fw" in case.arrays:
        return frames_of(case, "out/fw", names[:1]) | frames_of(case, "out/bw", names[1:])
    merge = (case.record.get("layer") or {}).get("merge_mode") or "concat"
    if case.arrays["out/y"].ndim >= 3:
        return frames_of(case, "out/y", names, MERGED[merge])
    fw, bw = (output_of(case, "out/y", name, name == names[1]).shown["out/y"] for name in names)

    def merged(forward: Any, backward: Any) -> Any:
        return MERGED[merge](fw.made(forward), bw.made(backward))

    return Plan(shown={"out/y": Shown(tuple(names), merged)})
