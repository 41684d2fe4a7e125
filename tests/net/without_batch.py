"""Layers on what has frames but no batch, as positions have: each class that works along an axis, with its options.

A probe is a dict of layers that reads `x` [T, F] and may read `number` [T] int; its last layer is `o`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from returnn_lite.layers.registry import LAYERS

Layers = Mapping[str, Any]


def of_x(name: str, **options: Any) -> dict[str, Any]:
    """A layer of x."""
    return {"class": name, "from": "x", **options}


def one(name: str, **options: Any) -> Layers:
    """A probe of one layer."""
    return {"o": of_x(name, **options)}


def linear(source: str, n_out: int = 3, **options: Any) -> dict[str, Any]:
    return {"class": "linear", "activation": "tanh", "n_out": n_out, "from": source, **options}


def loop(unit: Layers, source: str = "data:source") -> Layers:
    """A loop over the frames of x whose layers read a frame of it."""
    return {"o": of_x("rec", unit={**unit, "output": linear(source)})}


POSITIVE = {
    "levels": of_x("reduce", mode="sum", axis="F"),
    "mask": {"class": "compare", "kind": "greater", "value": 0.2, "from": "levels"},
}
IN_STEP = {"s": linear("data:source"), "q": {"class": "dot", "reduce": "F", "from": ["base:x", "data:source"]}}
CHUNKS = {"class": "split_dims", "axis": "T", "dims": [-1, 2], "from": "x"}

PROBES: dict[str, Layers] = {
    **{f"reduce {mode}": one("reduce", mode=mode, axis="T") for mode in ("sum", "mean", "max", "prod", "logsumexp")},
    "argmax": one("reduce", mode="argmax", axis="T"),
    "norm": one("norm", axis="T", param_shape="F"),
    "norm of all": one("norm", axis="TF", param_shape="F"),
    "layer_norm": one("layer_norm"),
    "batch_norm": one("batch_norm"),
    "dot": {"q": linear("x"), "o": {"class": "dot", "reduce": "T", "from": ["x", "q"]}},
    "dot with a batch": {"q": linear("data"), "o": {"class": "dot", "reduce": "T", "from": ["x", "q"]}},
    "top_k": one("top_k", axis="T", k=2),
    "softmax_over_spatial": one("softmax_over_spatial", axis="T"),
    "softmax": one("softmax", n_out=5),
    "cumsum": one("cumsum", axis="T"),
    "cumsum from the end": one("cumsum", axis="T", reverse=True),
    "pool max": one("pool", mode="max", pool_size=[2], padding="same"),
    "pool avg": one("pool", mode="avg", pool_size=[2], padding="same", strides=1),
    "pool valid": one("pool", mode="max", pool_size=[2], padding="valid", strides=1),
    "conv": one("conv", filter_size=[3], n_out=3, padding="same"),
    "conv strided": one("conv", filter_size=[3], n_out=3, padding="same", strides=2),
    "conv valid": one("conv", filter_size=[2], n_out=3, padding="valid"),
    "transposed_conv": one("transposed_conv", filter_size=[2], strides=[2], n_out=3),
    **{
        f"rec {unit} {direction}": one("rec", unit=unit, n_out=3, direction=direction)
        for unit in ("nativelstm2", "gru", "basicrnn")
        for direction in (1, -1)
    },
    "rnn_cell": loop({"r": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 3, "from": "data:source"}}, "r"),
    "last state": {
        "l": of_x("rec", unit="nativelstm2", n_out=3, direction=-1),
        "o": {"class": "get_last_hidden_state", "from": "l", "n_out": 6},
    },
    "loop": loop({"y": linear("data:source")}, "prev:y"),
    "self_attention": one("self_attention", num_heads=1, total_key_dim=2, n_out=3),
    "self_attention to the left": one(
        "self_attention", num_heads=1, total_key_dim=2, n_out=3, attention_left_only=True
    ),
    "generic_attention": {
        "e": linear("x", 1),
        "w": {"class": "softmax_over_spatial", "from": "e"},
        "o": {"class": "generic_attention", "weights": "w", "base": "x"},
    },
    "attention in a loop": loop(
        {
            **IN_STEP,
            "w": {"class": "softmax_over_spatial", "axis": "T", "from": "q"},
            "a": {"class": "generic_attention", "weights": "w", "base": "base:x"},
        },
        "a",
    ),
    "shift_axis": one("shift_axis", axis="T", amount=1),
    "shift_axis back": one("shift_axis", axis="T", amount=-1),
    "shift_axis in place": one("shift_axis", axis="T", amount=-1, adjust_size_info=False, pad_value=1.0),
    "seq_len_mask": one("seq_len_mask", axis="T", mask_value=0.0),
    "window": one("window", window_size=3),
    "window strided": one("window", window_size=3, stride=2),
    "merge_dims": one("merge_dims", axes=["T", "F"]),
    "split_dims": {"o": CHUNKS},
    "split and merged": {"s": CHUNKS, "o": {"class": "merge_dims", "axes": ["dim:2", "F"], "from": "s"}},
    "slice": one("slice", axis="T", slice_start=1),
    "slice to the end": one("slice", axis="T", slice_end=-1),
    "slice by steps": one("slice", axis="T", slice_step=2),
    "slice from the end": one("slice", axis="T", slice_step=-1),
    "slice_nd": {"start": {"class": "constant", "value": 1}, "o": of_x("slice_nd", start="start", size=None)},
    "slice_nd of a size": one("slice_nd", start=1, size=3),
    "gather_nd": {"at": {"class": "constant", "value": 1}, "o": of_x("gather_nd", position="at")},
    "gather one": one("gather", axis="T", position=1),
    "pad": one("pad", axes="T", padding=1, value=1.0),
    "pad replicated": one("pad", axes="T", padding=1, mode="replication"),
    "postfix_in_time": one("postfix_in_time", postfix=2.0),
    "prefix_in_time": one("prefix_in_time", prefix=2.0),
    "concat": {"o": {"class": "concat", "from": [["x", "T"], ["x", "T"]]}},
    "concat with a batch": {"o": {"class": "concat", "from": [["x", "T"], ["data", "T"]]}},
    "concat behind a batch": {"o": {"class": "concat", "from": [["data", "T"], ["x", "T"]]}},
    "repeat": one("repeat", repetitions=2, axis="T"),
    "repeat by number": one("repeat", repetitions="number", axis="T"),
    "gather": one("gather", axis="T", position="number"),
    "scatter_nd": one("scatter_nd", position="number", position_axis="T", output_dim_via_time_from="data"),
    "length": one("length", axis="T"),
    "range_in_axis": one("range_in_axis", axis="T"),
    "masked_computation": {**POSITIVE, "o": of_x("masked_computation", mask="mask", unit=linear("data"))},
    "unmask": {
        **POSITIVE,
        "k": of_x("masked_computation", mask="mask", unit=linear("data")),
        "o": {"class": "unmask", "mask": "mask", "from": "k"},
    },
    "search_sorted": {
        "v": {"class": "constant", "value": 1},
        "o": {"class": "search_sorted", "sorted_sequence": "number", "values": "v", "axis": "T"},
    },
    "cum_concat": one("cum_concat"),
    "mean of cum_concat": {"h": of_x("cum_concat"), "o": {"class": "reduce", "mode": "mean", "axis": "T", "from": "h"}},
    "twod_lstm": {"y": linear("data"), "o": {"class": "twod_lstm", "from": ["x", "y"], "n_out": 3}},
    "ctc": {"o": of_x("softmax", n_out=6, loss="ctc", target="labels", loss_opts={"beam_width": 1})},
    "ce": {"o": of_x("softmax", n_out=5, loss="ce", target="classes")},
    "mse": {"o": linear("x", 4, loss="mse", target="data")},
    "bin_ce": {"o": {**linear("x", 4, loss="bin_ce", target="data"), "activation": "sigmoid"}},
    "scaled_grad": one("scaled_grad", scale=1.0, shift=0.1, scale_shift_by_sum_over_axis="T"),
    "scaled_grad clipped": one("scaled_grad", scale=2.0, clip_max_axis="T"),
    "subnetwork": one(
        "subnetwork", subnetwork={"output": {"class": "reduce", "mode": "max", "axis": "T", "from": "data"}}
    ),
    "boolean_mask": {**POSITIVE, "o": of_x("boolean_mask", mask="mask", dims="T")},
    "dot_attention": {
        "q": linear("data"),
        "keys": linear("x"),
        "o": {"class": "dot_attention", "base": "x", "base_ctx": "keys", "from": "q"},
    },
    "tile": one("tile", multiples={"T": 2}),
    "stack": {"o": {"class": "stack", "from": ["x", "x"]}},
    "rec_last_output": {
        "l": loop({"y": linear("data:source", is_output_layer=True)}, "prev:y")["o"],
        "o": {"class": "rec_last_output", "rec_layer": "l", "sub_layer_name": "y", "from": []},
    },
    "positional_encoding": one("positional_encoding", add_to_input=True),
    "relative_positional_encoding": one("relative_positional_encoding", n_out=4),
    "eval": one("eval", eval="source(0) * 2"),
    "switch": {**POSITIVE, "o": {"class": "switch", "condition": "mask", "true_from": "x", "false_from": 0.0}},
    "dropout": one("dropout", dropout=0.0),
    "reduce_out": one("reduce_out", mode="max", num_pieces=2),
    "squeeze": {"l": linear("x", 1), "o": {"class": "squeeze", "axis": "F", "from": "l"}},
}

FRAME_BY_FRAME = {
    *("activation", "cast", "combine", "constant", "copy", "expand_dims", "gating", "print", "split"),
    *("reinterpret_data", "swap_axes", "transpose"),
}
"""What computes each frame from itself, or only says what dims are."""
OF_STEPS = {
    *("choice", "choice_get_beam_scores", "choice_get_src_beams", "decide", "decide_keep_beam", "split_batch_beam"),
    *("edit_distance_table", "optimal_completions", "kenlm", "rec_unstack", "accumulate_mean", ":i"),
}
"""What has a meaning only in a loop, behind a search, or for what has a batch."""
WITHOUT_SOURCE = {"range", "range_from_length", "variable", "random", "rand_int", "random_state_init"}


def classes_in(options: Any) -> set[str]:
    """The names of the classes of nested layers."""
    if isinstance(options, Mapping):
        own = {options["class"]} if isinstance(options.get("class"), str) else set()
        return own.union(*map(classes_in, options.values()))
    return set().union(*map(classes_in, options)) if isinstance(options, list) else set()


def uncovered() -> set[str]:
    """The classes of layers that no probe has, and that are not said to need none."""
    named = {*classes_in(PROBES), *FRAME_BY_FRAME, *OF_STEPS, *WITHOUT_SOURCE} & set(LAYERS)
    return {cls.class_names[0] for cls in LAYERS.values()} - {LAYERS[name].class_names[0] for name in named}
