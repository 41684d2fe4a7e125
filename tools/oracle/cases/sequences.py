"""Layers along a sequence: convolution and pooling, windows, sums, positions, appended and shifted frames."""

from ..probe import everywhere, inner, outside

CONV = {"class": "conv", "n_out": 3, "filter_size": (3,), "padding": "same", "activation": None, "with_bias": True}
IMAGE = {"image": {"class": "split_dims", "axis": "F", "dims": (-1, 1), "from": "x"}}
CONV_2D = {**CONV, "filter_size": (3, 3), "in_spatial_dims": ["T", "dim:6"]}
POOL = {"class": "pool", "mode": "max", "pool_size": (2,), "padding": "same"}
LEAK = (
    "RETURNN convolves and pools over the padding of shorter sequences, and pads by the longest; here a sequence "
    "of a batch gives what it gives alone"
)
WINDOW = {"class": "window", "window_size": 3}


def merged(size: int) -> dict:
    """A window has its new axis first in RETURNN; losses and loops there want time first, so it goes into F."""
    return {"more": {"flat": {"class": "merge_dims", "axes": [f"dim:{size}", "F"], "from": "probe"}}, "result": "flat"}


REPEAT = {
    "n": {"class": "eval", "eval": "source(0) % 2 + 1", "from": "len"},
    "len": {"class": "length", "axis": "T", "from": "x"},
}

CONVOLUTIONS = {
    "valid": {**CONV, "padding": "valid"},
    "strides": {**CONV, "strides": 2},
    "dilation": {**CONV, "dilation_rate": 2},
    "valid_strides": {**CONV, "padding": "valid", "strides": 2},
    "even_filter": {**CONV, "filter_size": (2,)},
    "groups": {**CONV, "groups": 2, "n_out": 4},
    "depthwise": {**CONV, "groups": 6, "n_out": 6},
    "relu_no_bias": {**CONV, "activation": "relu", "with_bias": False},
    "masked": {**CONV, "use_time_mask": True},
    "same_static": {**CONV, "padding": "same_static", "strides": 2},
}
POOLS = {
    "max": POOL,
    "avg": {**POOL, "mode": "avg"},
    "valid": {**POOL, "padding": "valid"},
    "strides": {**POOL, "pool_size": (3,), "strides": 2},
    "masked": {**POOL, "pool_size": (3,), "strides": 1, "use_time_mask": True},
    "avg_masked": {**POOL, "mode": "avg", "pool_size": (3,), "strides": 1, "use_time_mask": True},
}
APPENDED = {
    "prefix_in_time": {"class": "prefix_in_time", "prefix": 0.5},
    "prefix_in_time.repeat": {"class": "prefix_in_time", "repeat": 2},
    "postfix_in_time": {"class": "postfix_in_time", "postfix": 0.5},
    "postfix_in_time.repeat": {"class": "postfix_in_time", "postfix": -0.25, "repeat": 2},
    "shift_axis": {"class": "shift_axis", "axis": "T", "amount": 1},
    "shift_axis.left": {"class": "shift_axis", "axis": "T", "amount": -1},
    "shift_axis.two": {"class": "shift_axis", "axis": "T", "amount": 2, "pad_value": 0.5},
    "shift_axis.keep_size": {"class": "shift_axis", "axis": "T", "amount": 1, "adjust_size_info": False},
    "shift_axis.left_keep_size": {"class": "shift_axis", "axis": "T", "amount": -1, "adjust_size_info": False},
    "shift_axis.no_pad": {"class": "shift_axis", "axis": "T", "amount": 1, "pad": False},
    "shift_axis.left_no_pad": {"class": "shift_axis", "axis": "T", "amount": -1, "pad": False},
}

CASES = [
    outside("conv.of_input", CONV, source="data"),
    outside("conv.of_input_strides", {**CONV, "strides": 2}, source="data", differs=LEAK),
    outside(
        "conv.bv0",
        {"class": "conv", "n_out": 3, "filter_size": (3,), "padding": "same"},
        source="data",
        behavior_version=0,
    ),
    outside("conv.equal_lengths", CONV, encoder=True, lengths={"data": (5, 5), "frames": (3, 3), "classes": (3, 3)}),
    *inner("conv", CONV, differs=LEAK),
    *[
        outside(f"conv.{name}", layer, encoder=True, differs="" if name == "masked" or "valid" in name else LEAK)
        for name, layer in CONVOLUTIONS.items()
    ],
    *[
        outside(
            f"conv.{name}.equal_lengths",
            layer,
            encoder=True,
            lengths={"data": (6, 6), "frames": (3, 3), "classes": (3, 3)},
        )
        for name, layer in CONVOLUTIONS.items()
    ],
    outside("conv2d", CONV_2D, source="image", more=IMAGE, encoder=True, differs=LEAK),
    outside("conv2d.strides", {**CONV_2D, "strides": (1, 2)}, source="image", more=IMAGE, encoder=True, differs=LEAK),
    outside("conv2d.valid", {**CONV_2D, "padding": "valid"}, source="image", more=IMAGE, encoder=True),
    outside(
        "conv2d.split",
        {**CONV, "filter_size": (3, 3), "input_split_feature_dim": 1},
        encoder=True,
        behavior_version=0,
        differs=LEAK,
    ),
    outside(
        "conv2d.add_feature",
        {**CONV, "filter_size": (3, 3), "input_add_feature_dim": True},
        encoder=True,
        behavior_version=0,
        differs=LEAK,
    ),
    *inner("pool", POOL, differs=LEAK, cycle=False),
    *[
        outside(f"pool.{name}", layer, encoder=True, differs="" if "masked" in name or name == "valid" else LEAK)
        for name, layer in POOLS.items()
    ],
    *[
        outside(
            f"pool.{name}.equal_lengths",
            layer,
            encoder=True,
            lengths={"data": (6, 6), "frames": (3, 3), "classes": (3, 3)},
        )
        for name, layer in POOLS.items()
    ],
    outside(
        "pool.2d",
        {"class": "pool", "mode": "max", "pool_size": (2, 2), "padding": "valid", "in_spatial_dims": ["T", "dim:6"]},
        source="image",
        more=IMAGE,
        encoder=True,
    ),
    *everywhere("window.causal", {**WINDOW, "window_right": 0}, **merged(3), flat={}),
    outside("window", WINDOW, **merged(3)),
    outside("window.even", {**WINDOW, "window_size": 4}, **merged(4)),
    outside("window.left", {**WINDOW, "window_left": 0}, **merged(3)),
    outside("window.valid", {**WINDOW, "padding": "valid"}, encoder=True, **merged(3)),
    outside("window.stride", {**WINDOW, "stride": 2}, encoder=True, **merged(3)),
    outside("window.bv0", WINDOW, **merged(3), behavior_version=0),
    *inner("window.inner", WINDOW, **merged(3), loss=False, cycle=False),
    *everywhere("cumsum", {"class": "cumsum"}),
    *inner("cumsum.T", {"class": "cumsum", "axis": "T"}, cycle=False),
    outside("cumsum.reverse", {"class": "cumsum", "reverse": True}),
    outside("cumsum.left_summand", {"class": "cumsum", "additional_left_summand_per_element": 0.5}),
    *everywhere("positional_encoding", {"class": "positional_encoding", "add_to_input": True}),
    *everywhere("positional_encoding.alone", {"class": "positional_encoding", "n_out": 6}, loss=False),
    outside("positional_encoding.odd", {"class": "positional_encoding", "n_out": 7}, loss=False),
    outside("positional_encoding.constant", {"class": "positional_encoding", "add_to_input": True, "constant": 3}),
    outside(
        "positional_encoding.offset",
        {"class": "positional_encoding", "add_to_input": True, "offset": "o"},
        more={"o": {"class": "length", "axis": "T", "from": "x"}},
    ),
    outside(
        "relative_positional_encoding", {"class": "relative_positional_encoding", "n_out": 4, "clipping": 2}, loss=False
    ),
    outside(
        "relative_positional_encoding.fixed",
        {"class": "relative_positional_encoding", "n_out": 4, "fixed": True},
        loss=False,
    ),
    *inner("length", {"class": "length", "axis": "T"}, cycle=False, loss=False),
    outside("length.static", {"class": "length", "axis": "F"}, loss=False),
    outside("length.sparse", {"class": "length", "axis": "T", "sparse": True}, loss=False),
    *inner("range_in_axis", {"class": "range_in_axis", "axis": "T"}, loss=False, cycle=False),
    outside("range_in_axis.F", {"class": "range_in_axis", "axis": "F"}, loss=False),
    outside("range_in_axis.B", {"class": "range_in_axis", "axis": "B"}, loss=False),
    outside(
        "range_in_axis.keepdims",
        {"class": "range_in_axis", "axis": "T", "keepdims": True},
        loss=False,
        behavior_version=0,
    ),
    outside(
        "range_in_axis.unbroadcast",
        {"class": "range_in_axis", "axis": "T", "unbroadcast": True},
        loss=False,
        behavior_version=0,
    ),
    outside("range_in_axis.float", {"class": "range_in_axis", "axis": "T", "dtype": "float32"}, loss=False),
    outside("range_in_axis.sparse", {"class": "range_in_axis", "axis": "F", "sparse": True}, loss=False),
    *[
        case
        for name, layer in APPENDED.items()
        for case in inner(name, layer, cycle="." not in name, loss="keep_size" not in name)
    ],
    outside("prefix_in_time.repeat_layer", {"class": "prefix_in_time", "prefix": 0.5, "repeat": "n"}, more=REPEAT),
    outside(
        "prefix_in_time.size_base", {"class": "prefix_in_time", "prefix": 0.5, "repeat": 1, "size_base": "data:classes"}
    ),
    outside("prefix_in_time.labels", {"class": "prefix_in_time", "prefix": 3}, source="data:classes", loss=False),
    outside("postfix_in_time.labels", {"class": "postfix_in_time", "postfix": 4}, source="data:classes", loss=False),
    outside(
        "postfix_in_time.layer",
        {"class": "postfix_in_time", "postfix": "m"},
        more={"m": {"class": "reduce", "mode": "mean", "axis": "T", "from": "x"}},
    ),
    outside(
        "shift_axis.labels",
        {"class": "shift_axis", "axis": "T", "amount": 1, "pad_value": 2},
        source="data:classes",
        loss=False,
    ),
]
