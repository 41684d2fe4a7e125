"""Recurrent units, cells in a body, states, sub-networks."""

from ..case import Case, objective
from ..probe import everywhere, looped, outside

UNITS = (
    "lstm",
    "lstmp",
    "nativelstm2",
    "standardlstm",
    "basiclstm",
    "lstmblock",
    "lstmblockfused",
    "gru",
    "basicrnn",
    "vanillalstm",
    "nativelstm",
    "nativelstmlowmem",
    "cudnnlstm",
    "zoneoutlstm",
    "layernormvariantslstm",
    "rhn",
)
UNIT_OPTIONS = {
    "zoneoutlstm": {
        "zoneout": {"zoneout_factor_cell": 0.15, "zoneout_factor_output": 0.05},
        "zoneout_of_output": {
            "zoneout_factor_cell": 0.15,
            "zoneout_factor_output": 0.25,
            "use_zoneout_output": False,
        },
        "zoneout_output": {"zoneout_factor_output": 0.25, "use_zoneout_output": True},
    },
    "layernormvariantslstm": {
        "joined": {"global_norm": False, "global_norm_joined": True, "cell_norm": False},
        "joined_cell": {"global_norm": False, "global_norm_joined": True},
        "per_gate": {"global_norm": False, "per_gate_norm": True, "cell_norm": False},
        "per_gate_cell": {"global_norm": False, "per_gate_norm": True},
        "no_cell": {"cell_norm": False},
        "cell_not_in_output": {"cell_norm_in_output": False},
        "hidden": {"hidden_norm": True},
        "hidden_cell_not_in_output": {"hidden_norm": True, "cell_norm_in_output": False},
        "concat": {"with_concat": True, "global_norm": False, "global_norm_joined": True},
        "concat_per_gate": {"with_concat": True, "global_norm": False, "per_gate_norm": True},
        "concat_plain": {"with_concat": True, "global_norm": False, "cell_norm": False},
        "plain": {"global_norm": False, "cell_norm": False},
        "epsilon": {"variance_epsilon": 0.1},
        "forget_bias": {"forget_bias": 1.0},
        "dropout": {"dropout": 0.2, "dropout_h": 0.3},
    },
    "rhn": {"depth": {"depth": 2}, "dropout": {"dropout": 0.3}, "transform_bias": {"transform_bias": -2.0}},
    "standardlstm": {
        "peepholes": {"use_peepholes": True},
        "cell_clip": {"cell_clip": 0.2},
        "forget_bias": {"forget_bias": 0.0},
        "activation": {"activation": "relu"},
    },
    "basiclstm": {"forget_bias": {"forget_bias": 0.5}, "activation": {"activation": "relu"}},
    "gru": {"activation": {"activation": "relu"}},
    "basicrnn": {"activation": {"activation": "relu"}},
}
"""The options of units; those that draw random numbers in training are compared in evaluation."""
RANDOM = {"zoneout", "zoneout_of_output", "zoneout_output", "dropout"}
REC = {"class": "rec", "unit": "lstm", "n_out": 3}
STEPWISE = ("zoneoutlstm", "layernormvariantslstm", "rhn")
"""Units whose whole sequences are loops over their steps."""
CELL = {"class": "rnn_cell", "unit": "lstmblock", "n_out": 3}
BODY = {
    "x": {"class": "linear", "activation": "tanh", "n_out": 3, "from": ["data:source", "prev:x"], "initial_output": 0},
    "output": {"class": "copy", "from": "x"},
}
SUBNET = {
    "hidden": {"class": "linear", "activation": "tanh", "n_out": 4, "from": "data"},
    "output": {"class": "linear", "activation": None, "n_out": 3, "from": ["hidden", "data"]},
}


def modes_of(variant: str) -> tuple[str, ...]:
    """The modes in which a variant of a unit draws nothing."""
    return ("eval",) if variant in RANDOM else ("train", "eval")


def loop(
    name: str, unit: dict, *, more: dict | None = None, rec: dict | None = None, layers=("output",), **options
) -> Case:
    network = {
        "output": {"class": "rec", "from": "data:frames", "unit": unit, **(rec or {})},
        **(more or {}),
        **objective(),
    }
    return Case(name, network, layers, optimize=(True, False), **options)


CASES = [
    *[outside(f"rec.{unit}", {**REC, "unit": unit}) for unit in UNITS],
    *[
        outside(f"rec.{unit}.backward", {**REC, "unit": unit, "direction": -1})
        for unit in ("lstm", "standardlstm", "gru", "basicrnn", *STEPWISE)
    ],
    *[
        case
        for unit, variants in UNIT_OPTIONS.items()
        for name, options in variants.items()
        for case in (
            outside(f"rec.{unit}.{name}", {**REC, "unit": unit, "unit_opts": options}, modes=modes_of(name)),
            looped(f"rnn_cell.{unit}.{name}", {**CELL, "unit": unit, "unit_opts": options}, modes=modes_of(name)),
        )
    ],
    outside("rec.lstm.sparse", REC, source="data:classes"),
    outside("rec.lstm.L2", {**REC, "L2": 0.1}),
    outside(
        "rec.lstm.two_sources",
        REC,
        source=["x", "y"],
        more={"y": {"class": "linear", "activation": "tanh", "n_out": 2, "from": "x"}},
    ),
    outside(
        "rec.lstm.inner_dim",
        {**REC, "axis": "T"},
        source="s",
        more={"s": {"class": "split_dims", "axis": "F", "dims": (2, 3), "from": "x"}},
        behavior_version=0,
    ),
    outside("rec.lstm.dropout", {**REC, "dropout": 0.3, "unit_opts": {"rec_weight_dropout": 0.3}}, modes=("eval",)),
    *[
        case
        for unit in ("lstm", "standardlstm", "gru", "basicrnn", *STEPWISE)
        for case in (
            looped(f"rec.{unit}.in_body", {**REC, "unit": unit}),
            looped(f"rec.{unit}.in_body", {**REC, "unit": unit}, cycle=True),
        )
    ],
    *[
        case
        for unit in ("lstmblock", "standardlstm", "gru", "basicrnn", *STEPWISE)
        for case in everywhere(f"rnn_cell.{unit}", {**CELL, "unit": unit})
    ],
    looped("rnn_cell.forget_bias", {**CELL, "unit_opts": {"forget_bias": 0.0}}),
    looped("rnn_cell.weights_of_rec", {**CELL, "unit": "standardlstm"}, cycle=True),
    loop("rec.body", BODY),
    loop(
        "rec.body.backward",
        BODY,
        rec={"direction": -1},
        differs="refused: RETURNN ignores the direction of a loop over a network, and gives what 'rec.body' gives",
    ),
    loop(
        "rec.body.is_output_layer",
        {**BODY, "y": {"class": "linear", "activation": "tanh", "n_out": 2, "from": "x", "is_output_layer": True}},
        layers=("output", "output/y"),
    ),
    loop(
        "rec.body.cur_and_prev",
        {
            "x": {"class": "linear", "activation": "tanh", "n_out": 3, "from": "data:source", "initial_output": 0},
            "y": {"class": "combine", "kind": "sub", "from": ["x", "prev:x"]},
            "s": {"class": "linear", "activation": "tanh", "n_out": 2, "from": ["y", "prev:s"], "initial_output": 0},
            "output": {"class": "copy", "from": "s"},
        },
    ),
    loop(
        "rec.body.step_index",
        {
            "i": {"class": "cast", "dtype": "float32", "from": ":i"},
            "output": {"class": "combine", "kind": "add", "from": ["data:source", "i"]},
        },
    ),
    loop(
        "rec.body.classes",
        {
            "e": {"class": "linear", "activation": "tanh", "n_out": 3, "from": "data:classes"},
            "output": {"class": "combine", "kind": "add", "from": ["e", "prev:e"]},
        },
    ),
    loop(
        "rec_unstack",
        {
            "u": {"class": "rec_unstack", "from": "base:other", "axis": "T"},
            "x": {
                "class": "linear",
                "activation": "tanh",
                "n_out": 3,
                "from": ["data:source", "u", "prev:x"],
                "initial_output": 0,
            },
            "output": {"class": "copy", "from": "x"},
        },
        more={"other": {"class": "linear", "activation": "tanh", "n_out": 2, "from": "data:frames"}},
    ),
    loop(
        "rec.nested",
        {
            "x": {
                "class": "rec",
                "from": "q",
                "unit": {
                    "c": {
                        "class": "linear",
                        "activation": "tanh",
                        "n_out": 3,
                        "from": ["data:source", "prev:c"],
                        "initial_output": 0,
                    },
                    "output": {"class": "copy", "from": "c"},
                },
            },
            "query": {"class": "linear", "activation": "tanh", "n_out": 6, "from": ["data:source", "prev:m"]},
            "q": {"class": "combine", "kind": "add", "from": ["base:encoder", "query"]},
            "m": {"class": "reduce", "mode": "mean", "axis": "T", "from": "x", "initial_output": 0},
            "output": {"class": "copy", "from": "m"},
        },
        more={"encoder": {"class": "linear", "activation": None, "n_out": 6, "from": "data"}},
    ),
    *everywhere("subnetwork", {"class": "subnetwork", "subnetwork": SUBNET}),
    outside(
        "subnetwork.two_sources",
        {"class": "subnetwork", "subnetwork": SUBNET},
        source=["x", "y"],
        more={"y": {"class": "linear", "activation": "tanh", "n_out": 2, "from": "x"}},
    ),
    outside(
        "subnetwork.separate",
        {
            "class": "subnetwork",
            "concat_sources": False,
            "subnetwork": {"output": {"class": "combine", "kind": "sub", "from": ["data:0", "data:1"]}},
        },
        source=["x", "y"],
        more={"y": {"class": "linear", "activation": "tanh", "n_out": 6, "from": "x"}},
    ),
    outside(
        "subnetwork.base",
        {
            "class": "subnetwork",
            "subnetwork": {"output": {"class": "combine", "kind": "add", "from": ["data", "base:y"]}},
        },
        more={"y": {"class": "linear", "activation": "tanh", "n_out": 6, "from": "x"}},
    ),
    outside(
        "reuse_params",
        {"class": "linear", "activation": "tanh", "n_out": 6, "reuse_params": "x"},
        source="d",
        more={"d": {"class": "copy", "from": "data"}},
    ),
    outside(
        "reuse_params.map",
        {
            "class": "linear",
            "activation": "tanh",
            "n_out": 6,
            "reuse_params": {"map": {"W": {"reuse_layer": "x"}, "b": None}},
        },
        source="d",
        more={"d": {"class": "copy", "from": "data:frames"}},
    ),
    outside("name_scope", {"class": "linear", "activation": "tanh", "n_out": 3, "name_scope": "elsewhere"}),
    outside("name_scope.absolute", {"class": "linear", "activation": "tanh", "n_out": 3, "name_scope": "/top"}),
    outside("trainable.off", {"class": "linear", "activation": "tanh", "n_out": 3, "trainable": False}),
]
