"""Layers that make, merge, cut or rename dims."""

from ..probe import everywhere, inner, looped, outside, padding_apart

SPLIT = {"class": "split_dims", "axis": "F", "dims": (2, 3)}
MERGE = {"flat": {"class": "merge_dims", "axes": ["dim:2", "dim:3"], "from": "probe"}}
SECOND = {"y": {"class": "linear", "activation": "sigmoid", "n_out": 2, "from": "x"}}
NO_TIME = {"flat": {"class": "copy", "from": "probe"}}
EXPANDED = {"e": {"class": "expand_dims", "axis": "spatial", "from": "x"}}
LAST = {
    "length": {"class": "length", "axis": "T", "from": "x"},
    "last": {"class": "eval", "eval": "source(0) - 1", "from": "length"},
}

PIECES = {"flat": {"class": "reduce", "mode": "mean", "axes": ["T", "dim:2"], "from": "probe"}}

CASES = [
    *everywhere("split_dims.F", SPLIT, flat=MERGE),
    *everywhere("split_dims.F_rest", {**SPLIT, "dims": (-1, 3)}, flat=MERGE),
    *padding_apart(
        [
            *inner("split_dims.T", {"class": "split_dims", "axis": "T", "dims": (-1, 2)}, flat=PIECES, cycle=False),
            outside("split_dims.T_value", {**SPLIT, "axis": "T", "dims": (-1, 4), "pad_value": 0.5}, encoder=True),
        ],
        "RETURNN fills up the last piece with the padding of the batch; here with pad_value",
    ),
    *everywhere(
        "merge_dims.F",
        {"class": "merge_dims", "axes": ["dim:2", "dim:3"]},
        source="s",
        more={"s": {**SPLIT, "from": "x"}},
    ),
    outside(
        "merge_dims.swapped",
        {"class": "merge_dims", "axes": ["dim:3", "dim:2"], "keep_order": True},
        source="s",
        more={"s": {**SPLIT, "from": "x"}},
    ),
    *inner(
        "merge_dims.T_static",
        {"class": "merge_dims", "axes": ["T", "dim:2"]},
        source="s",
        more={"s": {**SPLIT, "from": "x"}},
        cycle=False,
    ),
    *everywhere(
        "merge_dims.static",
        {"class": "merge_dims", "axes": "static"},
        source="s",
        more={"s": {**SPLIT, "from": "x"}},
        cycle=False,
        behavior_version=0,
    ),
    outside(
        "merge_dims.except_time",
        {"class": "merge_dims", "axes": "except_time"},
        source="s",
        more={"s": {**SPLIT, "from": "x"}},
        behavior_version=0,
    ),
    *everywhere("expand_dims.F", {"class": "expand_dims", "axis": "F"}, cycle=False),
    *everywhere("expand_dims.spatial", {"class": "expand_dims", "axis": "spatial"}, cycle=False),
    *everywhere(
        "expand_dims.dim",
        {"class": "expand_dims", "axis": "spatial", "dim": 2},
        flat={"flat": {"class": "reduce", "mode": "sum", "axis": "dim:2", "from": "probe"}},
    ),
    *everywhere("transpose", {"class": "transpose", "perm": {"F": "B", "B": "F"}}),
    outside("transpose.numbers", {"class": "transpose", "perm": {0: "F", 1: "B"}}),
    *everywhere("squeeze", {"class": "squeeze", "axis": "dim:1"}, source="e", more=EXPANDED),
    outside("squeeze.auto", {"class": "squeeze", "axis": "auto"}, source="e", more=EXPANDED),
    outside(
        "squeeze.F",
        {"class": "squeeze", "axis": "F"},
        source="o",
        more={"o": {"class": "linear", "activation": "tanh", "n_out": 1, "from": "x"}},
    ),
    outside("squeeze.no_op", {"class": "squeeze", "axis": "auto", "allow_no_op": True}),
    outside("reinterpret_data.size_base", {"class": "reinterpret_data", "size_base": "data:classes"}),
    outside(
        "reinterpret_data.set_sparse",
        {"class": "reinterpret_data", "set_sparse": True, "set_sparse_dim": 9},
        source="i",
        more={
            "r": {"class": "reduce", "mode": "argmax", "axis": "F", "from": "x"},
            "i": {"class": "cast", "dtype": "int32", "from": "r"},
        },
        loss=False,
    ),
    outside(
        "reinterpret_data.increase_sparse_dim",
        {"class": "reinterpret_data", "increase_sparse_dim": 2},
        source="data:classes",
        loss=False,
    ),
    outside(
        "reinterpret_data.set_axes",
        {"class": "reinterpret_data", "set_axes": {"T": "dim:2"}},
        source="s",
        more={"s": {**SPLIT, "from": "x"}},
        loss=False,
    ),
    outside(
        "reinterpret_data.switch_axes",
        {"class": "reinterpret_data", "switch_axes": "TF"},
        source="s",
        more={"s": {**SPLIT, "from": "x"}},
        loss=False,
        behavior_version=0,
    ),
    outside("reinterpret_data.batch_major", {"class": "reinterpret_data", "enforce_batch_major": True}),
    looped("reinterpret_data.batch_major", {"class": "reinterpret_data", "enforce_batch_major": True}),
    outside("reinterpret_data.time_major", {"class": "reinterpret_data", "enforce_time_major": True}),
    outside("concat.F", {"class": "concat", "from": [("x", "F"), ("y", "F")]}, more=SECOND),
    looped("concat.F", {"class": "concat", "from": [("x", "F"), ("y", "F")]}, more=SECOND),
    *padding_apart(
        [
            outside(
                "concat.T",
                {"class": "concat", "from": [("x", "T"), ("z", "T")]},
                more={"z": {"class": "linear", "activation": "tanh", "n_out": 6, "from": "data"}},
            ),
            outside(
                "concat.T_static",
                {"class": "concat", "from": [("x", "T"), ("z", "dim:1")]},
                more={
                    "m": {"class": "reduce", "mode": "mean", "axis": "T", "from": "x"},
                    "z": {"class": "expand_dims", "axis": "spatial", "from": "m"},
                },
            ),
        ],
        "RETURNN leaves the padding of a shorter sequence in between, and cuts as many frames off at the end; "
        "here what follows begins where the sequence ends",
    ),
    *inner("slice.start", {"class": "slice", "axis": "T", "slice_start": 1}),
    *inner("slice.end_negative", {"class": "slice", "axis": "T", "slice_end": -1}, cycle=False),
    *inner(
        "slice.start_2_end_negative", {"class": "slice", "axis": "T", "slice_start": 2, "slice_end": -1}, cycle=False
    ),
    outside("slice.end", {"class": "slice", "axis": "T", "slice_end": 3}, encoder=True),
    looped(
        "slice.end",
        {"class": "slice", "axis": "T", "slice_end": 3},
        flat={"flat": {"class": "reduce", "mode": "mean", "axis": "dim:3", "from": "probe"}},
        encoder=True,
        differs="RETURNN makes it static, and the case names it by its size; here each sequence keeps its length",
    ),
    *inner("slice.step", {"class": "slice", "axis": "T", "slice_step": 2}, cycle=False),
    outside("slice.beyond", {"class": "slice", "axis": "T", "slice_start": 3}),
    *everywhere("slice.F", {"class": "slice", "axis": "F", "slice_start": 1, "slice_end": 5}),
    *everywhere("slice.F_step", {"class": "slice", "axis": "F", "slice_start": 1, "slice_step": 2}, cycle=False),
    outside("slice.F_reverse", {"class": "slice", "axis": "F", "slice_step": -2}),
    *inner("gather.T", {"class": "gather", "axis": "T", "position": "last"}, more=LAST, flat=NO_TIME),
    *everywhere("gather.F_number", {"class": "gather", "axis": "F", "position": 2}, cycle=False),
    outside(
        "gather.clip",
        {"class": "gather", "axis": "T", "position": "p", "clip_to_valid": True},
        encoder=True,
        more={"length": LAST["length"], "p": {"class": "eval", "eval": "source(0) + 3", "from": "length"}},
    ),
    outside(
        "gather.embedding",
        {"class": "gather", "axis": "dim:5", "position": "data:classes", "from": "table"},
        more={"table": {"class": "variable", "shape": (5, 3), "from": []}},
    ),
    outside(
        "gather.time_of_other",
        {"class": "gather", "axis": "T", "position": "data:classes", "clip_to_valid": True},
        encoder=True,
    ),
    *inner("pad.T", {"class": "pad", "axes": "T", "padding": (1, 2)}),
    *inner("pad.T_value", {"class": "pad", "axes": "T", "padding": 1, "value": 0.5}, cycle=False),
    *padding_apart(
        [
            *[
                outside(
                    f"pad.T_{mode}",
                    {"class": "pad", "axes": "T", "padding": (1, 2), "mode": mode, "handle_dynamic_dims": False},
                    encoder=True,
                )
                for mode in ("constant", "reflect", "symmetric", "replication")
            ],
            outside("pad.bv0", {"class": "pad", "axes": "T", "padding": (1, 2)}, encoder=True, behavior_version=0),
        ],
        "RETURNN pads behind the longest sequence; here behind each",
    ),
    *everywhere("pad.F", {"class": "pad", "axes": "F", "padding": (1, 2), "value": 0.25}),
    outside("pad.two_axes", {"class": "pad", "axes": ["T", "F"], "padding": [(1, 0), (0, 2)]}),
]
