"""Stored variables and hypotheses: statistics are those of data, what is kept for the next batch is the best one's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.compiler import ModeName

Layers = dict[str, Any]
EXTERN = {"data": {"dim": 3}, "classes": {"dim": 4, "sparse": True}}
LENGTHS = {"data": [4, 2, 3], "classes": [3, 4, 2]}
DRAWN = np.random.default_rng(7)
INPUTS = {"data": DRAWN.normal(size=(3, 4, 3)), "classes": DRAWN.integers(1, 4, (3, 4))}


def linear(source: str, **options: Any) -> Layers:
    return {"class": "linear", "activation": None, "n_out": 3, "from": source, **options}


def decoder(probe: Layers, around: Layers | None = None, **choice: Any) -> Layers:
    """Labels of which each depends on a probe of the state."""
    scores = {"class": "choice_get_beam_scores", "from": "output", "only_on_search": True, "is_output_layer": True}
    unit = {
        "output": {"class": "choice", "from": "p", "target": "classes", "beam_size": 3, "initial_output": 0, **choice},
        "embed": linear("prev:output"),
        "s": {"class": "combine", "kind": "add", "from": ["embed", "base:mean"]},
        "probe": {"from": "s", **probe},
        "p": {"class": "softmax", "from": "probe", "target": "classes", "loss": "ce"},
        "end": {"class": "compare", "from": "output", "value": 0},
    }
    return {
        "mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"},
        "output": {"class": "rec", "from": [], "target": "classes", "max_seq_len": 4, "unit": unit},
        "best": {"class": "decide", "from": "output", "is_output_layer": True},
        "scores": scores,
        **(around or {}),
    }


def compiled(network: Layers, mode: ModeName = "search", optimize: bool = True) -> Any:
    net = rl.compile(network, EXTERN, mode, behavior_version=0, optimize=optimize)
    for name in sorted(net.params):
        if "keep_" not in name:
            drawn = np.random.default_rng(sum(map(ord, name))).normal(size=net.params[name].shape)
            net.params[name].assign(np.abs(drawn) + 0.5 if "variance" in name else drawn)
    return net


NORMED = {
    "a layer with old defaults": {"class": "batch_norm"},
    "a layer of version 2": {"class": "batch_norm", "param_version": 2},
    "an option": {"class": "linear", "activation": None, "n_out": 3, "batch_norm": True},
    "statistics of the batch as far as there are any": {"class": "batch_norm", "force_sample": True},
}


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("probe", list(NORMED))
def test_hypotheses_are_normalised_with_running_statistics(probe: str, optimize: bool) -> None:
    """As with the new default, that search changes none."""
    layer = dict(NORMED[probe])
    options = {key: value for key, value in layer.items() if key in ("param_version", "batch_norm")}
    fixed = {**options.get("batch_norm", {})} if isinstance(options.get("batch_norm"), dict) else {}
    fixed |= {"update_sample_only_in_training": True, "delay_sample_update": True}
    other = {**layer, "batch_norm": fixed} if "batch_norm" in layer else {**layer, **fixed, "force_sample": False}
    results = []
    for network in (decoder(layer), decoder(other)):
        net = compiled(network, optimize=optimize)
        before = {name: variable.numpy() for name, variable in net.params.items()}
        out = net.run(INPUTS, seq_lens=LENGTHS)
        results.append(out.layers["scores"].value)
        for name, value in before.items():
            np.testing.assert_array_equal(net.params[name].numpy(), value)
    np.testing.assert_allclose(*results, rtol=1e-5)


def test_hypotheses_in_training() -> None:
    """Minimum-risk training changes no statistics of hypotheses either; without search it does."""
    risk = {
        "class": "copy",
        "from": "output",
        "target": "classes",
        "loss": "expected_loss",
        "loss_opts": {"loss": {"class": "edit_distance"}, "loss_kind": "error"},
    }
    for network, changes in ((decoder({"class": "batch_norm"}, {"risk": risk}, search=True), False),
                             (decoder({"class": "batch_norm"}), True)):  # fmt: skip
        net = compiled(network, "train")
        (mean,) = (variable for name, variable in net.params.items() if name.endswith("mean"))
        before = mean.numpy()
        net.run(INPUTS, seq_lens=LENGTHS)
        assert (mean.numpy() != before).any() == changes


KEPT: dict[str, Layers] = {
    "an LSTM": {"class": "rec", "unit": "lstm", "n_out": 3, "initial_state": "keep_over_epoch"},
    "a unit without a kernel": {"class": "rec", "unit": "zoneoutlstm", "n_out": 3, "initial_state": "keep_over_epoch"},
    "keys and values": {
        "class": "self_attention",
        "num_heads": 1,
        "total_key_dim": 2,
        "n_out": 3,
        "attention_left_only": True,
        "initial_state": "keep_over_epoch",
    },
    "the last frames' keys and values": {
        "class": "self_attention",
        "num_heads": 1,
        "total_key_dim": 2,
        "n_out": 3,
        "attention_left_only": True,
        "initial_state": "keep_over_epoch",
        "restrict_state_to_last_seq": True,
    },
    "the output of a loop": {
        "class": "rec",
        "unit": {
            "output": {
                "class": "linear",
                "activation": "tanh",
                "n_out": 3,
                "from": ["data:source", "prev:output"],
                "initial_output": "keep_over_epoch",
            }
        },
    },
    "a state of a loop": {
        "class": "rec",
        "unit": {
            "output": {
                "class": "rnn_cell",
                "unit": "lstm",
                "n_out": 3,
                "from": "data:source",
                "initial_state": "keep_over_epoch",
            }
        },
    },
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kept", list(KEPT))
def test_the_best_hypothesis_is_kept(kept: str) -> None:
    """Two batches: the second goes on from the best of the first, as if nothing but that had been there."""
    found = []
    for source in ("output", "best"):
        around = {
            "labels": {**linear(source), "n_out": 4},
            "e": {"class": "positional_encoding", "add_to_input": True, "from": "labels"},
            "after": {**KEPT[kept], "from": "e", "is_output_layer": True},
            "decided": {"class": "decide", "from": "after", "is_output_layer": True},
        }
        net = compiled(decoder({"class": "copy"}, around))
        found.append([net.run(INPUTS, seq_lens=LENGTHS).layers["decided"] for _ in range(2)])
    for of_all, of_best in zip(*found, strict=True):
        (lengths,), (own,) = of_all.seq_lens.values(), of_best.seq_lens.values()
        np.testing.assert_array_equal(lengths, own)
        for sequence, length in enumerate(lengths):
            np.testing.assert_allclose(
                of_all.value[sequence][:length], of_best.value[sequence][:length], rtol=1e-4, atol=1e-5
            )
    assert not np.allclose(found[0][1].value, found[1][0].value), "the first batch makes a difference"
