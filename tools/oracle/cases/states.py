"""States of recurrent layers: what they begin with, given at each step, kept from batch to batch, seen from outside."""

from ..probe import EQUAL_LENGTHS, looped, outside
from .recurrent import BODY, CELL, REC, STEPWISE, loop

STATES = {
    "zoneoutlstm": (("c", 3), ("h", 3), ("*", 6)),
    "layernormvariantslstm": (("c", 3), ("h", 3), ("*", 6)),
    "standardlstm": (("c", 3), ("h", 3), ("*", 6)),
    "rhn": (("*", 3),),
    "gru": (("*", 3),),
    "nativelstmlowmem": (("c", 3), ("h", 3)),
}
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
KEPT = {"initial_state": "keep_over_epoch"}
TWICE = {"modes": ("eval",), "batches": 2}
"""The second batch begins with what the first one left."""
PADDED = "RETURNN keeps what the padding of shorter sequences makes of the state; here it is that of their last frame"
FROM_X = {name: {**STEP_STATES["h"]} for name in ("h", "c")}

CASES = [
    *[outside(f"rec.{unit}.kept", {**REC, "unit": unit, **KEPT}, **TWICE) for unit in ("lstm", "standardlstm", "gru")],
    outside("rec.lstm.kept_no_init", {**REC, "initial_state": "keep_over_epoch_no_init"}, **TWICE),
    *[
        looped(f"rnn_cell.{unit}.kept{name}", {**CELL, "unit": unit, **KEPT}, cycle=cycle, **TWICE, **options)
        for unit in ("lstmblock", "gru")
        for cycle in (False, True)
        for name, options in (("", {"differs": PADDED}), (".equal_lengths", {"lengths": EQUAL_LENGTHS}))
    ],
    loop("rec.body.kept", {**BODY, "x": {**BODY["x"], "initial_output": "keep_over_epoch"}}, **TWICE),
    looped("rnn_cell.lstmblock.state", {**CELL, "state": {"h": "h", "c": "c"}}, more=STEP_STATES, cycle=True),
    looped("rnn_cell.lstmblock.state", {**CELL, "state": {"h": "h", "c": "c"}}, more=FROM_X),
    looped("rnn_cell.basicrnn.state", {**CELL, "unit": "basicrnn", "state": "h"}, more=STEP_STATES, cycle=True),
    looped("rnn_cell.gru.state", {**CELL, "unit": "gru", "state": "h"}, more=FROM_X),
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
    looped("rnn_cell.initial_layers", CELL_FROM_LAYERS, base=STATE),
    looped("rnn_cell.initial_layers", CELL_FROM_LAYERS, base=STATE, cycle=True),
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
]
