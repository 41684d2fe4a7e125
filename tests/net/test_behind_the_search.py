"""What neither a choice nor the end of the loop needs runs behind the search, with the same result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.ir import InLoop, Loop, Node

EXTERN_DATA = {"data": {"dim": 3}, "classes": {"dim": 6, "sparse": True}}
X = np.random.default_rng(1).normal(size=(3, 4, 3)).astype("float32")
LENGTHS = [4, 2, 1]
DECODER: dict[str, Any] = {
    "s": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 3, "from": ["prev:embed", "base:context"]},
    "prob": {"class": "softmax", "from": "s", "target": "classes", "loss": "ce"},
    "output": {"class": "choice", "target": "classes", "beam_size": 3, "from": "prob", "initial_output": 0},
    "embed": {"class": "linear", "activation": None, "from": "output", "n_out": 3, "initial_output": 0},
    "end": {"class": "compare", "from": "output", "value": 0},
}
SEEN = {"is_output_layer": True}
SECOND_MODEL = {
    "lm": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 4, "from": "prev:embed"},
    "lm_prob": {"class": "softmax", "from": "lm", "n_out": 6},
    "y": {"class": "gather", "from": "lm_prob", "axis": "F", "position": "output", **SEEN},
}
BEHIND: dict[str, dict[str, Any]] = {
    "scores of a second model": SECOND_MODEL,
    "a cycle of its own": {
        "y": {"class": "eval", "eval": "source(0) * 0.9 + source(1)", "from": ["prev:y", "s"], **SEEN}
    },
    "the steps counted": {"y": {"class": "combine", "kind": "add", "from": [":i", "output"], "n_out": None, **SEEN}},
    "only the steps": {"y": {"class": "copy", "from": ":i", **SEEN}},
    "self-attention": {
        "y": {
            "class": "self_attention",
            "from": "embed",
            "num_heads": 1,
            "total_key_dim": 2,
            "n_out": 2,
            "attention_left_only": True,
            **SEEN,
        }
    },
    "under a mask": {
        "m": {"class": "compare", "kind": "greater", "from": "output", "value": 2},
        "y": {"class": "masked_computation", "mask": "m", "from": "embed", "unit": {"class": "cumsum"}, **SEEN},
    },
    "attention of the decoder": {
        "e": {"class": "dot", "from": ["base:data", "embed"], "red1": "F", "red2": "F", "var1": "T", "var2": None},
        "w": {"class": "softmax_over_spatial", "from": "e"},
        "y": {"class": "generic_attention", "weights": "w", "base": "base:data", **SEEN},
    },
}
del BEHIND["the steps counted"]["y"]["n_out"]


def searched(unit: dict[str, Any], optimize: bool) -> tuple[rl.Network, Any]:
    network = {
        "context": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"},
        "decoder": {"class": "rec", "from": [], "unit": DECODER | unit, "target": "classes", "max_seq_len": 7},
        "output": {"class": "decide", "from": "decoder"},
    }
    net = rl.compile(network, extern_data=EXTERN_DATA, mode="search", behavior_version=21, optimize=optimize)
    rng = np.random.default_rng(0)
    for name in sorted(net.params):
        net.params[name].assign(rng.normal(size=net.params[name].shape) * 2)
    return net, net.run({"data": X}, {"data": LENGTHS})


def searches(net: rl.Network) -> Iterator[Node]:
    """The nodes of the loops that search."""
    for node in net.graph.nodes:
        if isinstance(node.op, Loop) and any(inner.op.in_loop is InLoop.BEAM for inner in node.op.body):
            yield from node.op.body


@pytest.mark.parametrize("name", BEHIND)
def test_it_leaves_the_search(name: str) -> None:
    """The same for each hypothesis as step by step; the search loop has none of it."""
    net, optimized = searched(BEHIND[name], optimize=True)
    _, plain = searched(BEHIND[name], optimize=False)
    assert not [node.op.label for node in searches(net) if node.origin.layer == "decoder/y"]
    for layer, expected in plain.layers.items():
        found = optimized.layers[layer]
        order = [found.dims.index(dim) for dim in expected.dims]
        np.testing.assert_allclose(np.transpose(found.value, order), expected.value, atol=1e-5, err_msg=layer)
        for dim, lengths in expected.seq_lens.items():
            np.testing.assert_array_equal(found.seq_lens[dim], lengths)


@pytest.mark.parametrize("optimize", [True, False])
def test_what_looks_ahead_runs_behind_the_search(optimize: bool) -> None:
    """A window over the labels around each of them: in a step of the search the following ones are not there yet."""
    window = {"class": "window", "window_size": 3, "from": "embed"}
    unit = {"around": window, "y": {"class": "reduce", "mode": "sum", "axis": "stag:window", "from": "around", **SEEN}}
    _, out = searched(unit, optimize)
    embed, y = out.layers["decoder/embed"], out.layers["decoder/y"]
    assert embed.dims == y.dims
    frames = np.moveaxis(embed.value, embed.dims.index("decoder:time"), 0)
    padded = np.concatenate([np.zeros_like(frames[:1]), frames, np.zeros_like(frames[:1])])
    expected = np.moveaxis(padded[:-2] + padded[1:-1] + padded[2:], 0, embed.dims.index("decoder:time"))
    real = np.moveaxis(embed.value, embed.dims.index("decoder:time"), 2) != 0
    np.testing.assert_allclose(
        np.moveaxis(y.value, embed.dims.index("decoder:time"), 2)[real],
        np.moveaxis(expected, embed.dims.index("decoder:time"), 2)[real],
        atol=1e-5,
    )
