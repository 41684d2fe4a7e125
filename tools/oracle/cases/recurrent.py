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
STATES = {
    "zoneoutlstm": (("c", 3), ("h", 3), ("*", 6)),
    "layernormvariantslstm": (("c", 3), ("h", 3), ("*", 6)),
    "standardlstm": (("c", 3), ("h", 3), ("*", 6)),
    "rhn": (("*", 3),),
    "gru": (("*", 3),),
    "nativelstmlowmem": (("c", 3), ("h", 3)),
}
CELL = {"class": "rnn_cell", "unit": "lstmblock", "n_out": 3}
STATE = {
    "h0": {"class": "linear", "activation": "tanh", "n_out": 3, "from": "mean"},
    "c0": {"class": "linear", "activation": "tanh", "n_out": 3, "from": "mean"},
    "mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"},
}
STEP_STATES = {
    "h": {"class": "linear", "activation": "tanh", "n_out": 3, "from": "x"},
    "c": {"class": "linear", "activation": "tanh", "n_out": 3, "from": "prev:probe", "initial_output": 0},
}
CELL_FROM_LAYERS = {**CELL, "initial_state": {"h": "base:h0", "c": "base:c0"}}
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
    *[
        outside(f"rec.{unit}.initial_{value}", {**REC, "unit": unit, "initial_state": value})
        for unit in (*STEPWISE, "gru")
        for value in ("ones", "var")
    ],
    *[
        looped(f"{kind}.initial_names", {**layer, "unit": "standardlstm", "initial_state": "var"}, cycle=True)
        for kind, layer in (("rec", REC), ("rnn_cell", CELL))
    ],
    looped("rnn_cell.gru.state", {**CELL, "unit": "gru", "state": "h"}, more=STEP_STATES, cycle=True),
    *[
        looped(f"rnn_cell.{unit}.initial_{value}", {**CELL, "unit": unit, "initial_state": value}, cycle=True)
        for unit in ("lstmblock", "gru", *STEPWISE)
        for value in ("ones", "var")
    ],
    looped("rnn_cell.initial_list", {**CELL, "initial_state": ["base:c0", "base:h0"]}, base=STATE, cycle=True),
    looped("rnn_cell.gru.initial_layer", {**CELL, "unit": "gru", "initial_state": "base:h0"}, base=STATE, cycle=True),
    looped("rnn_cell.rhn.initial_layer", {**CELL, "unit": "rhn", "initial_state": "base:h0"}, base=STATE, cycle=True),
    *[
        outside(
            f"get_last_hidden_state.{unit}{suffix}",
            {"class": "get_last_hidden_state", "n_out": n_out, "key": key},
            source="r",
            more={"r": {**REC, "unit": unit, "from": "x", **direction}},
        )
        for unit, keys in STATES.items()
        for key, n_out in keys
        for suffix, direction in ((f".{key}", {}), (f".{key}.backward", {"direction": -1}))
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
    *[outside(f"rec.lstm.initial_{value}", {**REC, "initial_state": value}) for value in ("zeros", "ones", "var")],
    outside("rec.lstm.initial_layers", {**REC, "initial_state": {"h": "h0", "c": "c0"}}, more=STATE),
    outside(
        "rec.standardlstm.initial_layers",
        {**REC, "unit": "standardlstm", "initial_state": {"h": "h0", "c": "c0"}},
        more=STATE,
    ),
    outside("rec.gru.initial_layer", {**REC, "unit": "gru", "initial_state": "h0"}, more=STATE),
    outside(
        "rec.lstm.initial_of_rec",
        {**REC, "initial_state": {"h": "h1", "c": "c1"}},
        more={
            "first": {**REC, "from": "data"},
            "h1": {"class": "get_last_hidden_state", "n_out": 3, "key": "h", "from": "first"},
            "c1": {"class": "get_last_hidden_state", "n_out": 3, "key": "c", "from": "first"},
        },
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
    looped("rnn_cell.initial_layers", CELL_FROM_LAYERS, base=STATE),
    looped("rnn_cell.initial_layers", CELL_FROM_LAYERS, base=STATE, cycle=True),
    looped("rnn_cell.forget_bias", {**CELL, "unit_opts": {"forget_bias": 0.0}}),
    looped("rnn_cell.weights_of_rec", {**CELL, "unit": "standardlstm"}, cycle=True),
    *[
        outside(
            f"get_last_hidden_state.{key}",
            {"class": "get_last_hidden_state", "n_out": n_out, "key": key},
            source="r",
            more={"r": {**REC, "from": "x"}},
        )
        for key, n_out in (("c", 3), ("h", 3), ("*", 6))
    ],
    outside(
        "get_last_hidden_state.gru",
        {"class": "get_last_hidden_state", "n_out": 3},
        source="r",
        more={"r": {**REC, "unit": "gru", "from": "x"}},
    ),
    outside(
        "get_last_hidden_state.backward",
        {"class": "get_last_hidden_state", "n_out": 6},
        source="r",
        more={"r": {**REC, "direction": -1, "from": "x"}},
    ),
    outside(
        "get_last_hidden_state.two",
        {"class": "get_last_hidden_state", "n_out": 12},
        source=["r", "s"],
        more={"r": {**REC, "from": "x"}, "s": {**REC, "direction": -1, "from": "x"}},
    ),
    outside(
        "get_last_hidden_state.add",
        {"class": "get_last_hidden_state", "n_out": 6, "combine": "add"},
        source=["r", "s"],
        more={"r": {**REC, "from": "x"}, "s": {**REC, "direction": -1, "from": "x"}},
    ),
    looped(
        "get_last_hidden_state",
        {"class": "get_last_hidden_state", "n_out": 3, "key": "c"},
        source="r",
        more={"r": {**CELL, "from": "x"}},
        cycle=True,
    ),
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
    loop("rec.body.initial_ones", {**BODY, "x": {**BODY["x"], "initial_output": "ones"}}),
    loop("rec.body.initial_number", {**BODY, "x": {**BODY["x"], "initial_output": 0.5}}),
    loop("rec.body.initial_var", {**BODY, "x": {**BODY["x"], "initial_output": "var"}}),
    loop(
        "rec.body.initial_apply",
        {
            **BODY,
            "x": {**BODY["x"], "from": "data:source", "initial_output": "apply(0)"},
            "output": {"class": "combine", "kind": "add", "from": ["x", "prev:x"]},
        },
    ),
    loop(
        "rec.body.initial_apply_linear",
        {
            "x": {"class": "linear", "activation": "tanh", "n_out": 3, "from": ["data:source", "prev:x"]},
            "y": {
                "class": "linear",
                "activation": "tanh",
                "n_out": 3,
                "from": ["x", "prev:y"],
                "initial_output": "apply(0)",
            },
            "output": {"class": "combine", "kind": "add", "from": ["x", "y"]},
        },
    ),
    loop(
        "rec.body.initial_apply_embedding",
        {
            "e": {
                "class": "linear",
                "activation": None,
                "n_out": 3,
                "from": "data:classes",
                "initial_output": "apply(0)",
            },
            "output": {
                "class": "linear",
                "activation": "tanh",
                "n_out": 3,
                "from": ["data:source", "prev:e", "prev:output"],
            },
        },
    ),
    loop(
        "rec.body.initial_apply_activation",
        {
            "x": {"class": "linear", "activation": "tanh", "n_out": 3, "from": ["data:source", "prev:s"]},
            "s": {"class": "softmax", "n_out": 3, "from": "x", "initial_output": "apply(0)"},
            "output": {"class": "copy", "from": "s"},
        },
    ),
    loop("rec.body.initial_layer", {**BODY, "x": {**BODY["x"], "initial_output": "base:h0"}}, more=STATE),
    loop(
        "rec.body.initial_default",
        {
            "x": {"class": "linear", "activation": "tanh", "n_out": 3, "from": ["data:source", "prev:x"]},
            "output": {"class": "copy", "from": "x"},
        },
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
        "rec_last_output",
        {**BODY, "x": {**BODY["x"], "need_last": True}},
        more={
            "last": {"class": "rec_last_output", "is_output_layer": True, "rec_layer": "output", "sub_layer_name": "x"}
        },
        layers=("output", "last"),
    ),
    loop(
        "rec_last_output.moved",
        {
            "y": {"class": "linear", "activation": "tanh", "n_out": 3, "from": "data:source", "need_last": True},
            "output": {"class": "copy", "from": "y"},
        },
        more={
            "last": {"class": "rec_last_output", "is_output_layer": True, "rec_layer": "output", "sub_layer_name": "y"}
        },
        layers=("output", "last"),
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
