"""Networks whose speed depends on what leaves the loop, for returnn_lite and RETURNN alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networks

Net = dict[str, Any]
MakeDim = Callable[[str, int | None], Any]
"""A new spatial dim of a name and a size, dynamic without a size; each peer has a class of its own for it."""

TRANSDUCER = {"batch": 32, "frames": 100, "vocabulary": 500, "input": 64, "hidden": 256, "embed": 128, "label": 512}
BLANK = 0
BEAM = 12
LABELS = {"batch": 32, "time": 60, "steps": 30}
LANGUAGE_MODEL = 512
_LINEAR = {"class": "linear", "activation": None, "with_bias": False}


def masked_label_model() -> Net:
    """Example D of SEMANTICS 3.10: the label model is an LSTM that runs only where the label before was no blank."""
    size = TRANSDUCER
    unit = {
        "output": {
            "class": "choice", "from": "output_prob", "target": "classes", "beam_size": BEAM, "initial_output": BLANK,
        },
        "emitted": {"class": "compare", "from": "output", "kind": "not_equal", "value": BLANK, "initial_output": True},
        "embed": {**_LINEAR, "from": "output", "n_out": size["embed"], "initial_output": 0},
        "label_masked": {
            "class": "masked_computation", "mask": "prev:emitted", "from": "prev:embed",
            "unit": {"class": "rec", "unit": "nativelstm2", "n_out": size["label"]},
        },
        "label_model": {"class": "unmask", "from": "label_masked", "mask": "prev:emitted"},
        "readout": {
            "class": "linear", "from": ["data:source", "label_model"], "n_out": size["hidden"], "activation": "tanh",
        },
        "output_prob": {"class": "softmax", "from": "readout", "target": "classes", "loss": "ce"},
    }  # fmt: skip
    return {
        "encoder": {"class": "linear", "from": "data", "n_out": size["hidden"], "activation": "tanh"},
        "output": {"class": "rec", "from": "encoder", "target": "classes", "unit": unit},
        "decision": {"class": "decide", "from": "output", "only_on_search": True, "is_output_layer": True},
    }


def _block(name: str, source: str, make_dim: MakeDim) -> Net:
    model, heads = networks.MODEL, networks.HEADS
    head = make_dim(f"{name}_heads", heads)
    keys, values = make_dim(f"{name}_keys", model // heads), make_dim(f"{name}_values", model // heads)
    split = {"class": "split_dims", "axis": "F"}
    seen = {"class": "cum_concat", "out_spatial_dim": make_dim(f"{name}_history", None)}
    return {
        f"{name}_norm": {"class": "layer_norm", "from": source},
        **{f"{name}_{x}0": {**_LINEAR, "from": f"{name}_norm", "n_out": model} for x in "qkv"},
        f"{name}_q": {**split, "dims": [head, keys], "from": f"{name}_q0"},
        f"{name}_k": {**split, "dims": [head, keys], "from": f"{name}_k0"},
        f"{name}_v": {**split, "dims": [head, values], "from": f"{name}_v0"},
        f"{name}_keys": {**seen, "from": f"{name}_k"},
        f"{name}_values": {**seen, "from": f"{name}_v"},
        f"{name}_e": {"class": "dot", "from": [f"{name}_q", f"{name}_keys"], "reduce": keys},
        f"{name}_w": {
            "class": "softmax_over_spatial", "axis": f"stag:{name}_history", "from": f"{name}_e",
            "energy_factor": 0.125,
        },
        f"{name}_att0": {"class": "dot", "from": [f"{name}_w", f"{name}_values"], "reduce": f"stag:{name}_history"},
        f"{name}_att": {"class": "merge_dims", "axes": [head, values], "from": f"{name}_att0"},
        f"{name}_lin": {**_LINEAR, "from": f"{name}_att", "n_out": model},
        f"{name}_a": {"class": "combine", "kind": "add", "from": [source, f"{name}_lin"]},
        f"{name}_norm2": {"class": "layer_norm", "from": f"{name}_a"},
        f"{name}_ff1": {"class": "linear", "from": f"{name}_norm2", "n_out": 4 * model, "activation": "relu"},
        f"{name}_ff2": {**_LINEAR, "from": f"{name}_ff1", "n_out": model},
        name: {"class": "combine", "kind": "add", "from": [f"{name}_a", f"{name}_ff2"]},
    }  # fmt: skip


def cum_concat_attention(make_dim: MakeDim) -> Net:
    """A decoder of two blocks with self-attention made of cum_concat, over an average of encoder frames."""
    unit: Net = {
        "output": {
            "class": "choice", "from": "output_prob", "target": "classes", "beam_size": BEAM, "initial_output": 0,
        },
        "end": {"class": "compare", "from": "output", "kind": "equal", "value": -1},
        "embed": {**_LINEAR, "from": "prev:output", "n_out": networks.MODEL},
        "start": {"class": "combine", "kind": "add", "from": ["base:context", "embed"]},
        **_block("b1", "start", make_dim),
        **_block("b2", "b1", make_dim),
        "output_prob": {"class": "softmax", "from": "b2", "target": "classes", "loss": "ce"},
    }  # fmt: skip
    return {
        "encoder": {"class": "linear", "from": "data", "n_out": networks.MODEL, "activation": "tanh"},
        "context": {"class": "reduce", "mode": "mean", "axis": "T", "from": "encoder"},
        "output": {"class": "rec", "from": [], "target": "classes", "unit": unit, "max_seq_len": LABELS["steps"]},
        "decision": {"class": "decide", "from": "output", "only_on_search": True, "is_output_layer": True},
    }


def second_model() -> Net:
    """The attention decoder with a language model beside it that scores the chosen labels and feeds nothing back."""
    net = networks.attention()
    net["output"]["unit"] |= {
        "lm_embed": {**_LINEAR, "from": "prev:output", "n_out": networks.SEQ2SEQ["embed"]},
        "lm": {"class": "rec", "unit": "nativelstm2", "from": "lm_embed", "n_out": LANGUAGE_MODEL},
        "lm_log_prob": {
            **_LINEAR, "from": "lm", "n_out": networks.SEQ2SEQ["vocabulary"], "activation": "log_softmax",
        },
        "lm_score": {
            "class": "gather", "from": "lm_log_prob", "axis": "F", "position": "output", "is_output_layer": True,
        },
    }  # fmt: skip
    return {**net, "lm_scores": {"class": "decide", "from": "output/lm_score", "is_output_layer": True}}
