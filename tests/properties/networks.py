"""Random networks with a loop: delays, masks, recurrences, histories, inner dims, a choice, and what nothing needs of
what is read outside."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Network = dict[str, Any]
SIZE = 3
CLASSES = 5


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """A config with a decoder over the target's time, or over the input's (then every frame has a target)."""
    framewise = draw(st.booleans())
    count = draw(st.integers(1, 5))
    names = [f"l{index}" for index in range(count)]
    unit: dict[str, Any] = {
        "output": {"class": "choice", "from": "prob", "target": "classes", "beam_size": 3, "initial_output": 1},
        "embed": {"class": "linear", "from": "output", "n_out": SIZE, "activation": None, "initial_output": 0},
        "mask": {"class": "compare", "from": "output", "kind": "not_equal", "value": draw(st.integers(0, 4)),
                 "initial_output": draw(st.booleans())},
        "other": {"class": "compare", "from": "output", "kind": "less", "value": draw(st.integers(0, 5)),
                  "initial_output": draw(st.booleans())},
    }  # fmt: skip
    for index, name in enumerate(names):
        here = [*names[:index], *(["data:source"] if framewise else []), "base:context"]
        sources = [*here, "prev:embed", *(f"prev:{other}" for other in names)]
        unit |= draw(_layer(name, sources))
    if draw(st.booleans()):  # search needs none of this
        unit |= draw(_layer("behind", ["embed", "prev:embed", *names, "prev:behind"]))
        unit["behind"]["is_output_layer"] = True
    last = draw(st.lists(st.sampled_from([*names, "prev:embed", "base:context"]), min_size=1, max_size=2, unique=True))
    unit["prob"] = {"class": "softmax", "from": sorted({*last, names[-1]}), "target": "classes", "loss": "ce"}
    if not framewise:
        unit["end"] = {"class": "compare", "from": "output", "kind": "equal", "value": 0}
    loop = {"class": "rec", "from": "data" if framewise else [], "target": "classes", "unit": unit, "max_seq_len": 5}
    shared = {"same_dim_tags_as": {"t": "data"}} if framewise else {}
    return {
        "behavior_version": 21,
        "target": "classes",
        "extern_data": {
            "data": {"dim": SIZE},
            "classes": {"dim": CLASSES, "sparse": True, "available_for_inference": False, **shared},
        },
        "network": {
            "frames": {"class": "linear", "from": "data", "n_out": SIZE, "activation": "tanh"},
            "context": {"class": "reduce", "mode": "mean", "axis": "T", "from": "frames"},
            "scores": {**_linear("frames"), "n_out": CLASSES},
            "right": {"class": "reduce", "mode": "argmax", "axis": "F", "from": "scores"},
            "output": loop,
            "decision": {"class": "decide", "from": "output", "only_on_search": True, "is_output_layer": True},
        },
    }


@st.composite
def _layer(draw: st.DrawFn, name: str, sources: list[str]) -> dict[str, Any]:
    """One layer under a name; some kinds need layers beside it."""
    kind = draw(
        st.sampled_from(
            ["linear", "combine", "cell", "rec", "cumsum", "masked", "attention", "history", "switch", "completions"]
        )
    )
    one = draw(st.sampled_from(sources))
    two = draw(st.lists(st.sampled_from(sources), min_size=1, max_size=2, unique=True))
    if kind == "combine":
        operation = draw(st.sampled_from(["add", "mul", "sub", "maximum"]))
        mixed = {"class": "combine", "kind": operation, "from": two if len(two) == 2 else [one, "prev:embed"]}
        return {f"{name}_c": mixed, name: _linear([f"{name}_c"])}
    if kind in ("cell", "rec"):
        unit = draw(st.sampled_from(["standardlstm", "gru", "basicrnn"] if kind == "cell" else ["nativelstm2", "gru"]))
        return {name: {"class": "rnn_cell" if kind == "cell" else "rec", "unit": unit, "n_out": SIZE, "from": two}}
    if kind == "cumsum":
        return {f"{name}_s": {"class": "cumsum", "from": one}, name: _linear([f"{name}_s"], "tanh")}
    if kind == "masked":
        return {name: {**draw(_masked(one, "prev:", depth=0)), "n_out": SIZE}}
    if kind == "attention":
        heads = {
            "class": "self_attention",
            "num_heads": 1,
            "total_key_dim": 2,
            "n_out": SIZE,
            "attention_left_only": True,
        }
        return {name: {**heads, "from": one}}
    if kind == "history":
        return {
            f"{name}_e": {"class": "combine", "kind": "add", "from": ["base:frames", one]},
            f"{name}_w": {"class": "softmax_over_spatial", "from": f"{name}_e1"},
            f"{name}_e1": _linear(f"{name}_e"),
            f"{name}_a": {"class": "combine", "kind": "mul", "from": [f"{name}_w", "base:frames"]},
            name: {"class": "reduce", "mode": "sum", "axis": "T", "from": f"{name}_a", "n_out": SIZE},
        }
    if kind == "completions":
        return {**draw(_completions(name)), name: _linear([f"{name}_f", one], "tanh")}
    if kind == "switch":
        chosen = {"class": "switch", "condition": "prev:mask", "true_from": one, "false_from": "prev:embed"}
        return {f"{name}_b": chosen, name: _linear([f"{name}_b"])}
    return {name: _linear(two, draw(st.sampled_from([None, "tanh", "relu"])))}


@st.composite
def _completions(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """What each next label would cost in edit distance to labels from around, as floats; perhaps under a mask."""
    target = {"target": "layer:base:right", **draw(st.sampled_from([{}, {"blank_idx": 0}]))}
    table = {"class": "edit_distance_table", "from": "prev:output", **target}
    if draw(st.booleans()):
        mask = draw(st.sampled_from(["prev:mask", "prev:other"]))
        unit = {**table, "from": "data"}
        table = {"class": "masked_computation", "mask": mask, "from": "prev:output", "unit": unit}
    row = draw(st.sampled_from([f"{name}_t", f"prev:{name}_t"]))
    return {
        f"{name}_t": table,
        f"{name}_c": {"class": "optimal_completions", "from": row, **target},
        f"{name}_f": {"class": "cast", "dtype": "float32", "from": f"{name}_c"},
    }


@st.composite
def _masked(draw: st.DrawFn, source: str, masks: str, depth: int) -> dict[str, Any]:
    """A layer under one of the two masks, perhaps with another under one of them in it."""
    units: list[dict[str, Any]] = [
        _linear("data", "tanh"),
        {"class": "rec", "unit": "nativelstm2", "n_out": SIZE, "from": "data"},
        {"class": "rec", "unit": "gru", "n_out": SIZE, "from": "data", "initial_state": 0.5},
        {"class": "cumsum", "from": "data", "initial_output": 0.5},
        {"class": "copy", "from": "data", "initial_output": 0.5},
    ]
    if depth == 0:
        inner = {
            "in": _linear("data"),
            "under": draw(_masked("in", "base:prev:", depth=1)),
            "output": _linear(["under", "in"]),
        }
        units.append({"class": "subnetwork", "from": "data", "subnetwork": inner})
    mask = masks + draw(st.sampled_from(["mask", "other"]))
    return {"class": "masked_computation", "mask": mask, "from": source, "unit": draw(st.sampled_from(units))}


def _linear(sources: list[str] | str, activation: str | None = None) -> dict[str, Any]:
    return {"class": "linear", "from": sources, "n_out": SIZE, "activation": activation}
