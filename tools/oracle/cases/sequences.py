"""Layers along a sequence: windows, sums, positions, lengths, appended and shifted frames."""

from ..case import Case
from ..probe import everywhere, inner, outside, padding_apart

LOOK_AHEAD = (
    "RETURNN takes frames of the padding for those behind a shorter sequence's end; here there are none, as when the "
    "sequence is alone"
)
CLIPPED = (
    "RETURNN cuts the grown lengths at the longest sequence of the batch, and shifts the padding in; here a sequence "
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

APPENDED = {
    "prefix_in_time": {"class": "prefix_in_time", "prefix": 0.5},
    "prefix_in_time.repeat": {"class": "prefix_in_time", "repeat": 2},
    "postfix_in_time": {"class": "postfix_in_time", "postfix": 0.5},
    "postfix_in_time.repeat": {"class": "postfix_in_time", "postfix": -0.25, "repeat": 2},
}
SHIFTED = {
    "shift_axis": {"class": "shift_axis", "axis": "T", "amount": 1},
    "shift_axis.left": {"class": "shift_axis", "axis": "T", "amount": -1},
    "shift_axis.two": {"class": "shift_axis", "axis": "T", "amount": 2, "pad_value": 0.5},
    "shift_axis.keep_size": {"class": "shift_axis", "axis": "T", "amount": 1, "adjust_size_info": False},
    "shift_axis.left_keep_size": {"class": "shift_axis", "axis": "T", "amount": -1, "adjust_size_info": False},
    "shift_axis.no_pad": {"class": "shift_axis", "axis": "T", "amount": 1, "pad": False},
    "shift_axis.left_no_pad": {"class": "shift_axis", "axis": "T", "amount": -1, "pad": False},
}

AS_IT_IS = {"flat": {"class": "copy", "from": "probe"}}

# In a loop that keeps it RETURNN cannot make the layer.
STEP = {"i": {"class": ":i"}, "output": {"class": "cast", "dtype": "float32", "from": "i"}}

CASES = [
    Case("step_info.loop", {"output": {"class": "rec", "from": "data:frames", "unit": STEP}}, ("output",)),
    *everywhere("window.causal", {**WINDOW, "window_right": 0}, **merged(3), flat={}),
    outside("window.valid", {**WINDOW, "padding": "valid"}, encoder=True, **merged(3)),
    *padding_apart(
        [
            outside("window", WINDOW, **merged(3)),
            outside("window.even", {**WINDOW, "window_size": 4}, **merged(4)),
            outside("window.left", {**WINDOW, "window_left": 0}, **merged(3)),
            outside("window.stride", {**WINDOW, "stride": 2}, encoder=True, **merged(3)),
            outside("window.bv0", WINDOW, **merged(3), behavior_version=0),
            *inner("window.inner", WINDOW, **merged(3), flat={}, loss=False, cycle=False),
            outside("cumsum.reverse", {"class": "cumsum", "reverse": True}),
        ],
        LOOK_AHEAD,
    ),
    *everywhere("cumsum", {"class": "cumsum"}),
    *inner("cumsum.T", {"class": "cumsum", "axis": "T"}, cycle=False),
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
        differs="refused: only trained vectors exist",
    ),
    *inner("length", {"class": "length", "axis": "T"}, flat=AS_IT_IS, cycle=False, loss=False),
    outside("length.static", {"class": "length", "axis": "F"}, loss=False),
    outside("length.sparse", {"class": "length", "axis": "T", "sparse": True}, loss=False),
    *inner("range_in_axis", {"class": "range_in_axis", "axis": "T"}, flat=AS_IT_IS, loss=False, cycle=False),
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
    *[case for name, layer in APPENDED.items() for case in inner(name, layer, cycle="." not in name)],
    *padding_apart(
        [
            case
            for name, layer in SHIFTED.items()
            for case in inner(name, layer, flat=AS_IT_IS, cycle=False, loss=False)
        ],
        CLIPPED,
    ),
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
    *padding_apart(
        [
            outside(
                "shift_axis.labels",
                {"class": "shift_axis", "axis": "T", "amount": 1, "pad_value": 2},
                source="data:classes",
                loss=False,
            ),
        ],
        CLIPPED,
    ),
]
