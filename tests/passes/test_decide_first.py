"""What only a decision needs is computed for the best hypothesis alone, with the same result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.ir.nodes import Node
from returnn_lite.ir.ops.search import Decide
from returnn_lite.verification.comparison import largest_real

EXTERN_DATA = {"data": {"dim": 3}, "classes": {"dim": 6, "sparse": True, "available_for_inference": False}}
X = np.random.default_rng(3).normal(size=(4, 5, 3)).astype("float32")
LENGTHS = [5, 3, 1, 2]
UNIT: dict[str, Any] = {
    "s": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 3, "from": ["prev:embed", "base:context"]},
    "prob": {"class": "softmax", "from": "s", "target": "classes"},
    "output": {"class": "choice", "target": "classes", "beam_size": 4, "from": "prob", "initial_output": 0},
    "embed": {"class": "linear", "activation": None, "from": "output", "n_out": 3, "initial_output": 0},
    "end": {"class": "compare", "from": "output", "value": 0},
    "lm": {"class": "rec", "unit": "nativelstm2", "n_out": 4, "from": "prev:embed"},
    "lm_prob": {"class": "softmax", "from": "lm", "n_out": 6},
    "score": {"class": "gather", "from": "lm_prob", "axis": "F", "position": "output", "is_output_layer": True},
}
DECIDE = {"class": "decide", "is_output_layer": True}
KNOWN = {key: layer for key, layer in UNIT.items() if key != "end"}


def network(unit: dict[str, Any] = UNIT, **behind: Any) -> dict[str, Any]:
    """A decoder with a second model, and what follows it."""
    loop = {"class": "rec", "from": [] if "end" in unit else "encoder", "target": "classes", "unit": unit}
    return {
        "encoder": {"class": "linear", "from": "data", "n_out": 3, "activation": "tanh"},
        "context": {"class": "reduce", "mode": "mean", "axis": "T", "from": "encoder"},
        "output": {**loop, **({"max_seq_len": 7} if "end" in unit else {})},
        **behind,
    }


def compiled(net: dict[str, Any], optimize: bool = True, seed: int = 0, spread: float = 1.5) -> rl.Network:
    """The network for searching, all its parameters drawn."""
    made = rl.compile(net, EXTERN_DATA, "search", optimize=optimize, behavior_version=21, target="classes")
    for name, variable in sorted(made.params.items()):
        variable.assign(np.random.default_rng(len(name) + seed).normal(0, spread, variable.shape))
    return made


def maker(net: rl.Network, layer: str) -> Node:
    """What the value of a layer comes from."""
    value = net.graph.outputs[f"layer:{layer}"]
    return next(node for node in net.graph.nodes if value in node.outputs)


def with_beam(net: rl.Network, layer: str) -> list[Node]:
    """What is computed for a layer, behind the loop, for every hypothesis."""
    nodes = [node for node in net.graph.nodes if node.origin.layer == layer]
    return [node for node in nodes if any("beam" in str(out.type) for out in node.outputs)]


NETWORKS = {
    "scores of a second model": network(sum={**DECIDE, "from": "output/score"}),
    "what follows outside": network(
        scaled={"class": "eval", "eval": "source(0) * 2 + 1", "from": "output/score"},
        smooth={"class": "window", "window_size": 3, "axis": "T", "from": "scaled"},
        sum={**DECIDE, "from": "smooth"},
    ),
    "an LSTM behind the loop, backwards": network(
        again={"class": "rec", "unit": "nativelstm2", "direction": -1, "n_out": 2, "from": "output/embed_seen"},
        sum={**DECIDE, "from": "again"},
        unit={**UNIT, "embed_seen": {"class": "copy", "from": "embed", "is_output_layer": True}},
    ),
    "by scores a label": network(sum={**DECIDE, "from": "output/score", "length_normalization": True}),
    "without the batch": network(
        {**UNIT, "output": {**UNIT["output"], "keep_beams": True}},
        over={"class": "reduce", "mode": "mean", "axis": "B", "from": "output/score"},
        sum={**DECIDE, "from": "over"},
    ),
    "a loop of known length": network(KNOWN, sum={**DECIDE, "from": "output/score"}),
    "two decisions": network(
        sum={**DECIDE, "from": "output/score"},
        labels={**DECIDE, "from": "output"},
        scaled={"class": "eval", "eval": "source(0) * 2", "from": "output/score"},
        twice={**DECIDE, "from": "scaled"},
    ),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_the_same_is_decided(case: str) -> None:
    assert_same_decided(NETWORKS[case])


@pytest.mark.parametrize("seed", [3, 5])
def test_over_the_batch_nothing_is_decided_first(seed: int) -> None:
    """Hypotheses of one rank meet there, and with these parameters the best is not the first of each sequence."""
    over = {"class": "cumsum", "axis": "B", "from": "output/score"}
    unit = {**UNIT, "output": {**UNIT["output"], "keep_beams": True}}
    assert_same_decided(network(unit, over=over, sum={**DECIDE, "from": "over"}), seed, spread=2.5)


def assert_same_decided(net: dict[str, Any], seed: int = 0, spread: float = 1.5) -> None:
    """What `decide` gives, with and without optimisation."""
    optimized, plain = (compiled(net, optimize, seed, spread) for optimize in (True, False))
    wanted = [name for name, layer in net.items() if layer["class"] == "decide"]
    expected = plain.run({"data": X}, {"data": LENGTHS}).layers
    found = optimized.run({"data": X}, {"data": LENGTHS}, wanted).layers
    assert sorted(found) == sorted(wanted)
    for name, output in found.items():
        assert largest_real(output, expected[name]).size < 1e-5
        assert {key.partition(":")[2]: list(length) for key, length in output.seq_lens.items()} == {
            key.partition(":")[2]: list(length) for key, length in expected[name].seq_lens.items()
        }


@pytest.mark.parametrize("case", ["scores of a second model", "a loop of known length", "by scores a label"])
def test_a_second_model_runs_for_the_best_hypothesis_alone(case: str) -> None:
    net = compiled({**NETWORKS[case], "output": {**NETWORKS[case]["output"], "is_output_layer": True}})
    assert not with_beam(net, "output/lm_prob")
    assert not with_beam(net, "output/lm")
    assert not isinstance(maker(net, "sum").op, Decide)


def test_what_others_need_is_computed_for_all_hypotheses() -> None:
    best = {"class": "reduce", "mode": "max", "axis": "T", "from": "output/score", "is_output_layer": True}
    net = compiled(network(sum={**DECIDE, "from": "output/score"}, best=best))
    assert with_beam(net, "output/lm_prob")
    assert isinstance(maker(net, "sum").op, Decide)
