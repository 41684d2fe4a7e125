"""A choice among the frames of a sequence: there are as many classes as it has frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.compiler import build, optimized
from returnn_lite.ir import Loop
from tests.properties.running import part_of, run, sequence_of
from tests.reference.named import Named

Layers = dict[str, Any]
EXTERN = {"data": {"dim": 3}, "classes": {"dim": 4, "sparse": True, "available_for_inference": False}}
LENGTHS = {"data": np.array([4, 1, 2]), "classes": np.array([1, 1, 1])}
FEED = {"data": np.random.default_rng(2).normal(size=(3, 4, 3)), "classes": np.zeros((3, 1), int)}


def pointing(**choice: Any) -> Layers:
    """Three frames, each by its energy and the number of the frame before."""
    unit = {
        "number": {"class": "cast", "dtype": "float32", "from": "prev:output"},
        "step": {"class": "eval", "eval": "source(0) * (1.0 + source(1))", "from": ["base:energy", "number"]},
        "w": {"class": "softmax_over_spatial", "axis": "T", "from": "step"},
        "r": {"class": "reinterpret_data", "from": "w", "set_axes": {"F": "T"}},
        "output": {"class": "choice", "from": "r", "target": None, "beam_size": 3, "initial_output": 0, **choice},
        "end": {"class": "compare", "from": "output", "value": -1},
    }
    return {
        "vector": {"class": "linear", "n_out": 1, "activation": None, "from": "data"},
        "energy": {"class": "squeeze", "axis": "F", "from": "vector"},
        "output": {"class": "rec", "from": [], "max_seq_len": 3, "unit": unit},
        "scores": {"class": "choice_get_beam_scores", "from": "output", "is_output_layer": True},
    }


def best(energy: np.ndarray, steps: int = 3, beam: int = 3) -> list[tuple[float, tuple[int, ...]]]:
    """The hypotheses of one sequence with their sums of scores."""
    hypotheses: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for _ in range(steps):
        children = []
        for score, labels in hypotheses:
            logits = energy * (1.0 + (labels[-1] if labels else 0))
            log_p = logits - np.log(np.exp(logits).sum())
            children += [(score + log_p[label], (*labels, label)) for label in range(len(energy))]
        hypotheses = sorted(children, key=lambda child: -child[0])[:beam]
    return hypotheses


@pytest.mark.parametrize("optimize", [True, False])
def test_the_best_frames(optimize: bool) -> None:
    """No sequence chooses frames that it has not, with TensorFlow as on paper."""
    net = rl.compile(
        pointing(length_normalization=False), EXTERN, "search", behavior_version=21, optimize=optimize, dtype="float64"
    )
    weights = np.random.default_rng(3).normal(size=(3, 1))
    net.params["vector/W"].assign(weights)
    net.params["vector/b"].assign([0.25])
    out = net.run({"data": FEED["data"]}, seq_lens={"data": LENGTHS["data"]}).layers
    for sequence, length in enumerate(LENGTHS["data"]):
        energy = (FEED["data"][sequence][:length] @ weights)[:, 0] + 0.25
        for number, (score, labels) in enumerate(best(energy)):
            np.testing.assert_allclose(out["scores"].value[sequence, number], score, rtol=1e-6)
            assert tuple(out["output"].value[sequence, number]) == labels


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("choice", [{}, {"keep_beams": True}, {"beam_size": 6}], ids=str)
def test_a_batch_is_its_sequences(choice: Layers, optimize: bool) -> None:
    config = {"network": pointing(**choice), "extern_data": EXTERN, "behavior_version": 21}
    built = build(config, "search", targets=False)
    graph = optimized(built, optimize)
    together = run(built, graph, FEED, LENGTHS)
    for sequence in range(3):
        alone = run(built, graph, *sequence_of(FEED, LENGTHS, sequence))
        for name in ("layer:output", "scores:output"):
            one = Named(alone[name].over(together[name].dims), together[name].dims)
            np.testing.assert_allclose(part_of(together[name], sequence, one), part_of(one, 0, one))


def test_the_choice_before_is_one_of_the_same_frames() -> None:
    """`prev:` of it numbers what the choice itself does: a step can read the frame that was chosen before."""
    layers = pointing()
    built = build({"network": layers, "extern_data": EXTERN, "behavior_version": 21}, "search", targets=False)
    (loop,) = [node.op for node in built.graph.nodes if isinstance(node.op, Loop)]
    (label,) = [state for state in loop.states if state.previous == "output/output"]
    assert label.now.type.sparse is label.next.type.sparse is built.extern_data.entries["data"].type.time


@pytest.mark.parametrize("optimize", [True, False])
def test_the_choice_before_among_classes_is_embedded(optimize: bool) -> None:
    """A choice without target: its classes are those of the scores, in the step before, too."""
    unit = {
        "embedded": {"class": "linear", "n_out": 3, "activation": "tanh", "from": "prev:output"},
        "prob": {"class": "softmax", "n_out": 5, "from": ["embedded", "base:mean"]},
        "output": {"class": "choice", "from": "prob", "target": None, "beam_size": 2, "initial_output": 1},
        "end": {"class": "compare", "from": "output", "value": 0},
    }
    network = {
        "mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"},
        "output": {"class": "rec", "from": [], "max_seq_len": 3, "unit": unit},
    }
    built = build({"network": network, "extern_data": EXTERN, "behavior_version": 21}, "search", targets=False)
    assert [dim.size for dim in built.parameters["output/rec/embedded/W"].dims] == [5, 3]
    graph = optimized(built, optimize)
    together = run(built, graph, FEED, LENGTHS)["layer:output"]
    for sequence in range(3):
        alone = run(built, graph, *sequence_of(FEED, LENGTHS, sequence))["layer:output"]
        one = Named(alone.over(together.dims), together.dims)
        np.testing.assert_allclose(part_of(together, sequence, one), part_of(one, 0, one))
