"""Random layers of a loop's step: each kind is a function that draws the layers of a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from returnn_lite.dims import DimKind, Symbol

SIZE = 3
Layers = dict[str, Any]
Draw = st.DrawFn


@dataclass(frozen=True)
class Place:
    """What a layer may read: layers [SIZE], masks, those of the layers whose step before it may read as well, and
    labels or nothing.

    With `ahead` it may look at steps to come: nothing that it reads depends on it; with `masked_ahead` also under a
    mask.
    """

    sources: list[str]
    masks: list[str]
    both: list[str]
    labels: str = "prev:output"
    ahead: bool = False
    masked_ahead: bool = False


def linear(sources: list[str] | str, activation: str | None = None) -> Layers:
    """A layer [SIZE]."""
    return {"class": "linear", "from": sources, "n_out": SIZE, "activation": activation}


def combined(kind: str, *sources: str) -> Layers:
    """Elementwise."""
    return {"class": "combine", "kind": kind, "from": list(sources)}


@st.composite
def layer(draw: Draw, name: str, place: Place) -> Layers:
    """One layer [SIZE] under a name; some kinds need layers beside it, whose names begin with it."""
    kinds = [*KINDS, *(AHEAD if place.ahead else ())]
    kinds += [_both] if place.both else []
    kinds += [_completions] if place.labels else []
    return draw(st.sampled_from(kinds))(draw, name, place)


def _one(draw: Draw, place: Place) -> str:
    return draw(st.sampled_from(place.sources))


def _some(draw: Draw, place: Place) -> list[str]:
    return draw(st.lists(st.sampled_from(place.sources), min_size=1, max_size=2, unique=True))


def _linear(draw: Draw, name: str, place: Place) -> Layers:
    return {name: linear(_some(draw, place), draw(st.sampled_from([None, "tanh", "relu"])))}


def _combine(draw: Draw, name: str, place: Place) -> Layers:
    operation = draw(st.sampled_from(["add", "mul", "sub", "maximum"]))
    return {f"{name}_c": combined(operation, _one(draw, place), _one(draw, place)), name: linear(f"{name}_c")}


def _both(draw: Draw, name: str, place: Place) -> Layers:
    """A layer and the step before of the same."""
    one = draw(st.sampled_from(place.both))
    return {f"{name}_c": combined("sub", one, f"prev:{one}"), name: linear(f"{name}_c")}


def _cell(draw: Draw, name: str, place: Place) -> Layers:
    unit = draw(st.sampled_from(["standardlstm", "gru", "basicrnn"]))
    return {name: {"class": "rnn_cell", "unit": unit, "n_out": SIZE, "from": _some(draw, place)}}


def _rec(draw: Draw, name: str, place: Place) -> Layers:
    unit = draw(st.sampled_from(["nativelstm2", "gru"]))
    return {name: {"class": "rec", "unit": unit, "n_out": SIZE, "from": _some(draw, place)}}


def _sum(draw: Draw, name: str, place: Place) -> Layers:
    return {f"{name}_s": {"class": "cumsum", "from": _one(draw, place)}, name: linear(f"{name}_s", "tanh")}


def _switch(draw: Draw, name: str, place: Place) -> Layers:
    mask = draw(st.sampled_from(place.masks))
    chosen = {"class": "switch", "condition": mask, "true_from": _one(draw, place), "false_from": _one(draw, place)}
    return {f"{name}_b": chosen, name: linear(f"{name}_b")}


def _window(draw: Draw, name: str, place: Place) -> Layers:
    """The last frames."""
    return _summed(name, {"class": "window", "window_size": 2, "window_right": 0, "from": _one(draw, place)})


def _summed(name: str, window: Layers) -> Layers:
    """The sum of the squares of the frames of a window, and the frames one after the other."""
    return {
        f"{name}_w": window,
        f"{name}_f": {"class": "merge_dims", "axes": ["stag:window", "F"], "from": f"{name}_w"},
        name: linear(f"{name}_f", "tanh"),
    }


def _positions(draw: Draw, name: str, place: Place) -> Layers:
    add = {"class": "positional_encoding", "add_to_input": True, "from": _one(draw, place)}
    return {f"{name}_p": add, name: linear(f"{name}_p")}


ATTENTION = {"class": "self_attention", "num_heads": 1, "total_key_dim": 2, "n_out": SIZE}


def _attention(draw: Draw, name: str, place: Place) -> Layers:
    """Over the steps so far, perhaps with relative positions."""
    attention = {**ATTENTION, "attention_left_only": True, "from": _one(draw, place)}
    if draw(st.booleans()):
        return {name: attention}
    positions = {"class": "relative_positional_encoding", "n_out": 2, "from": attention["from"], "clipping": 2}
    return {f"{name}_p": positions, name: {**attention, "key_shift": f"{name}_p"}}


def _generalised(draw: Draw, name: str, place: Place) -> Layers:
    """Attention over the steps so far, of parts."""
    history = Symbol(f"{name}_history", DimKind.SPATIAL)
    one = _one(draw, place)
    return {
        f"{name}_h": {"class": "cum_concat", "out_spatial_dim": history, "from": one},
        f"{name}_e": {"class": "dot", "reduce": "F", "from": [one, f"{name}_h"]},
        f"{name}_w": {"class": "softmax_over_spatial", "axis": history, "from": f"{name}_e"},
        f"{name}_a": {"class": "dot", "reduce": history, "from": [f"{name}_w", f"{name}_h"]},
        name: linear(f"{name}_a"),
    }


def _encoder(draw: Draw, name: str, place: Place) -> Layers:
    """Attention over frames from around the loop."""
    return {
        f"{name}_e": combined("add", "base:frames", _one(draw, place)),
        f"{name}_e1": linear(f"{name}_e"),
        f"{name}_w": {"class": "softmax_over_spatial", "from": f"{name}_e1"},
        f"{name}_a": combined("mul", f"{name}_w", "base:frames"),
        name: {"class": "reduce", "mode": "sum", "axis": "T", "from": f"{name}_a", "n_out": SIZE},
    }


def _inner(draw: Draw, name: str, place: Place) -> Layers:
    """A loop in the loop, over frames from around it: a subnetwork or a unit."""
    one = _one(draw, place)
    unit: Any = {"output": linear(["data:source", f"base:{one}", "prev:output"], "tanh")}
    loop = {"class": "rec", "from": "base:frames", "unit": unit}
    if draw(st.booleans()):
        loop = {"class": "rec", "from": f"{name}_e", "unit": "nativelstm2", "n_out": SIZE}
    return {
        f"{name}_e": combined("add", "base:frames", one),
        f"{name}_r": loop,
        name: {"class": "reduce", "mode": "max", "axis": "T", "from": f"{name}_r", "n_out": SIZE},
    }


def _literal(draw: Draw, name: str, place: Place) -> Layers:
    """An axis that is a number: that of a step."""
    axis = draw(st.sampled_from([1, -1]))
    softmax = {"class": "eval", "eval": f"tf.nn.softmax(source(0), axis={axis})", "from": _one(draw, place)}
    return {f"{name}_s": softmax, name: linear(f"{name}_s")}


def _dropout(draw: Draw, name: str, place: Place) -> Layers:
    """The same noise in each step, or each its own."""
    shape = draw(st.sampled_from([{}, {"dropout_noise_shape": {"*": None}}, {"dropout_noise_shape": {"B": None}}]))
    return {name: {**linear(sorted({*_some(draw, place), "base:context"})), "dropout": 0.5, **shape}}


def _completions(draw: Draw, name: str, place: Place) -> Layers:
    """What each next label would cost in edit distance to labels from around, as floats; perhaps under a mask."""
    target = {"target": "layer:base:right", **draw(st.sampled_from([{}, {"blank_idx": 0}]))}
    table = {"class": "edit_distance_table", "from": place.labels, **target}
    if draw(st.booleans()):
        mask = draw(st.sampled_from(place.masks))
        unit = {**table, "from": "data"}
        table = {"class": "masked_computation", "mask": mask, "from": place.labels, "unit": unit}
    row = draw(st.sampled_from([f"{name}_t", f"prev:{name}_t"]))
    return {
        f"{name}_t": table,
        f"{name}_c": {"class": "optimal_completions", "from": row, **target},
        f"{name}_f": {"class": "cast", "dtype": "float32", "from": f"{name}_c"},
        name: linear([f"{name}_f", _one(draw, place)], "tanh"),
    }


# Under a mask


def _masked(draw: Draw, name: str, place: Place) -> Layers:
    """A layer under a mask, perhaps fed by a sequence from around, perhaps with an unmask layer."""
    unit = _unit(draw, place, place.masks)
    mask = draw(st.sampled_from(place.masks))
    masked = {"class": "masked_computation", "mask": mask, "from": _one(draw, place), "unit": unit, "n_out": SIZE}
    form = draw(st.sampled_from(["", "unmask", "masked_from", "out_spatial_dim"]))
    if form == "unmask":
        return {f"{name}_m": masked, name: {"class": "unmask", "from": f"{name}_m", "mask": mask}}
    if form == "masked_from":
        masked["masked_from"] = "base:frames"
    if form == "out_spatial_dim":
        masked["out_spatial_dim"] = Symbol(f"{name}_masked", DimKind.SPATIAL)
    return {name: masked}


def _unit(draw: Draw, place: Place, masks: list[str], prefix: str = "") -> Layers:
    """A layer of `data` [SIZE]."""
    causal = {"class": "window", "window_size": 2, "window_right": 0, "from": "data"}
    units: list[Layers] = [
        linear("data", "tanh"),
        {"class": "rec", "unit": "nativelstm2", "n_out": SIZE, "from": "data"},
        {"class": "rec", "unit": "gru", "n_out": SIZE, "from": "data", "initial_state": 0.5},
        {"class": "cumsum", "from": "data", "initial_output": 0.5},
        {"class": "copy", "from": "data", "initial_output": 0.5},
        {"class": "positional_encoding", "add_to_input": True, "from": "data"},
        {**ATTENTION, "attention_left_only": True, "from": "data"},
        _sub(_summed("output", causal)),
    ]
    if place.masked_ahead:
        units += [{**ATTENTION, "from": "data"}, _sub(_summed("output", {**causal, "window_right": 1}))]
    if not prefix:  # another mask in this one
        under = _unit(draw, place, [f"base:{mask}" for mask in masks], "base:")
        mask = f"base:{draw(st.sampled_from(place.masks))}"
        inner = {"class": "masked_computation", "mask": mask, "from": "in", "unit": under, "n_out": SIZE}
        units.append(_sub({"in": linear("data"), "under": inner, "output": linear(["under", "in"])}))
    return draw(st.sampled_from(units))


def _sub(layers: Layers) -> Layers:
    return {"class": "subnetwork", "from": "data", "subnetwork": layers}


# Where in no cycle


def _window_ahead(draw: Draw, name: str, place: Place) -> Layers:
    right = draw(st.sampled_from([1, 2]))
    return _summed(name, {"class": "window", "window_size": 3, "window_right": right, "from": _one(draw, place)})


def _attention_ahead(draw: Draw, name: str, place: Place) -> Layers:
    return {name: {**ATTENTION, "from": _one(draw, place)}}


Kind = Callable[[Draw, str, Place], Layers]
KINDS: list[Kind] = [
    _linear, _combine, _cell, _rec, _sum, _masked, _masked, _attention, _encoder, _switch, _window, _positions,
    _generalised, _inner, _literal, _dropout,
]  # fmt: skip
AHEAD: list[Kind] = [_window_ahead, _attention_ahead]
