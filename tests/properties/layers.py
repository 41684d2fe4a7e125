"""Random layers of a loop's step: each kind is a function that draws the layers of a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from returnn_lite.dims import DimKind, Symbol
from tests.properties.corners import IN_LOOP, over_the_batch
from tests.properties.masked import masked, parts_under_a_mask
from tests.properties.parts import (
    ATTENTION,
    SIZE,
    Draw,
    Layers,
    Place,
    a_source,
    combined,
    linear,
    some_sources,
    summed,
)
from tests.properties.recurrences import recurrence


@st.composite
def layer(draw: Draw, name: str, place: Place) -> Layers:
    """One layer [SIZE] under a name; some kinds need layers beside it, whose names begin with it."""
    kinds = [*KINDS, *IN_LOOP, *(AHEAD if place.ahead else ())]
    if place.alone:
        kinds = [kind for kind in kinds if kind is not over_the_batch]
    kinds += [_both] if place.both else []
    kinds += [_completions] if place.labels else []
    return draw(st.sampled_from(kinds))(draw, name, place)


def _linear(draw: Draw, name: str, place: Place) -> Layers:
    return {name: linear(some_sources(draw, place), draw(st.sampled_from([None, "tanh", "relu"])))}


def _combine(draw: Draw, name: str, place: Place) -> Layers:
    operation = draw(st.sampled_from(["add", "mul", "sub", "maximum"]))
    return {f"{name}_c": combined(operation, a_source(draw, place), a_source(draw, place)), name: linear(f"{name}_c")}


def _both(draw: Draw, name: str, place: Place) -> Layers:
    """A layer and the step before of the same."""
    one = draw(st.sampled_from(place.both))
    return {f"{name}_c": combined("sub", one, f"prev:{one}"), name: linear(f"{name}_c")}


UNITS = ["standardlstm", "gru", "basicrnn", "lstmp", "rhn", "layernormvariantslstm"]
STATES: list[Any] = [0.5, "ones", "var", "base:context"]


def _cell(draw: Draw, name: str, place: Place) -> Layers:
    """A cell, perhaps with another initial state; or the state after its step."""
    unit = draw(st.sampled_from(UNITS))
    cell = {"class": "rnn_cell", "unit": unit, "n_out": SIZE, "from": some_sources(draw, place)}
    if draw(st.booleans()):
        cell["initial_state"] = draw(
            st.sampled_from([*STATES, *({"c": one, "h": 0.5} for one in STATES if _has_c(unit))])
        )
    if not _has_c(unit) or draw(st.booleans()):
        return {name: cell}
    return {f"{name}_u": cell, name: {"class": "get_last_hidden_state", "key": "c", "n_out": SIZE, "from": f"{name}_u"}}


def _has_c(unit: str) -> bool:
    return "lstm" in unit


def _state(draw: Draw, name: str, place: Place) -> Layers:
    """A cell whose state before the step is given."""
    cell = {"class": "rnn_cell", "n_out": SIZE, "from": a_source(draw, place)}
    one = a_source(draw, place)
    of_gru = {**cell, "unit": "gru", "state": one}
    of_lstm = {**cell, "unit": "standardlstm", "state": {"c": one, "h": f"prev:{name}"}}
    return {name: draw(st.sampled_from([of_gru, of_lstm]))}


def _rec(draw: Draw, name: str, place: Place) -> Layers:
    unit = draw(st.sampled_from(["nativelstm2", "gru"]))
    initial = draw(st.sampled_from([{}, *({"initial_state": one} for one in STATES)]))
    return {name: {"class": "rec", "unit": unit, "n_out": SIZE, "from": some_sources(draw, place), **initial}}


def _sum(draw: Draw, name: str, place: Place) -> Layers:
    return {f"{name}_s": {"class": "cumsum", "from": a_source(draw, place)}, name: linear(f"{name}_s", "tanh")}


def _switch(draw: Draw, name: str, place: Place) -> Layers:
    mask = draw(st.sampled_from(place.masks))
    chosen = {
        "class": "switch",
        "condition": mask,
        "true_from": a_source(draw, place),
        "false_from": a_source(draw, place),
    }
    return {f"{name}_b": chosen, name: linear(f"{name}_b")}


def _window(draw: Draw, name: str, place: Place) -> Layers:
    """The last frames."""
    return summed(name, {"class": "window", "window_size": 2, "window_right": 0, "from": a_source(draw, place)})


def _positions(draw: Draw, name: str, place: Place) -> Layers:
    """By sines, or the number of the step."""
    add = {"class": "positional_encoding", "add_to_input": True, "from": a_source(draw, place)}
    count = {"class": "cast", "dtype": "float32", "from": ":i"}
    if draw(st.booleans()):
        return {f"{name}_p": add, name: linear(f"{name}_p")}
    return {
        f"{name}_i": count,
        f"{name}_p": combined("mul", f"{name}_i", add["from"]),
        name: linear(f"{name}_p", "tanh"),
    }


def _attention(draw: Draw, name: str, place: Place) -> Layers:
    """Over the steps so far, perhaps with relative positions."""
    attention = {**ATTENTION, "attention_left_only": True, "from": a_source(draw, place)}
    if draw(st.booleans()):
        return {name: attention}
    positions = {"class": "relative_positional_encoding", "n_out": 2, "from": attention["from"], "clipping": 2}
    return {f"{name}_p": positions, name: {**attention, "key_shift": f"{name}_p"}}


def _generalised(draw: Draw, name: str, place: Place) -> Layers:
    """Attention over the steps so far, of parts; or their largest."""
    history = Symbol(f"{name}_history", DimKind.SPATIAL)
    one = a_source(draw, place)
    frames = {f"{name}_h": {"class": "cum_concat", "out_spatial_dim": history, "from": one}}
    if draw(st.booleans()):
        largest = {"class": "reduce", "mode": "max", "axis": history, "from": f"{name}_h"}
        return {**frames, f"{name}_a": largest, name: linear(f"{name}_a")}
    return {
        **frames,
        f"{name}_e": {"class": "dot", "reduce": "F", "from": [one, f"{name}_h"]},
        f"{name}_w": {"class": "softmax_over_spatial", "axis": history, "from": f"{name}_e"},
        f"{name}_a": {"class": "dot", "reduce": history, "from": [f"{name}_w", f"{name}_h"]},
        name: linear(f"{name}_a"),
    }


def _encoder(draw: Draw, name: str, place: Place) -> Layers:
    """Attention over frames from around the loop."""
    return {
        f"{name}_e": combined("add", "base:frames", a_source(draw, place)),
        f"{name}_e1": linear(f"{name}_e"),
        f"{name}_w": {"class": "softmax_over_spatial", "from": f"{name}_e1"},
        f"{name}_a": combined("mul", f"{name}_w", "base:frames"),
        name: {"class": "reduce", "mode": "sum", "axis": "T", "from": f"{name}_a", "n_out": SIZE},
    }


OVER_FRAMES: list[Layers] = [
    {"class": "rec", "unit": "nativelstm2", "n_out": SIZE},
    {"class": "rec", "unit": "gru", "n_out": SIZE, "direction": -1},
    {"class": "rec", "unit": {"output": linear(["data:source", "prev:output"], "tanh")}},
    {"class": "conv", "filter_size": (3,), "padding": "same", "n_out": SIZE, "activation": None, "with_bias": True},
    {"class": "pool", "mode": "max", "pool_size": (2,), "padding": "same", "in_spatial_dims": ["T"]},
    {"class": "cumsum", "axis": "T", "reverse": True},
    {"class": "prefix_in_time", "prefix": 0.5},
    {"class": "postfix_in_time", "postfix": 0.5},
    {"class": "shift_axis", "axis": "T", "amount": -1},
    {"class": "slice", "axis": "T", "slice_start": 1},
    {"class": "positional_encoding", "add_to_input": True},
    {**ATTENTION},
]


def _inner(draw: Draw, name: str, place: Place) -> Layers:
    """In each step something over frames from around the loop: a loop in the loop, longer or shorter frames."""
    over = {**draw(st.sampled_from(OVER_FRAMES)), "from": f"{name}_e"}
    return {
        f"{name}_e": combined("add", "base:frames", a_source(draw, place)),
        f"{name}_r": over,
        name: {"class": "reduce", "mode": "sum", "axis": "T", "from": f"{name}_r", "n_out": SIZE},
    }


def _body(draw: Draw, name: str, place: Place) -> Layers:
    """A loop in the loop that reads the step around it; its last output or the largest."""
    body: Layers = {"output": linear(["data:source", f"base:{a_source(draw, place)}", "prev:output"], "tanh")}
    last = {"class": "rec_last_output", "n_out": SIZE, "rec_layer": f"{name}_r", "sub_layer_name": "last", "from": []}
    largest = {"class": "reduce", "mode": "max", "axis": "T", "from": f"{name}_r", "n_out": SIZE}
    body["last"] = {**linear("output"), "need_last": True}
    return {
        f"{name}_r": {"class": "rec", "from": "base:frames", "unit": body},
        name: draw(st.sampled_from([largest, last])),
    }


def _plane(draw: Draw, name: str, place: Place) -> Layers:
    """A row of a plane."""
    return {name: {"class": "twod_lstm", "n_out": SIZE, "from": ["base:frames", a_source(draw, place)]}}


def _halves(draw: Draw, name: str, place: Place) -> Layers:
    """Parts of a layer; and axes that are all of a step's."""
    return {
        f"{name}_s": {"class": "linear", "n_out": 2 * SIZE, "activation": "tanh", "from": some_sources(draw, place)},
        f"{name}_h": {"class": "split", "axis": "F", "num_splits": 2, "from": f"{name}_s"},
        f"{name}_c": combined("mul", f"{name}_h/0", f"{name}_h/1"),
        f"{name}_d": {"class": "split_dims", "axis": "F", "dims": (1, SIZE), "from": f"{name}_c"},
        f"{name}_m": {
            "class": "merge_dims", "axes": draw(st.sampled_from(["static", "except_batch"])), "from": f"{name}_d"
        },
        name: linear(f"{name}_m"),
    }  # fmt: skip


def _literal(draw: Draw, name: str, place: Place) -> Layers:
    """An axis that is a number: that of a step."""
    axis = draw(st.sampled_from([1, -1]))
    softmax = {"class": "eval", "eval": f"tf.nn.softmax(source(0), axis={axis})", "from": a_source(draw, place)}
    return {f"{name}_s": softmax, name: linear(f"{name}_s")}


def _dropout(draw: Draw, name: str, place: Place) -> Layers:
    """The same noise in each step, or each its own."""
    shape = draw(st.sampled_from([{}, {"dropout_noise_shape": {"*": None}}, {"dropout_noise_shape": {"B": None}}]))
    return {name: {**linear(sorted({*some_sources(draw, place), "base:context"})), "dropout": 0.5, **shape}}


def _random(draw: Draw, name: str, place: Place) -> Layers:
    """Numbers that each step and run draws anew, or all steps share."""
    shape = draw(st.sampled_from([("B", SIZE), (SIZE,)]))
    numbers = [
        {"class": "random", "distribution": "normal", "static": True},
        {"class": "random", "distribution": "uniform", "maxval": 2.0},
        {"class": "random", "distribution": "truncated_normal", "stddev": 0.5},
        {"class": "rand_int", "maxval": 3, "dtype": "float32"},
        {"class": "rand_int", "minval": -1, "maxval": f"{name}_n", "dtype": "float32"},
    ]
    return {
        f"{name}_n": {"class": "constant", "value": 3},
        f"{name}_r": {**draw(st.sampled_from(numbers)), "shape": shape},
        f"{name}_c": combined("mul", f"{name}_r", a_source(draw, place)),
        name: linear(f"{name}_c", "tanh"),
    }


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
        name: linear([f"{name}_f", a_source(draw, place)], "tanh"),
    }


# Where in no cycle


def _window_ahead(draw: Draw, name: str, place: Place) -> Layers:
    right = draw(st.sampled_from([1, 2]))
    return summed(name, {"class": "window", "window_size": 3, "window_right": right, "from": a_source(draw, place)})


def _attention_ahead(draw: Draw, name: str, place: Place) -> Layers:
    return {name: {**ATTENTION, "from": a_source(draw, place)}}


def _statistics(draw: Draw, name: str, place: Place) -> Layers:
    """Of all steps, in training."""
    norm = {"class": "batch_norm", "masked_time": True, "from": a_source(draw, place)}
    return {f"{name}_n": norm, name: linear(f"{name}_n", "tanh")}


Kind = Callable[[Draw, str, Place], Layers]
KINDS: list[Kind] = [
    _linear, _combine, _cell, _rec, _sum, masked, masked, _attention, _encoder, _switch, _window, _positions,
    _generalised, _inner, _literal, _dropout, _state, recurrence, parts_under_a_mask, _body, _halves, _plane, _random,
]  # fmt: skip
AHEAD: list[Kind] = [_window_ahead, _attention_ahead, _statistics]
