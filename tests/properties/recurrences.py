"""Random layers that run a unit: at the steps of a loop, in each of these over other frames, under a mask, or around
the loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from returnn_lite.layers.cells.decoding import cell_of
from tests.properties.cell_options import one_in
from tests.properties.parts import SIZE, Draw, Layers, Place, a_source, combined, linear
from tests.properties.units import (
    fits_any_source,
    has_states_of_size,
    unit,
    unit_of_encoder,
    unit_of_inputs,
    unit_of_labels,
    unit_of_places,
)

BACKWARDS: list[Layers] = [
    {},
    {"direction": -1},
    *({"direction": "both", "merge": merge} for merge in ("sum", "mul", "ave", "concat", "none")),
]
"""How a unit goes over a sequence."""
HELD = ("rnn", "gru", "lstm", "milstm", "sru", "indrnn")
"""Cells whose output is a state, so that it may be held beyond an end."""


def recurrence(draw: Draw, name: str, place: Place) -> Layers:
    """Any cell in a loop: a step of it, or over frames from around."""
    source = a_source(draw, place)
    if draw(st.booleans()):
        run: Layers = {"class": draw(st.sampled_from(["rec", "rnn_cell"]))}
        return _on_any_source(draw, name, run, source, place.labels, "base:")
    run = {"class": "rec", **draw(st.sampled_from(BACKWARDS))}
    frames = {f"{name}_e": combined("add", "base:frames", source)}
    if one_in(draw, 3):
        mask, rec = draw(st.sampled_from(place.masks)), f"{name}_r"
        masked = {"class": "masked_computation", "mask": mask, "from": f"{name}_e", "unit": _of_features(draw, run)}
        return {**frames, rec: masked, **_sum(name, rec)}
    return {**frames, **_on_any_source(draw, f"{name}_r", run, f"{name}_e", "", "base:"), **_sum(name, f"{name}_r")}


def step_under_a_mask(draw: Draw, prefix: str) -> Layers:
    """A layer that makes a step of any cell of features, of `data`; `prefix` goes before the loop's layers."""
    run: Layers = {"class": draw(st.sampled_from(["rec", "rnn_cell"]))}
    if one_in(draw, 4):
        attending, size = unit_of_encoder(draw, f"{prefix}base:frames")
        if size == SIZE:
            return {**run, "unit": attending, "n_out": SIZE, "from": "data"}
    return _of_features(draw, run, f"{prefix}base:")


def around(draw: Draw, name: str) -> Layers:
    """Any cell over the frames around the loop, with what only such layers have: states that stay for the next batch,
    something beyond the ends of sequences; perhaps under a mask."""
    run: Layers = {"class": "rec", **draw(st.sampled_from(BACKWARDS))}
    if one_in(draw, 4):
        run["stateful"] = True
    if one_in(draw, 4):
        run["unroll"] = True
    form = draw(st.sampled_from(["under a mask", "after another", "any source", "any source"]))
    if form == "under a mask":
        return _under_a_mask_around(draw, name, run)
    if form == "after another":
        return _after_another(draw, name, run)
    layers = _on_any_source(draw, f"{name}_r", run, "frames", "right", "")
    if one_in(draw, 3):
        rec = layers[f"{name}_r_u" if f"{name}_r_u" in layers else f"{name}_r"]
        held = rec["class"] == "rec" and rec["unit"] in HELD and run.get("merge") != "mul"
        rec["beyond_the_end"] = draw(st.sampled_from(["zero", "repeat", *(["hold"] if held else [])]))
    return {**layers, **_sum(name, f"{name}_r")}


def _after_another(draw: Draw, name: str, run: Layers) -> Layers:
    """A layer that begins with the states that another of the same unit ends with."""
    made = unit(draw)
    run = {key: value for key, value in _joinable(run, made).items() if key != "stateful"}
    layer = {**run, "unit": made, "n_out": _size(run), "from": "frames"}
    return {f"{name}_0": layer, f"{name}_r": {**layer, "initial_state": f"{name}_0"}, **_sum(name, f"{name}_r")}


def _under_a_mask_around(draw: Draw, name: str, run: Layers) -> Layers:
    """Over the frames where a mask is true."""
    masked = {
        "class": "masked_computation",
        "mask": f"{name}_k",
        "from": "frames",
        "unit": _of_features(draw, run, ""),
    }
    layers: Layers = {
        f"{name}_s": {"class": "reduce", "mode": "sum", "axis": "F", "from": "frames"},
        f"{name}_k": {"class": "compare", "kind": "greater", "value": 0, "from": f"{name}_s"},
        f"{name}_r": masked,
    }
    if draw(st.booleans()):
        return {**layers, **_sum(name, f"{name}_r")}
    unmasked = {"class": "unmask", "from": f"{name}_r", "mask": f"{name}_k"}
    return {**layers, f"{name}_u": unmasked, **_sum(name, f"{name}_u")}


def _sum(name: str, rec: str) -> Layers:
    """The sum of a layer's frames [SIZE]."""
    return {f"{name}_f": {"class": "reduce", "mode": "sum", "axis": "T", "from": rec}, name: linear(f"{name}_f")}


def _of_features(draw: Draw, run: Layers, prefix: str = "base:") -> Layers:
    """A layer that runs a cell of features on `data`."""
    made = unit(draw)
    run = _joinable(run, made)
    if run.get("direction") == "both" and not isinstance(made, list) and one_in(draw, 3):
        run = {**run, "unit_backward": draw(st.sampled_from(["gru", "lstm", {"class": "residual", "cell": "rnn"}]))}
    return _with_states(draw, {**run, "unit": made, "n_out": _size(run), "from": "data"}, prefix)


def _joinable(run: Layers, unit: Any) -> Layers:
    """How a unit runs: of a stack of layers in both directions the next reads what those below have joined."""
    if run.get("merge") in ("concat", "none") and isinstance(unit, list) and not fits_any_source(unit[1:]):
        return {**run, "merge": "ave"}
    return run


def _size(run: Layers, one: int = SIZE) -> int:
    """The features of a layer whose unit makes so many in each direction."""
    return 2 * one if run.get("merge") in ("concat", "none") else one


def _on_any_source(draw: Draw, name: str, run: Layers, source: str, labels: str, prefix: str) -> Layers:
    """A layer [SIZE] that runs, as `run` says, any cell: of features or places, of several inputs, with an encoder
    beside it, or of labels, where there are any. `prefix` goes before layers around the loop."""
    if run["class"] == "rec" and one_in(draw, 3):
        steps = [] if run.get("direction") == "both" else [["steps"]]
        run = {**run, "recompute": draw(st.sampled_from(["all", "none", *steps]))}
    kinds = ["features", "features", "features", "places", "inputs", "encoder", *(["labels"] if labels else [])]
    kind = draw(st.sampled_from(kinds))
    of_one, before = SIZE, {}
    if kind == "features":
        made: Any = unit(draw)
    elif kind == "encoder":
        made, of_one = unit_of_encoder(draw, f"{prefix}frames")
        if "soft_coverage" in str(made):  # a number for each frame of this batch
            run = {name: value for name, value in run.items() if name != "stateful"}
    elif kind == "labels":
        made, source = unit_of_labels(draw), labels
    elif kind == "inputs":
        made = unit_of_inputs(draw)
        before = {f"{name}_t": {"class": "linear", "from": source, "n_out": 1, "activation": "relu"}}
    else:
        return _on_places(draw, name, run, source)
    run, sources = _joinable(run, made), [*before, source]
    size = _size(run, of_one)
    layer = {**run, "unit": made, "n_out": size, "from": sources}
    if kind != "encoder":
        layer = _with_states(draw, layer, prefix)
    if size == SIZE and not before and run.get("merge") != "none":
        return {name: layer}
    return {**before, f"{name}_u": layer, name: linear(f"{name}_u")}


def _on_places(draw: Draw, name: str, run: Layers, source: str) -> Layers:
    sizes, made = unit_of_places(draw)
    count = 1
    for size in sizes:
        count *= size
    return {
        f"{name}_n": {"class": "linear", "activation": "tanh", "n_out": count, "from": source},
        f"{name}_p": {"class": "split_dims", "axis": "F", "dims": sizes, "from": f"{name}_n"},
        f"{name}_u": {**run, "unit": made, "from": f"{name}_p"},
        f"{name}_m": {"class": "merge_dims", "axes": "static", "from": f"{name}_u"},
        name: linear(f"{name}_m"),
    }


def _with_states(draw: Draw, layer: Layers, prefix: str) -> Layers:
    """A layer, perhaps with other states before the first step: one value for all, or some by name or in order."""
    keys: Sequence[str] = cell_of(layer["unit"], ("unit",)).state_keys()
    if layer.get("direction") == "both":
        backward = cell_of(layer.get("unit_backward", layer["unit"]), ("unit",)).state_keys()
        keys = [*(f"forward/{key}" for key in keys), *(f"backward/{key}" for key in backward)]
    form = draw(st.sampled_from(["none", "none", "one", "by name", "in order"]))
    if form == "none" or layer.get("stateful"):
        return layer
    values: list[Any] = [0.5, "ones", "var"]
    if prefix == "base:":
        values.append("keep_over_epoch")
    if has_states_of_size(layer["unit"]):
        values.append(f"{prefix}context")
    value = st.sampled_from(values)
    if form == "one":
        return {**layer, "initial_state": draw(value)}
    if form == "by name":
        some = draw(st.lists(st.sampled_from(keys), min_size=1, max_size=2, unique=True))
        return {**layer, "initial_state": {key: draw(value) for key in some}}
    return {**layer, "initial_state": [draw(value) for _ in _parts(keys)]}


def _parts(keys: Sequence[str]) -> list[str]:
    """What a list of states has entries for: the cells inside, or the states of one."""
    parts = list(dict.fromkeys(key.partition("/")[0] for key in keys))
    if len(parts) == 1 and parts[0] not in keys:
        return _parts([key.partition("/")[2] for key in keys])
    return parts
