"""Reductions, products over a dim, attention from its parts."""

from ..probe import everywhere, inner, outside, padding_apart

FLOAT = {"flat": {"class": "cast", "dtype": "float32", "from": "probe"}}
NO_TIME = {"flat": {"class": "copy", "from": "probe"}}
ENERGY = {"energy": {"class": "linear", "activation": None, "n_out": 1, "from": "x"}}
WEIGHTS = {**ENERGY, "weights": {"class": "softmax_over_spatial", "axis": "T", "from": "energy"}}
HEADS = {
    "energy": {"class": "linear", "activation": None, "n_out": 2, "from": "x"},
    "weights": {"class": "softmax_over_spatial", "axis": "T", "from": "energy"},
    "base": {"class": "split_dims", "axis": "F", "dims": (2, -1), "from": "x"},
}
MODES = ["sum", "max", "min", "mean", "avg", "logsumexp", "argmax", "argmin", "any", "all"]


def reduced(mode: str, axis: str) -> dict:
    return {"class": "reduce", "mode": mode, "axis": axis}


TRUTH = {"bool": {"class": "compare", "kind": "greater", "value": 0.0, "from": "x"}}

CASES = [
    *[
        case
        for mode in MODES
        for case in inner(
            f"reduce.T.{mode}",
            reduced(mode, "T"),
            source="bool" if mode in {"any", "all"} else "x",
            more=TRUTH if mode in {"any", "all"} else None,
            flat=NO_TIME if mode in {"sum", "mean", "logsumexp", "max"} else FLOAT,
            loss=mode not in {"any", "all", "argmax", "argmin"},
            cycle=mode in {"mean", "max"},
        )
    ],
    *[case for mode in MODES[:6] for case in everywhere(f"reduce.F.{mode}", reduced(mode, "F"), cycle=False)],
    *everywhere("reduce.F.argmax", reduced("argmax", "F"), loss=False, cycle=False),
    *inner("reduce.keep_dims", {**reduced("max", "T"), "keep_dims": True}, flat=NO_TIME, cycle=False),
    *padding_apart(
        inner("reduce.unmasked", {**reduced("mean", "T"), "use_time_mask": False}, flat=NO_TIME, cycle=False),
        "with use_time_mask false RETURNN reduces the padding, too; here there is none",
    ),
    outside("reduce.bt", {"class": "reduce", "mode": "mean", "axes": "bt"}, loss=False),
    outside("reduce.TF", {"class": "reduce", "mode": "sum", "axes": ["T", "F"]}),
    *padding_apart(
        [outside("reduce.B", {"class": "reduce", "mode": "max", "axis": "B"}, loss=False)],
        "over the sequences RETURNN reduces the padding, too; here each frame is that of the sequences that have it",
    ),
    outside("reduce.keep_F", {**reduced("mean", "F"), "keep_dims": True}),
    *inner("softmax_over_spatial", {"class": "softmax_over_spatial"}),
    *inner("softmax_over_spatial.axis", {"class": "softmax_over_spatial", "axis": "T", "energy_factor": 0.3}),
    *inner(
        "softmax_over_spatial.log",
        {"class": "softmax_over_spatial", "axis": "T", "log_space": True},
        loss=False,
        cycle=False,
    ),
    *padding_apart(
        [
            outside(
                "softmax_over_spatial.unmasked", {"class": "softmax_over_spatial", "axis": "T", "use_time_mask": False}
            )
        ],
        "with use_time_mask false RETURNN counts the padding, too; here there is none",
    ),
    outside("softmax_over_spatial.F", {"class": "softmax_over_spatial", "axis": "F"}),
    outside(
        "softmax_over_spatial.window",
        {"class": "softmax_over_spatial", "axis": "T", "window_start": "start", "window_size": 3},
        encoder=True,
        more={
            "length": {"class": "length", "axis": "T", "from": "x"},
            "start": {"class": "eval", "eval": "source(0) - 3", "from": "length"},
        },
    ),
    outside(
        "softmax_over_spatial.start",
        {"class": "softmax_over_spatial", "axis": "T", "start": "start"},
        encoder=True,
        more={
            "length": {"class": "length", "axis": "T", "from": "x"},
            "start": {"class": "eval", "eval": "source(0) - 3", "from": "length"},
        },
    ),
    *inner(
        "generic_attention",
        {"class": "generic_attention", "weights": "weights", "base": "x", "from": []},
        more=WEIGHTS,
        flat=NO_TIME,
    ),
    *inner(
        "generic_attention.squeeze_off",
        {"class": "generic_attention", "weights": "weights", "base": "x", "from": [], "auto_squeeze": False},
        more=WEIGHTS,
        flat=NO_TIME,
        cycle=False,
    ),
    *inner(
        "generic_attention.heads",
        {"class": "generic_attention", "weights": "weights", "base": "base", "from": []},
        more=HEADS,
        flat={"flat": {"class": "merge_dims", "axes": ["dim:2", "dim:3"], "from": "probe"}},
    ),
    *inner(
        "dot.reduce_F",
        {"class": "dot", "reduce": "F"},
        source=["x", "q"],
        more={
            "mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "x"},
            "q": {"class": "linear", "activation": "tanh", "n_out": 6, "from": "mean"},
            "qq": {"class": "copy", "from": "q"},
        },
        flat={
            "flat0": {"class": "expand_dims", "axis": "F", "from": "probe"},
            "flat": {"class": "reduce", "mode": "mean", "axis": "T", "from": "flat0"},
        },
        cycle=False,
    ),
    *inner(
        "dot.reduce_T",
        {"class": "dot", "reduce": "T", "var1": "auto", "var2": "auto"},
        source=["x", "x2"],
        more={"x2": {"class": "linear", "activation": "tanh", "n_out": 2, "from": "x"}},
        flat=NO_TIME,
        cycle=False,
    ),
    *inner(
        "dot.explicit",
        {"class": "dot", "red1": "T", "red2": "T", "var1": "F", "var2": "F"},
        source=["x", "x2"],
        more={"x2": {"class": "linear", "activation": "tanh", "n_out": 2, "from": "x"}},
        flat={"flat": {"class": "merge_dims", "axes": ["dim:6", "dim:2"], "from": "probe"}},
    ),
    *padding_apart(
        inner(
            "dot.unmasked",
            {"class": "dot", "red1": "T", "red2": "T", "var1": "F", "var2": "F", "use_mask": False},
            source=["x", "x2"],
            more={"x2": {"class": "linear", "activation": "tanh", "n_out": 2, "from": "x"}},
            flat=NO_TIME,
            cycle=False,
        ),
        "with use_mask false RETURNN sums over the padding, too; here there is none",
    ),
    *everywhere(
        "dot.outer",
        {"class": "dot", "red1": "dim:3", "red2": "dim:3", "var1": "dim:2", "var2": None},
        source=["s", "y"],
        more={
            "s": {"class": "split_dims", "axis": "F", "dims": (2, 3), "from": "x"},
            "y": {"class": "linear", "activation": "tanh", "n_out": 3, "from": "x"},
        },
        cycle=False,
    ),
    outside(
        "dot.bv0",
        {"class": "dot", "red1": "T", "red2": "T", "var1": "F", "var2": "F"},
        source=["x", "x2"],
        more={"x2": {"class": "linear", "activation": "tanh", "n_out": 6, "from": "x"}},
        behavior_version=0,
    ),
    outside(
        "dot.bv0_no_var2",
        {"class": "dot", "red1": "F", "red2": "F", "var1": "T", "var2": None},
        source=["x", "q"],
        more={
            "mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "x"},
            "q": {"class": "linear", "activation": "tanh", "n_out": 6, "from": "mean"},
        },
        behavior_version=0,
    ),
]
