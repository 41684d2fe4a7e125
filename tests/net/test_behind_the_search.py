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
ATTENTION = {"class": "self_attention", "num_heads": 1, "total_key_dim": 2, "n_out": 3, "from": "data"}
HISTORY = {**ATTENTION, "attention_left_only": True}
DENSE = {"class": "linear", "n_out": 3, "activation": "tanh", "from": "data"}
LSTM = {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": "data"}
ODD = {"class": "compare", "kind": "not_equal", "from": "data", "value": 4, "initial_output": True}
AROUND = {
    "class": "subnetwork",
    "from": "data",
    "subnetwork": {
        "around": {"class": "window", "window_size": 3, "from": "data"},
        "output": {"class": "reduce", "mode": "sum", "axis": "stag:window", "from": "around"},
    },
}
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
    "looking ahead under a mask": {
        "m": {"class": "compare", "kind": "greater", "from": "output", "value": 2},
        "y": {"class": "masked_computation", "mask": "m", "from": "embed", "unit": ATTENTION, **SEEN},
    },
    "looking ahead under a mask of the step before": {
        "m": {"class": "compare", "kind": "greater", "from": "output", "value": 2, "initial_output": True},
        "y": {"class": "masked_computation", "mask": "prev:m", "from": "prev:embed", "unit": AROUND, **SEEN},
    },
    "looking ahead under a mask, read by others": {
        "m": {"class": "compare", "kind": "less", "from": "output", "value": 3},
        "held": {"class": "masked_computation", "mask": "m", "from": "s", "unit": AROUND},
        "y": {"class": "combine", "kind": "add", "from": ["held", "prev:held", "s"], **SEEN},
    },
    "looking ahead under masks in masks": {
        "m": {"class": "compare", "kind": "greater", "from": "output", "value": 1},
        "n": {"class": "compare", "kind": "less", "from": "output", "value": 4},
        "y": {
            "class": "masked_computation",
            "mask": "m",
            "from": "embed",
            "unit": {
                "class": "subnetwork",
                "from": "data",
                "subnetwork": {
                    "under": {"class": "masked_computation", "mask": "base:n", "from": "data", "unit": ATTENTION},
                    "output": {"class": "combine", "kind": "add", "from": ["under", "data"]},
                },
            },
            **SEEN,
        },
    },
    "a history under a mask": {
        "m": {"class": "compare", "kind": "greater", "from": "output", "value": 2},
        "y": {"class": "masked_computation", "mask": "m", "from": "embed", "unit": HISTORY, **SEEN},
    },
    "a history under a mask of the step before": {
        "m": {"class": "compare", "kind": "greater", "from": "output", "value": 2, "initial_output": False},
        "y": {"class": "masked_computation", "mask": "prev:m", "from": "embed", "unit": HISTORY, **SEEN},
    },
    "under a mask that is masked itself": {
        "m": {"class": "compare", "kind": "greater", "from": "output", "value": 2, "initial_output": False},
        "n": {"class": "masked_computation", "mask": "prev:m", "from": "output", "unit": ODD},
        "y": {"class": "masked_computation", "mask": "n", "from": "embed", "unit": LSTM, **SEEN},
    },
    "a layer that reads what is masked in the search": {
        "m": {"class": "compare", "kind": "greater", "from": "prev:output", "value": 2},
        "lm": {"class": "masked_computation", "mask": "m", "from": "prev:embed", "unit": LSTM},
        "prob": {**DECODER["prob"], "from": ["s", "lm"]},
        "y": {"class": "masked_computation", "mask": "m", "from": ["lm", "s"], "unit": ATTENTION, **SEEN},
    },
    "looking ahead beside what is masked in the search": {
        "m": {"class": "compare", "kind": "not_equal", "from": "output", "value": 0, "initial_output": False},
        "lm": {"class": "masked_computation", "mask": "prev:m", "from": "s", "unit": DENSE},
        "prob": {**DECODER["prob"], "from": ["s", "lm"]},
        "y": {"class": "masked_computation", "mask": "m", "from": "s", "unit": ATTENTION, **SEEN},
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
    rng = np.random.default_rng(10)  # hypotheses of 1 to 7 steps with labels below and above 3
    for name in sorted(net.params):
        net.params[name].assign(rng.normal(size=net.params[name].shape) * 2)
    net.params["decoder/rec/prob/b"].assign(np.add(rng.normal(size=6), [2, 0, 0, 0, 0, 0]))
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
    behind = ("decoder/y/", "decoder/held/")
    assert not [node.op.label for node in searches(net) if f"{node.origin.layer}/".startswith(behind)]
    for layer, expected in plain.layers.items():
        found = optimized.layers[layer]
        order = [found.dims.index(dim) for dim in expected.dims]
        np.testing.assert_allclose(np.transpose(found.value, order), expected.value, atol=1e-5, err_msg=layer)
        for dim, lengths in expected.seq_lens.items():
            np.testing.assert_array_equal(found.seq_lens[dim], lengths)


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("name", ["looking ahead under a mask", "looking ahead beside what is masked in the search"])
def test_without_other_outputs_it_is_the_same(name: str, optimize: bool) -> None:
    """Then all that is behind the search may be masked."""
    net, everything = searched(BEHIND[name], optimize)
    alone = net.run({"data": X}, {"data": LENGTHS}, ["decoder/y", "output"]).layers
    assert set(alone) == {"decoder/y", "output"}
    for layer, found in alone.items():
        np.testing.assert_allclose(found.value, everything.layers[layer].value, atol=1e-5, err_msg=layer)


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


@pytest.mark.parametrize("optimize", [True, False])
def test_what_looks_ahead_under_a_mask_sees_the_masked_frames_of_its_hypothesis(optimize: bool) -> None:
    """Each masked frame with its neighbours among them; in between the sum is held."""
    mask = {"class": "compare", "kind": "greater", "from": "output", "value": 2}
    unit = {"m": mask, "y": {"class": "masked_computation", "mask": "m", "from": "embed", "unit": AROUND, **SEEN}}
    _, out = searched(unit, optimize)
    layers = {name: out.layers[f"decoder/{name}"] for name in ("output", "embed", "y")}
    beam = next(dim for dim in layers["y"].dims if "beam" in dim)
    order = ["B", beam, "decoder:time"]
    label, embed, y = (
        np.moveaxis(layer.value, [layer.dims.index(dim) for dim in order], [0, 1, 2]) for layer in layers.values()
    )
    lengths = layers["output"].seq_lens["decoder:time"]
    assert len({*lengths.flatten()}) > 3, "hypotheses end at different steps"
    masked_steps = 0
    for place in np.ndindex(lengths.shape):
        steps = [step for step in range(lengths[place]) if label[place][step] > 2]
        masked_steps += len(steps)
        for step in range(lengths[place]):
            seen = [k for k, other in enumerate(steps) if other <= step]
            around = steps[max(0, seen[-1] - 1) : seen[-1] + 2] if seen else []
            np.testing.assert_allclose(y[place][step], embed[place][around].sum(0), atol=1e-5)
    assert masked_steps > 5


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("needs", ["choice", "end"])
def test_where_the_search_needs_what_looks_ahead_the_error_names_the_cycle(needs: str, optimize: bool) -> None:
    mask = {"class": "compare", "kind": "greater", "from": "prev:output", "value": 2}
    unit = {"m": mask, "y": {"class": "masked_computation", "mask": "m", "from": "prev:embed", "unit": AROUND}}
    if needs == "choice":
        unit["prob"] = {**DECODER["prob"], "from": ["s", "y"]}
        cycle = "decoder/prob -> decoder/output -> decoder/m -> decoder/y/unit/around"
    else:
        unit["sum"] = {"class": "reduce", "mode": "sum", "axis": "F", "from": "y"}
        unit["end"] = {"class": "compare", "kind": "greater", "from": "sum", "value": 0}
        cycle = "decoder/y/unit/around -> decoder/y/unit/output -> decoder/sum -> decoder/end"
    with pytest.raises(rl.ConfigError) as error:
        searched(unit, optimize)
    text = str(error.value)
    assert "network.decoder.unit.y.unit.subnetwork.around" in text
    assert cycle in text
    assert "window_right: 0" in text


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("masked", [False, True])
def test_what_looks_ahead_at_the_steps_of_a_search_is_in_a_cycle_with_its_end(masked: bool, optimize: bool) -> None:
    """It reads nothing that was chosen; but how many steps there are is known when the hypotheses have ended."""
    unit: dict[str, Any] = {
        "number": {"class": "cast", "dtype": "float32", "from": ":i"},
        "step": {"class": "expand_dims", "axis": "F", "from": "number"},
        "late": {"class": "compare", "kind": "greater", "from": ":i", "value": 1},
        "y": {**ATTENTION, "from": "step"},
        "prob": {**DECODER["prob"], "from": ["s", "y"]},
    }
    if masked:
        unit["y"] = {"class": "masked_computation", "mask": "late", "from": "step", "unit": ATTENTION}
    with pytest.raises(rl.ConfigError, match=r"decoder/prob -> decoder/output -> decoder/end -> decoder/y.*left_only"):
        searched(unit, optimize)


BESIDE = {
    "a history": {**ATTENTION, "attention_left_only": True},
    "looking ahead": ATTENTION,
    "a window": AROUND,
    "a recurrence": LSTM,
}


@pytest.mark.parametrize("unit", BESIDE.values(), ids=BESIDE)
def test_what_is_masked_and_no_choice_changes_runs_before_the_search(unit: dict[str, Any]) -> None:
    """On the masked frames, as in training; the search reads what is held."""
    network = {
        "output": {
            "class": "rec",
            "from": "data",
            "target": "classes",
            "unit": {
                "sum": {"class": "reduce", "mode": "sum", "axis": "F", "from": "data:source"},
                "m": {"class": "compare", "kind": "greater", "from": "sum", "value": 0},
                "y": {"class": "masked_computation", "mask": "m", "from": "data:source", "unit": unit, **SEEN},
                "embed": {"class": "linear", "activation": None, "n_out": 2, "from": "prev:output"},
                "prob": {"class": "softmax", "from": ["y", "embed"], "target": "classes"},
                "output": {**DECODER["output"], "length_normalization": False},
                "back": {"class": "masked_computation", "mask": "m", "from": ["y", "embed"], "unit": LSTM, **SEEN},
            },
        }
    }
    classes = {**EXTERN_DATA["classes"], "available_for_inference": False, "same_dim_tags_as": {"t": "data"}}
    found = []
    for optimize in (True, False):
        net = rl.compile(
            network, EXTERN_DATA | {"classes": classes}, mode="search", behavior_version=21, optimize=optimize
        )
        for name in sorted(net.params):
            net.params[name].assign(np.random.default_rng(len(name)).normal(size=net.params[name].shape))
        found.append(net.run({"data": X}, {"data": LENGTHS}).layers)
        if optimize:
            assert not [node for node in searches(net) if f"{node.origin.layer}/".startswith("output/y/")]
    for name in ("output", "output/y", "output/back"):
        optimized, plain = found[0][name], found[1][name]
        order = [optimized.dims.index(dim) for dim in plain.dims]
        np.testing.assert_allclose(np.transpose(optimized.value, order), plain.value, atol=1e-5, err_msg=name)
