"""Cells in both directions, and stacks of these: TensorFlow's functions, and Keras' Bidirectional."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tools.cells.case import Case, Constructor
from tools.cells.drivers.sequence import output_of, sources_of
from tools.cells.plan import Net, Plan, Shown, frames_of
from tools.cells.recurrence import Recurrence
from tools.cells.units import unit_of

DIRECTIONS = {"fw": "forward_", "bw": "backward_"}
"""As TensorFlow calls them, and what Keras puts before the name of the layer."""
WAYS = {"fw": "forward", "bw": "backward"}
"""As we call them."""
MERGED: Mapping[str, Any] = {
    "concat": lambda forward, backward: tf.concat([forward, backward], -1),
    "sum": tf.add,
    "mul": tf.multiply,
    "ave": lambda forward, backward: (forward + backward) / 2,
}


def plan_of(case: Case, in_loop: bool) -> Plan:
    """One layer that runs in both directions. In a loop, and under a mask: the layers `fw` and `bw`; of a stack those
    of each layer, over both of the layer below."""
    found, sources, mask = sources_of(case)
    layers = _layers(case)
    if not in_loop and not mask:
        return found | _as_one(case, sources, layers)
    for place, cells in enumerate(layers):
        recurrences = [_recurrence(case, layers, place, direction, sources, mask) for direction in cells]
        for recurrence in recurrences:
            found |= recurrence.plan(case, in_loop)
        sources = [recurrence.name for recurrence in recurrences]
    return found | _outputs(case, sources)


def _recurrence(
    case: Case, layers: Sequence[Mapping[str, Constructor]], place: int, direction: str, sources: list[str], mask: str
) -> Recurrence:
    """One direction of one layer."""
    below = place if len(layers) > 1 else None
    return Recurrence(
        f"{direction}{place or ''}",
        layers[place][direction],
        sources,
        _parameters(case, direction, "" if below is None else f"cell_{place}"),
        _states(case, "state0/", direction, below),
        _states(case, "state/", direction, below),
        direction == "bw",
        mask,
    )


def _as_one(case: Case, sources: list[str], layers: Sequence[Mapping[str, Constructor]]) -> Plan:
    """All of it as the layer `output`, with each direction as a part of it."""
    is_stack = len(layers) > 1
    found, given = Plan(), {}
    for place, cells in enumerate(layers):
        for direction in cells:
            path = f"{WAYS[direction]}/{place}" if is_stack else WAYS[direction]
            recurrence = _recurrence(case, layers, place, direction, sources, "")
            found |= recurrence.part_of(case, "output", path)
            given |= {f"{path}/{key}": layer for key, layer in recurrence.given(case).items()}
    forward, backward = ([unit_of(case.system, cells[direction]) for cells in layers] for direction in WAYS)
    options: Net = {"unit": forward, "unit_backward": backward}
    if not is_stack:
        options = {name: units[0] for name, units in options.items()}
    options |= {"merge": _merge(case), "initial_state": given or None}
    network: Net = {"output": {"class": "rec", "from": sources, "direction": "both", **options}}
    for direction, way in WAYS.items():
        network[direction] = {"class": "copy", "from": f"output/{way}", "is_output_layer": True}
    shown = frames_of(case, "out/y", ["output"]) if _is_merged(case) else _outputs(case, list(WAYS))
    return found | Plan(network) | shown


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
    merge = _merge(case)
    if _is_merged(case):
        return frames_of(case, "out/y", names, MERGED[merge])
    fw, bw = (output_of(case, "out/y", name, name == names[1]).shown["out/y"] for name in names)

    def merged(forward: Any, backward: Any) -> Any:
        return MERGED[merge](fw.made(forward), bw.made(backward))

    return Plan(shown={"out/y": Shown(tuple(names), merged)})


def _merge(case: Case) -> str:
    return (case.record.get("layer") or {}).get("merge_mode") or "concat"


def _is_merged(case: Case) -> bool:
    """Whether the outputs of all steps were recorded, both in one."""
    return "out/y" in case.arrays and case.arrays["out/y"].ndim >= 3
