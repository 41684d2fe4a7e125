"""Beam search in a loop, against search written down directly."""

from __future__ import annotations

import numpy as np
import pytest

from returnn_lite.dims import DimKind, Symbol, TensorType
from returnn_lite.ir import Ending, Graph, Search, Value
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.axes import Expand
from returnn_lite.ir.ops.elementwise import Cast
from returnn_lite.ir.ops.indexing import Gather
from returnn_lite.ir.ops.reduction import Softmax
from returnn_lite.ir.ops.search import BeamGather, Choose, Decide, FirstBeam, ScoreRule
from returnn_lite.ir.ops.sources import StepIndex
from returnn_lite.tf.executable import Executable
from tests.tf.network import B, apply, array, feature

MAX_STEPS = 6
Hypothesis = tuple[float, tuple[int, ...], bool]


class LabelSearch:
    """A search over label sequences of a Markov chain; label 0 ends one. Its dims, and the executable."""

    def __init__(self, beam_size: int, labels: int, rule: ScoreRule, include_end: bool = False) -> None:
        self.classes, self.previous = feature("classes", labels), feature("previous", labels)
        self.beam = Symbol("beam", DimKind.BEAM, beam_size)
        self.steps, self.best = Symbol("steps", varies_over=(B, self.beam)), Symbol("best", varies_over=(B,))
        self.rule = rule
        self.graph = self._graph(include_end)
        self.executable = Executable(self.graph, B, "float64")

    def _graph(self, include_end: bool) -> Graph:
        b = Builder()
        logits = b.input("logits", TensorType((B, self.previous, self.classes)))
        drift = b.input("drift", TensorType((self.classes,)))
        first = b.constant(0, "int32", (B, self.beam), sparse=self.classes)
        scores = b.apply(Expand((B,)), b.apply(FirstBeam(self.beam, explicit=True)))
        running = b.constant(False, "bool", (B, self.beam))
        bound = b.constant(MAX_STEPS, "int32")
        b.open_loop(self.steps)
        label, score = b.delay("label", first.type, first), b.delay("score", scores.type, scores)
        ended = b.delay("ended", running.type, running)
        index = b.apply(StepIndex())
        # Without a part that differs from step to step, the same transitions in another order would tie.
        moved = apply(b, "mul", b.apply(Cast("float32"), index), drift)
        total = apply(b, "add", b.apply(Gather(self.previous), logits, label.now), moved)
        log_p = b.apply(Softmax(self.classes, log=True), total)
        choice = Choose(self.classes, self.beam, self.rule, explicit=True)
        label.next, pointers, score.next = b.emit(choice, log_p, score.now, ended.now, index)
        before = b.apply(BeamGather(self.beam), ended.now, pointers)
        is_end: Value = apply(b, "equal", label.next, b.constant(0, "int32", sparse=self.classes))
        ended.next = apply(b, "logical_or", before, is_end)
        ending = Ending(ended.next, bound, include_end)
        outputs = b.close_loop([("labels", label.next)], [("scores", score.next)], ending, Search(pointers, ended.now))
        decide = Decide(self.beam, ((self.steps, self.best),))
        best = b.apply(decide, outputs["labels"], outputs["scores"])
        return b.graph(outputs | {"best": best})


def expected(logits: np.ndarray, drift: np.ndarray, beam: int, rule: ScoreRule, steps: int) -> list[Hypothesis]:
    hypotheses: list[Hypothesis] = [(0.0, (), False)]
    for t in range(steps):
        moved = logits + t * drift
        log_p = moved - np.log(np.exp(moved).sum(-1, keepdims=True))
        children: list[tuple[float, int, tuple[int, ...], bool]] = []
        for number, (score, labels, ended) in enumerate(hypotheses):
            own = []
            for label in range(len(log_p)):
                step = (0.0 if label == 0 else -1e30) if ended else log_p[labels[-1] if labels else 0, label]
                total = rule.prob_scale * step + rule.base_scale * score
                own.append((total, number * len(log_p) + label, (*labels, label), ended or label == 0))
            children += [max(own, key=lambda child: (child[0], -child[1]))] if rule.keep_beams and t else own
        if not (rule.keep_beams and t):
            children.sort(key=lambda child: (-child[0], child[1]))
        hypotheses = [(score, labels, ended) for score, _, labels, ended in children[:beam]]
    return hypotheses


def length_of(labels: tuple[int, ...]) -> int:
    return labels.index(0) if 0 in labels else len(labels)


@pytest.mark.parametrize("beam_size", [1, 3, 8])
@pytest.mark.parametrize(
    "rule",
    [
        ScoreRule(),
        ScoreRule(prob_scale=0.5, base_scale=1.5),
        ScoreRule(keep_beams=True),
    ],
    ids=["default", "scaled", "keep beams"],
)
def test_beam_search(beam_size: int, rule: ScoreRule) -> None:
    labels = 4
    if rule.keep_beams and beam_size > labels:
        pytest.skip("the first step gives fewer hypotheses than the beam holds")
    search = LabelSearch(beam_size, labels, rule)
    generator = np.random.default_rng(beam_size)
    logits = generator.standard_normal((2, labels, labels)) * 2
    logits[..., 0] -= 1
    drift = generator.standard_normal(labels) / 4
    outputs = search.executable.run({"logits": logits, "drift": drift})
    found = array(outputs["labels"], (B, search.beam, search.steps))
    lengths = outputs["labels"].lengths[search.steps]
    assert outputs["labels"].length_dims[search.steps] == (B, search.beam)
    assert found.shape[2] == lengths.max()
    for sequence in range(2):
        ways = (expected(logits[sequence], drift, beam_size, rule, steps) for steps in range(1, MAX_STEPS + 1))
        # The sequence is over with its last hypothesis, however long the other one goes on.
        hypotheses = next(way for way in ways if len(way[0][1]) == MAX_STEPS or all(ended for *_, ended in way))
        for number, (score, labels_, _) in enumerate(hypotheses):
            length = length_of(labels_)
            assert lengths[sequence, number] == length
            assert tuple(found[sequence, number, :length]) == labels_[:length]
            np.testing.assert_allclose(outputs["scores"].value[sequence, number], score)
        top = max(hypotheses, key=lambda hypothesis: hypothesis[0])[1]
        best, best_length = outputs["best"].value[sequence], outputs["best"].lengths[search.best][sequence]
        assert tuple(best[:best_length]) == top[: length_of(top)]


def test_hypotheses_that_do_not_exist() -> None:
    """With one label there is one hypothesis, whatever the beam: the others have no label and no score."""
    search = LabelSearch(3, 1, ScoreRule(), include_end=True)
    outputs = search.executable.run({"logits": np.zeros((2, 1, 1)), "drift": [0.0]})
    assert outputs["scores"].value.tolist() == [[0.0, -np.inf, -np.inf]] * 2
    assert not outputs["labels"].value.any()
    assert outputs["labels"].lengths[search.steps][:, 0].tolist() == [1, 1]
    assert outputs["best"].lengths[search.best].tolist() == [1, 1]


def test_normalized_decision() -> None:
    """Scores are divided by lengths before the best is picked."""
    b = Builder()
    beam = Symbol("beam", DimKind.BEAM, 2)
    steps, best = Symbol("steps", varies_over=(B, beam)), Symbol("best", varies_over=(B,))
    labels = b.input("labels", TensorType((B, beam, steps), "int32"))
    scores = b.input("scores", TensorType((B, beam)))
    plain = Symbol("plain", varies_over=(B,))
    outputs = {
        "plain": b.apply(Decide(beam, ((steps, plain),)), labels, scores),
        "normalized": b.apply(Decide(beam, ((steps, best),), steps), labels, scores),
    }
    found = Executable(b.graph(outputs), B).run(
        {"labels": [[[1, 2, 0], [3, 4, 5]]], "scores": [[-2.0, -2.4]]}, {steps: [[2, 3]]}
    )
    assert found["plain"].value.tolist() == [[1, 2]]
    assert found["normalized"].value.tolist() == [[3, 4, 5]]
    assert found["normalized"].lengths[best].tolist() == [3]
