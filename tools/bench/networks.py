"""The networks of the benchmarks as network dicts, the same for returnn_lite and RETURNN; and their random data."""

from __future__ import annotations

import random
from typing import Any

LSTM = {"batch": 32, "time": 100, "input": 256, "hidden": 512}
SEQ2SEQ = {"batch": 32, "source": 40, "target": 20, "vocabulary": 500, "input": 64, "hidden": 256, "embed": 128}
SEARCH = {"batch": 8, "beam": 12, "steps": 20}
HEADS, MODEL = 4, 256


def lstm() -> dict[str, Any]:
    """One LSTM layer with the sum of its outputs as the loss."""
    return {
        "lstm": {"class": "rec", "unit": "nativelstm2", "from": "data", "n_out": LSTM["hidden"]},
        "output": {"class": "copy", "from": "lstm", "loss": "as_is"},
    }


def attention() -> dict[str, Any]:
    """Example A of SEMANTICS 3.10: an LSTM decoder with MLP attention over given encoder frames."""
    hidden, embed = SEQ2SEQ["hidden"], SEQ2SEQ["embed"]
    unit = {
        "output": {"class": "choice", "from": "output_prob", "target": "classes", "beam_size": 12, "initial_output": 0},
        "end": {"class": "compare", "from": "output", "kind": "equal", "value": -1},
        "embed": {"class": "linear", "from": "output", "n_out": embed, "activation": None, "initial_output": 0},
        "s": {"class": "rnn_cell", "unit": "LSTMBlock", "from": ["prev:embed", "prev:att"], "n_out": hidden},
        "s_tr": {"class": "linear", "from": "s", "n_out": hidden, "activation": None, "with_bias": False},
        "e_in": {"class": "combine", "kind": "add", "from": ["base:enc_ctx", "s_tr"]},
        "e_tanh": {"class": "activation", "activation": "tanh", "from": "e_in"},
        "e": {"class": "linear", "from": "e_tanh", "n_out": 1, "activation": None, "with_bias": False},
        "w": {"class": "softmax_over_spatial", "from": "e"},
        "att0": {"class": "generic_attention", "weights": "w", "base": "base:encoder"},
        "att": {"class": "merge_dims", "axes": "except_batch", "from": "att0"},
        "readout": {"class": "linear", "from": ["s", "prev:embed", "att"], "n_out": hidden, "activation": "relu"},
        "output_prob": {"class": "softmax", "from": "readout", "target": "classes", "loss": "ce"},
    }
    return {
        "encoder": {"class": "linear", "from": "data", "n_out": hidden, "activation": "tanh"},
        "enc_ctx": {"class": "linear", "from": "encoder", "n_out": hidden, "activation": None},
        "output": {
            "class": "rec", "from": [], "target": "classes", "unit": unit, "max_seq_len": SEARCH["steps"],
            "include_eos": True,
        },
        "decision": {"class": "decide", "from": "output", "only_on_search": True, "is_output_layer": True},
    }  # fmt: skip


def _block(name: str, source: str) -> dict[str, Any]:
    linear = {"class": "linear", "activation": None, "with_bias": False, "n_out": MODEL}
    return {
        f"{name}_norm": {"class": "layer_norm", "from": source},
        f"{name}_self": {
            "class": "self_attention", "from": f"{name}_norm", "num_heads": HEADS, "total_key_dim": MODEL,
            "n_out": MODEL, "attention_left_only": True,
        },
        f"{name}_lin": {**linear, "from": f"{name}_self"},
        f"{name}_a": {"class": "combine", "kind": "add", "from": [source, f"{name}_lin"]},
        f"{name}_norm2": {"class": "layer_norm", "from": f"{name}_a"},
        f"{name}_q0": {**linear, "from": f"{name}_norm2"},
        f"{name}_q": {"class": "split_dims", "from": f"{name}_q0", "axis": "F", "dims": [HEADS, MODEL // HEADS]},
        f"{name}_e": {
            "class": "dot", "from": [f"base:{name}_k", f"{name}_q"], "red1": "F", "red2": "F",
            "var1": "T", "var2": "T?",
        },
        f"{name}_w": {"class": "softmax_over_spatial", "from": f"{name}_e", "energy_factor": 0.125},
        f"{name}_att0": {"class": "generic_attention", "weights": f"{name}_w", "base": f"base:{name}_v"},
        f"{name}_att": {"class": "merge_dims", "axes": "static", "from": f"{name}_att0"},
        f"{name}_b": {"class": "combine", "kind": "add", "from": [f"{name}_a", f"{name}_att"]},
        f"{name}_norm3": {"class": "layer_norm", "from": f"{name}_b"},
        f"{name}_ff1": {"class": "linear", "from": f"{name}_norm3", "n_out": 4 * MODEL, "activation": "relu"},
        f"{name}_ff2": {"class": "linear", "from": f"{name}_ff1", "n_out": MODEL, "activation": None},
        name: {"class": "combine", "kind": "add", "from": [f"{name}_b", f"{name}_ff2"]},
    }  # fmt: skip


def transformer() -> dict[str, Any]:
    """Example B: a Transformer decoder of two blocks over given encoder frames."""
    unit: dict[str, Any] = {
        "output": {"class": "choice", "from": "output_prob", "target": "classes", "beam_size": 12, "initial_output": 0},
        "end": {"class": "compare", "from": "output", "kind": "equal", "value": -1},
        "embed": {"class": "linear", "from": "prev:output", "n_out": MODEL, "activation": None},
        **_block("b1", "embed"),
        **_block("b2", "b1"),
        "output_prob": {"class": "softmax", "from": "b2", "target": "classes", "loss": "ce"},
    }
    net: dict[str, Any] = {"encoder": {"class": "linear", "from": "data", "n_out": MODEL, "activation": "tanh"}}
    for block in ("b1", "b2"):
        for kind in ("k", "v"):
            net[f"{block}_{kind}0"] = {"class": "linear", "from": "encoder", "n_out": MODEL, "activation": None}
            net[f"{block}_{kind}"] = {
                "class": "split_dims", "from": f"{block}_{kind}0", "axis": "F", "dims": [HEADS, MODEL // HEADS],
            }  # fmt: skip
    net["output"] = {"class": "rec", "from": [], "target": "classes", "unit": unit, "max_seq_len": SEARCH["steps"]}
    return net


def lengths(batch: int, longest: int, seed: int = 1) -> list[int]:
    """Sequence lengths between half and the whole of the longest, the first being the longest."""
    generator = random.Random(seed)
    return [longest, *(generator.randint(longest // 2, longest) for _ in range(batch - 1))]
