"""Layers that pick, place, count and rearrange frames."""

from dataclasses import replace

from ..case import Case, Tag
from ..probe import everywhere, inner, looped, outside, padding_apart

SECOND = {"y": {"class": "linear", "activation": "sigmoid", "n_out": 6, "from": "x"}}
NO_TIME = {"flat": {"class": "copy", "from": "probe"}}
MEAN = {"flat": {"class": "reduce", "mode": "mean", "axis": "T", "from": "probe"}}
FLOAT = {"flat": {"class": "cast", "dtype": "float32", "from": "probe"}}
OVER_3 = {"flat": {"class": "reduce", "mode": "mean", "axis": "dim:3", "from": "probe"}}
OVER_2 = {"flat": {"class": "reduce", "mode": "mean", "axis": "dim:2", "from": "probe"}}
HEADS = {"s": {"class": "split_dims", "axis": "F", "dims": (2, 3), "from": "x"}}
LAST = {
    "length": {"class": "length", "axis": "T", "from": "x"},
    "last": {"class": "eval", "eval": "source(0) - 1", "from": "length"},
    "middle": {"class": "eval", "eval": "source(0) - 3", "from": "length"},
}
PLACES = {
    "i": {"class": "range_in_axis", "axis": "T", "from": "x"},
    "places": {"class": "eval", "eval": "source(0) % 3", "from": "i"},
}
COUNTS = {
    "sum": {"class": "reduce", "mode": "sum", "axis": "F", "from": "x"},
    "counts": {
        "class": "eval",
        "eval": "tf.cast(tf.greater(source(0), 0.0), tf.int32) + 1",
        "out_type": {"dtype": "int32"},
        "from": "sum",
    },
}
SORTED = {
    "steps": {"class": "linear", "activation": "exp", "n_out": 1, "from": "x"},
    "one": {"class": "squeeze", "axis": "F", "from": "steps"},
    "sorted": {"class": "cumsum", "axis": "T", "from": "one"},
    "mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "x"},
    "values": {"class": "eval", "eval": "source(0) * 3.0 + 2.0", "from": "mean"},
}
LABELS = {"class": "scatter_nd", "position": "data:classes", "position_axis": "T"}
VALID = {"valid": {"class": "eval", "eval": "source(0) % 3", "from": "data:classes"}}
SHIFTED = {"shifted": {"class": "eval", "eval": "source(0) - 2", "from": "data:classes"}}
PIECE = {"flat": {"class": "copy", "from": "probe/1"}}


def windows_counted(cases: list[Case]) -> list[Case]:
    """Cases with windows of a fixed size. On whole sequences the loss counts their frames; in a loop, its steps."""
    reason = "a loss counts the frames of the windows, which are their time; in RETURNN it counts sequences"
    return [replace(case, differs=reason) if case.name.endswith(".outside") else case for case in cases]


CASES = [
    *inner("gather_nd", {"class": "gather_nd", "position": "last"}, more=LAST, flat=NO_TIME),
    outside("gather_nd.several", {"class": "gather_nd", "position": "data:classes"}),
    *padding_apart(
        [
            *inner(
                "scatter_nd",
                {
                    "class": "scatter_nd",
                    "position": "places",
                    "position_axis": "T",
                    "out_spatial_dim": Tag("places", 3),
                },
                more=PLACES,
                flat=OVER_3,
            ),
            outside("scatter_nd.labels", {**LABELS, "out_spatial_dim": Tag("vocabulary", 5)}),
            outside(
                "scatter_nd.time_of_other",
                {**LABELS, "position": "valid", "output_dim_via_time_from": "data"},
                more=VALID,
            ),
        ],
        "RETURNN adds the padding up, too, where its positions are in range; here there is none",
    ),
    outside(
        "scatter_nd.filter_invalid",
        {**LABELS, "position": "shifted", "out_spatial_dim": Tag("places", 2), "filter_invalid_indices": True},
        more=SHIFTED,
    ),
    outside(
        "boolean_mask",
        {"class": "boolean_mask", "mask": "mask", "dims": [Tag("six", 6)]},
        source="s",
        more={
            "s": {"class": "split_dims", "axis": "F", "dims": (Tag("six", 6), 1), "from": "x"},
            "i": {"class": "range", "limit": 6, "out_spatial_dim": Tag("six", 6), "from": []},
            "mask": {"class": "compare", "kind": "greater", "value": 2, "from": "i"},
        },
        loss=False,
    ),
    *inner(
        "search_sorted",
        {"class": "search_sorted", "axis": "T", "sorted_sequence": "sorted", "values": "values"},
        source=[],
        more=SORTED,
        flat=FLOAT,
        loss=False,
    ),
    outside(
        "search_sorted.right",
        {"class": "search_sorted", "axis": "T", "sorted_sequence": "sorted", "values": "sorted", "side": "right"},
        source=[],
        more=SORTED,
        loss=False,
    ),
    *windows_counted(inner("slice_nd", {"class": "slice_nd", "start": "last", "size": 2}, more=LAST, flat=OVER_2)),
    *inner("slice_nd.to_end", {"class": "slice_nd", "start": "middle", "size": None}, more=LAST, cycle=False),
    *windows_counted(
        inner("slice_nd.from_0", {"class": "slice_nd", "start": None, "size": 3}, flat=OVER_3, cycle=False)
    ),
    *inner("slice_nd.size", {"class": "slice_nd", "start": "middle", "size": "last"}, more=LAST, cycle=False),
    outside("slice_nd.min_size", {"class": "slice_nd", "start": "length", "size": None, "min_size": 2}, more=LAST),
    outside("slice_nd.time_of_other", {"class": "slice_nd", "start": "data:classes", "size": 2}, encoder=True),
    *everywhere("split", {"class": "split", "num_splits": 2}, result="probe/1", flat=PIECE),
    *everywhere("split.itself", {"class": "split", "num_splits": 2}, cycle=False),
    *everywhere("split.sizes", {"class": "split", "size_splits": [1, 2, 3]}, result="probe/2", cycle=False),
    outside(
        "split.axis", {"class": "split", "axis": "dim:2", "num_splits": 2}, source="s", more=HEADS, result="probe/0"
    ),
    *everywhere("stack", {"class": "stack"}, source=["x", "y"], more=SECOND, flat=OVER_2),
    outside("stack.axis", {"class": "stack", "axis": 1}, source=["x", "y"], more=SECOND, loss=False),
    *inner("repeat", {"class": "repeat", "axis": "T", "repetitions": 2}),
    *inner("repeat.counts", {"class": "repeat", "axis": "T", "repetitions": "counts"}, more=COUNTS),
    *inner("tile.T", {"class": "tile", "multiples": {"T": 2}}, cycle=False),
    *everywhere("tile.F", {"class": "tile", "multiples": {"F": 3}}),
    outside("range", {"class": "range", "limit": 5}, source=[], loss=False),
    outside("range.start_delta", {"class": "range", "start": 1, "limit": 8, "delta": 3}, source=[], loss=False),
    outside("range.down", {"class": "range", "start": 5, "limit": 0, "delta": -2}, source=[], loss=False),
    outside("range.dtype", {"class": "range", "limit": 4, "dtype": "float32"}, source=[], loss=False),
    outside("range.sparse", {"class": "range", "limit": 4, "sparse": True}, source=[], loss=False),
    *everywhere(
        "range.dim",
        {"class": "combine", "kind": "add", "allow_broadcast_all_sources": True},
        source=["x", "r"],
        more={"r": {"class": "range", "limit": 6, "dtype": "float32", "out_spatial_dim": Tag("r", 6), "from": []}},
        flat={"flat": {"class": "reduce", "mode": "sum", "axis": "dim:6", "from": "probe"}},
        loss=False,
        cycle=False,
    ),
    outside(
        "range.apart",
        {"class": "combine", "kind": "add", "allow_broadcast_all_sources": True},
        source=["x", "r"],
        more={"r": {"class": "range", "limit": 6, "dtype": "float32", "from": []}},
        loss=False,
    ),
    *inner(
        "range_from_length",
        {"class": "range_from_length"},
        source="last",
        more=LAST,
        flat=NO_TIME,
        loss=False,
        cycle=False,
    ),
    outside(
        "range_from_length.float",
        {"class": "range_from_length", "dtype": "float32"},
        source="last",
        more=LAST,
        loss=False,
    ),
    *inner("seq_len_mask", {"class": "seq_len_mask", "mask_value": 0.5}),
    outside("seq_len_mask.start", {"class": "seq_len_mask", "mask_value": 0.5, "start": "last"}, more=LAST),
    *inner(
        "seq_len_mask.window",
        {"class": "seq_len_mask", "mask_value": -0.5, "window_start": "middle", "window_size": 2},
        more=LAST,
    ),
    outside(
        "seq_len_mask.window_layer",
        {"class": "seq_len_mask", "mask_value": 0.0, "window_start": "middle", "window_size": "last"},
        more=LAST,
        encoder=True,
    ),
    outside("seq_len_mask.source", {"class": "seq_len_mask", "mask_value": 0.5, "seq_len_source": "data:classes"}),
    *everywhere("top_k", {"class": "top_k", "axis": "F", "k": 2, "k_dim": Tag("k", 2)}, cycle=False),
    *everywhere(
        "top_k.indices",
        {"class": "top_k", "axis": "F", "k": 3, "k_dim": Tag("k", 3)},
        result="probe/indices",
        loss=False,
        flat={"flat": {"class": "cast", "dtype": "float32", "from": "probe/indices"}},
        cycle=False,
    ),
    *inner("top_k.T", {"class": "top_k", "axis": "T", "k": 2}, flat=OVER_2, cycle=False),
    outside(
        "top_k.layer",
        {"class": "top_k", "axis": "F", "k": "many"},
        base={"many": {"class": "constant", "value": 2, "from": []}},
    ),
    outside("top_k.two_axes", {"class": "top_k", "axis": ["dim:2", "dim:3"], "k": 2}, source="s", more=HEADS),
    outside(
        "top_k.two_axes_indices",
        {"class": "top_k", "axis": ["dim:2", "dim:3"], "k": 2},
        source="s",
        more=HEADS,
        result="probe/indices1",
        loss=False,
    ),
    outside("swap_axes", {"class": "swap_axes", "axis1": "dim:2", "axis2": "dim:3"}, source="s", more=HEADS),
    looped("swap_axes", {"class": "swap_axes", "axis1": "dim:2", "axis2": "dim:3"}, source="s", more=HEADS),
    outside("length.add_time_axis", {"class": "length", "axis": "T", "add_time_axis": True}, loss=False),
    outside("length.dtype", {"class": "length", "axis": "T", "dtype": "float32"}, loss=False),
    outside("print.extra", {"class": "print", "summarize": 2, "extra_print_args": ["x"]}),
]
