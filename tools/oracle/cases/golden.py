"""The four networks of SEMANTICS 3.10, and what was once measured to break loop optimisers (4.1)."""

from typing import Any

from ..case import Case, Net

LINEAR = {"class": "linear", "activation": None}
ENCODER: Net = {
    "encoder": {"class": "rec", "unit": "lstm", "n_out": 4, "from": "data"},
    "enc_ctx": {**LINEAR, "n_out": 4, "from": "encoder"},
}
CHOICE = {"class": "choice", "target": "classes", "beam_size": 3, "from": "output_prob", "initial_output": 0}
END = {"class": "compare", "from": "output", "value": 0}
DECIDE: Net = {"decision": {"class": "decide", "from": "output", "loss": "edit_distance", "target": "classes"}}
MODES = ("train", "eval", "search")


def prob(source: Any) -> dict[str, Any]:
    return {"class": "softmax", "n_out": 5, "from": source, "loss": "ce", "target": "classes"}


def decoder(
    name: str,
    unit: Net,
    *,
    rec: dict[str, Any] | None = None,
    more: Net | None = None,
    modes: tuple[str, ...] = MODES,
    **options: Any,
) -> Case:
    unit = {"output": CHOICE, "end": END, **unit}
    network = {
        **ENCODER,
        **(more or {}),
        "output": {"class": "rec", "from": [], "target": "classes", "max_seq_len": 6, "unit": unit, **(rec or {})},
        **DECIDE,
    }
    return Case(name, network, ("output", "decision"), optimize=(True, False), modes=modes, **options)


ATTENTION: Net = {
    "embed": {**LINEAR, "n_out": 3, "from": "output", "initial_output": 0},
    "s": {"class": "rnn_cell", "unit": "lstmblock", "n_out": 4, "from": ["prev:embed", "prev:att"]},
    "s_tr": {**LINEAR, "n_out": 4, "from": "s"},
    "e_in": {"class": "combine", "kind": "add", "from": ["base:enc_ctx", "s_tr"]},
    "e_tanh": {"class": "activation", "activation": "tanh", "from": "e_in"},
    "e": {**LINEAR, "n_out": 1, "with_bias": False, "from": "e_tanh"},
    "w": {"class": "softmax_over_spatial", "from": "e"},
    "att": {"class": "generic_attention", "weights": "w", "base": "base:encoder", "from": [], "initial_output": 0},
    "readout": {"class": "linear", "activation": "tanh", "n_out": 4, "from": ["s", "prev:embed", "att"]},
    "output_prob": prob("readout"),
}
# The published attention decoder feeds the sum of its weights back: a second cycle, over an inner dynamic axis.
COVERAGE: Net = {
    **ATTENTION,
    "feedback": {**LINEAR, "n_out": 4, "with_bias": False, "from": "prev:accum"},
    "e_in": {"class": "combine", "kind": "add", "from": ["base:enc_ctx", "feedback", "s_tr"]},
    "accum": {
        "class": "eval",
        "eval": "source(0) + source(1) * source(2) * 0.5",
        "from": ["prev:accum", "w", "base:fertility"],
        "out_type": {"dim": 1, "shape": (None, 1)},
    },
}
FERTILITY: Net = {"fertility": {"class": "linear", "activation": "sigmoid", "n_out": 1, "from": "encoder"}}

TRANSFORMER: Net = {
    "embed": {**LINEAR, "n_out": 6, "from": "prev:output"},
    "pos": {"class": "positional_encoding", "add_to_input": True, "from": "embed"},
    "norm1": {"class": "layer_norm", "from": "pos"},
    "self": {
        "class": "self_attention",
        "num_heads": 2,
        "total_key_dim": 4,
        "n_out": 6,
        "attention_left_only": True,
        "from": "norm1",
    },
    "res1": {"class": "combine", "kind": "add", "from": ["self", "pos"]},
    "norm2": {"class": "layer_norm", "from": "res1"},
    "q": {**LINEAR, "n_out": 4, "from": "norm2"},
    "energy": {"class": "dot", "red1": "F", "red2": "F", "var1": "T", "var2": "T?", "from": ["base:enc_ctx", "q"]},
    "w": {"class": "softmax_over_spatial", "axis": "stag:extern_data:data", "from": "energy"},
    "att": {"class": "generic_attention", "weights": "w", "base": "base:encoder", "from": []},
    "att2": {**LINEAR, "n_out": 6, "from": "att"},
    "res2": {"class": "combine", "kind": "add", "from": ["att2", "res1"]},
    "norm3": {"class": "layer_norm", "from": "res2"},
    "ff1": {"class": "linear", "activation": "relu", "n_out": 8, "from": "norm3"},
    "ff2": {**LINEAR, "n_out": 6, "from": "ff1"},
    "res3": {"class": "combine", "kind": "add", "from": ["ff2", "res2"]},
    "output_prob": prob("res3"),
}
LM: Net = {
    "embed": {**LINEAR, "n_out": 3, "from": "prev:output"},
    "lstm": {"class": "rec", "unit": "lstm", "n_out": 4, "from": "embed"},
    "output_prob": prob("lstm"),
}
TRANSDUCER: Net = {
    "mask": {"class": "compare", "kind": "not_equal", "value": 0, "from": "prev:output", "initial_output": True},
    "embed": {**LINEAR, "n_out": 3, "from": "prev:output"},
    "lm_masked": {
        "class": "masked_computation",
        "mask": "mask",
        "from": "embed",
        "unit": {"class": "rec", "unit": "lstm", "n_out": 4, "from": "data"},
    },
    "lm": {"class": "unmask", "mask": "mask", "from": "lm_masked"},
    "joint": {"class": "linear", "activation": "tanh", "n_out": 4, "from": ["data:source", "lm"]},
    "output_prob": prob("joint"),
}
ONE_TOO_MANY = (
    "with a known length RETURNN scores one label too many for all but the longest sequence; here a sequence of a "
    "batch gets the hypotheses that it gets alone"
)
EQUAL = {"data": (6, 4, 5), "frames": (3, 3, 3), "classes": (3, 3, 3)}


def transducer(name: str, **options: Any) -> Case:
    network = {
        "encoder": {"class": "rec", "unit": "lstm", "n_out": 4, "from": "data:frames"},
        "output": {"class": "rec", "from": "encoder", "target": "classes", "unit": {"output": CHOICE, **TRANSDUCER}},
        **DECIDE,
    }
    return Case(name, network, ("output", "decision"), optimize=(True, False), **options)


# Between the embedding and the softmax of a decoder that leaves the loop: one layer that has broken a loop optimiser.
ENERGY: Net = {
    "embed": {**LINEAR, "n_out": 4, "from": "prev:output"},
    "q": {**LINEAR, "n_out": 4, "from": "embed"},
    "x": {"class": "combine", "kind": "add", "from": ["base:enc_ctx", "q"]},
}


def probe(name: str, layers: Net, source: str = "probe", **options: Any) -> Case:
    unit = {**ENERGY, **layers, "output_prob": prob(source)}
    return decoder(f"golden.probe.{name}", unit, modes=("train",), **options)


MEAN = {"class": "reduce", "mode": "mean", "axis": "T", "from": "y"}

CASES = [
    decoder("golden.A_attention", ATTENTION),
    decoder("golden.F_coverage", COVERAGE, more=FERTILITY, behavior_version=0),
    decoder("golden.B_transformer", TRANSFORMER),
    Case(
        "golden.C_lm",
        {
            "output": {
                "class": "rec",
                "from": [],
                "target": "classes",
                "max_seq_len": 6,
                "unit": {"output": CHOICE, "end": END, **LM},
            },
            **DECIDE,
        },
        ("output", "decision"),
        optimize=(True, False),
        modes=MODES,
    ),
    transducer("golden.D_transducer", modes=("train", "eval")),
    transducer("golden.D_transducer_search", modes=("search",), differs=ONE_TOO_MANY),
    transducer("golden.D_transducer_search.equal_lengths", modes=("search",), lengths=EQUAL),
    probe(
        "softmax_over_spatial",
        {
            "e": {**LINEAR, "n_out": 1, "from": "x"},
            "y": {"class": "softmax_over_spatial", "from": "e"},
            "probe": {"class": "generic_attention", "weights": "y", "base": "base:encoder", "from": []},
        },
    ),
    probe("reduce_mean", {"probe": {**MEAN, "from": "x"}}),
    probe("reduce_max", {"probe": {**MEAN, "mode": "max", "from": "x"}}),
    probe("slice", {"y": {"class": "slice", "axis": "T", "slice_start": 1, "from": "x"}, "probe": MEAN}),
    probe(
        "conv",
        {
            "y": {
                "class": "conv",
                "filter_size": (3,),
                "padding": "valid",
                "n_out": 3,
                "activation": None,
                "with_bias": True,
                "in_spatial_dims": ["T"],
                "from": "x",
            },
            "probe": MEAN,
        },
    ),
    probe(
        "pool",
        {
            "y": {
                "class": "pool",
                "mode": "max",
                "pool_size": (2,),
                "padding": "valid",
                "in_spatial_dims": ["T"],
                "from": "x",
            },
            "probe": MEAN,
        },
    ),
    probe(
        "length",
        {
            "n": {"class": "length", "axis": "T", "from": "x"},
            "f": {"class": "cast", "dtype": "float32", "from": "n"},
            "probe": {"class": "combine", "kind": "add", "from": ["embed", "f"]},
        },
    ),
    probe(
        "step_index",
        {
            "i": {"class": "cast", "dtype": "float32", "from": ":i"},
            "probe": {"class": "combine", "kind": "add", "from": ["embed", "i"]},
        },
    ),
    probe(
        "expand_squeeze",
        {
            "y": {"class": "expand_dims", "axis": "spatial", "from": "embed"},
            "probe": {"class": "squeeze", "axis": "dim:1", "from": "y"},
        },
    ),
    probe(
        "reduce_B",
        {
            "y": {"class": "reduce", "mode": "mean", "axis": "B", "from": "embed"},
            "probe": {"class": "combine", "kind": "add", "from": ["embed", "y"]},
        },
        differs="a mean over the batch counts real frames only; RETURNN counts the padding too",
    ),
    probe(
        "eval_axis",
        {"probe": {"class": "eval", "eval": "tf.nn.softmax(source(0), axis=1)", "from": "embed"}},
        differs="axis=1 is the feature axis of the per-step view, also when the layer leaves the loop",
    ),
    probe(
        "merge_except_batch",
        {
            "y": {"class": "split_dims", "axis": "F", "dims": (2, 2), "from": "embed"},
            "probe": {"class": "merge_dims", "axes": "except_batch", "from": "y"},
        },
        behavior_version=0,
    ),
    probe(
        "window_symmetric",
        {
            "y": {"class": "window", "window_size": 3, "from": "embed"},
            "probe": {"class": "merge_dims", "axes": ["dim:3", "F"], "from": "y"},
        },
        differs="RETURNN's window looks into the padding of the shorter sequence; here it is zero there",
    ),
    probe(
        "window_causal",
        {
            "y": {"class": "window", "window_size": 3, "window_right": 0, "from": "embed"},
            "probe": {"class": "merge_dims", "axes": ["dim:3", "F"], "from": "y"},
        },
    ),
    probe(
        "self_attention_not_causal",
        {"probe": {"class": "self_attention", "num_heads": 1, "total_key_dim": 4, "n_out": 4, "from": "embed"}},
    ),
    probe("batch_norm", {"probe": {"class": "batch_norm", "masked_time": True, "from": "embed"}}),
    probe(
        "current_and_previous",
        {
            "probe": {"class": "combine", "kind": "sub", "from": ["z", "prev:z"]},
            "z": {**LINEAR, "n_out": 4, "from": "embed", "initial_output": 0},
        },
    ),
    probe(
        "current_and_previous_in_cycle",
        {
            "z": {**LINEAR, "n_out": 4, "from": "embed", "initial_output": 0},
            "probe": {
                "class": "linear",
                "activation": "tanh",
                "n_out": 4,
                "from": ["z", "prev:z", "prev:probe"],
                "initial_output": 0,
            },
        },
    ),
    probe(
        "mask_in_padding",
        {
            "mask": {"class": "compare", "kind": "less", "value": 5, "from": "output"},
            "y": {
                "class": "masked_computation",
                "mask": "mask",
                "from": "embed",
                "unit": {"class": "rec", "unit": "lstm", "n_out": 4, "from": "data"},
            },
            "probe": {"class": "unmask", "mask": "mask", "from": "y"},
        },
    ),
    probe("cumsum", {"probe": {"class": "cumsum", "from": "embed"}}),
]
