"""A choice with each of its options, against the search of one sequence by itself in plain Python (SEMANTICS 3.8, 3.9).

All loops are in one network, which runs with and without optimisation. What the next label depends on is a state that
depends on all labels before it (`prev:` of a value of each hypothesis), and on the sequence. tests/net/test_choices.py
has several choices in a step, custom_score_combine and draws; tests/net/test_hypotheses.py what is made of a beam.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.compiler import ModeName, build, optimized
from tests.commit import NIGHTLY
from tests.properties.running import parameters_of, run

STEPS, CLASSES = 4, 5
GOLD = ((1, 2, 3), (4, 2))
EXTERN = {"data": {"dim": 3}, "classes": {"dim": CLASSES, "sparse": True}}
START = np.random.default_rng(5).normal(size=(2, 3))
FEED = {"data": START[:, None].astype("float32"), "classes": np.array([[1, 2, 3], [4, 2, 99]])}
LENGTHS = {"data": np.array([1, 1]), "classes": np.array([3, 2])}
SUMS = {"length_normalization": False}
Options = dict[str, Any]
BOTH = pytest.mark.parametrize("optimize", [True, False])

ROWS: dict[str, tuple[Options, Options]] = {
    "default": ({}, {}),
    "one hypothesis": ({"beam_size": 1}, {}),
    "more places than labels": ({"beam_size": 8}, {}),
    "more places than labels, sums": ({"beam_size": 8, **SUMS}, {}),
    "sums": (SUMS, {}),
    "exponent": ({"length_normalization_exponent": 0.5}, {}),
    "scales": ({"prob_scale": 0.5, "base_beam_score_scale": 0.8, **SUMS}, {}),
    "keep_beams": ({"keep_beams": True}, {}),
    "log_prob": ({"input_type": "log_prob", "from": "log_prob"}, {}),
    "logits": ({"input_type": "logits", "from": "logits"}, {}),
    "include_eos": ({}, {"include_eos": True}),
    "two steps": ({}, {"max_seq_len": 2}),
    "two steps, include_eos": ({}, {"max_seq_len": 2, "include_eos": True}),
    "size_target": ({}, {"size_target": "classes"}),
    "size_target, sums": (SUMS, {"size_target": "classes"}),
    # What has ended goes on with label 0, also where another label ends it.
    "ends at 2": ({}, {"end": 2}),
    "ends at 2, include_eos, sums": (SUMS, {"end": 2, "include_eos": True}),
    "cheating": ({"cheating": True}, {}),
    "cheating, sums": ({"cheating": True, **SUMS}, {}),
    "cheating: exclusive": ({"cheating": "exclusive"}, {}),
    "cheating: exclusive, one hypothesis": ({"cheating": "exclusive", "beam_size": 1}, {}),
    "ties": ({"from": "equal"}, {}),
    "ties, sums": ({"from": "equal", **SUMS}, {}),
    "ties, beam of 4, ends at 1": ({"from": "equal", "beam_size": 4, **SUMS}, {"end": 1, "max_seq_len": 3}),
}

IN_TENSORFLOW = [
    "default",
    "more places than labels, sums",
    "keep_beams",
    "ends at 2, include_eos, sums",
    "cheating: exclusive",
    "ties, beam of 4, ends at 1",
]


def loop(choice: Options, options: Options) -> dict[str, Any]:
    rec = {key: value for key, value in options.items() if key != "end"}
    labels = {"class": "choice", "from": "prob", "target": "classes", "beam_size": 3, "initial_output": 0, **choice}
    scores = {"class": "linear", "activation": None, "from": ["acc", "base:start"], "n_out": CLASSES}
    unit = {
        "acc": {"class": "eval", "eval": "source(0) * 0.5 + source(1)", "from": ["prev:acc", "prev:embed"]},
        "logits": scores,
        "prob": {"class": "activation", "activation": "softmax", "from": "logits"},
        "log_prob": {"class": "activation", "activation": "log_softmax", "from": "logits"},
        "nothing": {"class": "eval", "eval": "source(0) * 0", "from": "logits"},
        "equal": {"class": "activation", "activation": "softmax", "from": "nothing"},
        "output": labels,
        "embed": {"class": "linear", "activation": None, "from": "output", "n_out": 3, "initial_output": 0},
        "seen": {"class": "copy", "from": "prev:acc", "is_output_layer": True},
        "end": {"class": "compare", "from": "output", "value": options.get("end", 0)},
    }
    return {"class": "rec", "from": [], "target": "classes", "max_seq_len": STEPS, "unit": unit, **rec}


Arrays = dict[str, np.ndarray]


def network_of(names: Sequence[str]) -> dict[str, Any]:
    """The loops of rows, and what is made of their hypotheses."""
    network: dict[str, Any] = {"start": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"}}
    for name in names:
        choice, options = ROWS[name]
        i = list(ROWS).index(name)
        per_label = choice.get("length_normalization", True)
        around = {
            f"loop{i}": loop(choice, options),
            f"scores{i}": {"class": "choice_get_beam_scores", "from": f"loop{i}"},
            f"length{i}": {"class": "length", "axis": "T", "from": f"loop{i}"},
            f"best{i}": {"class": "decide", "from": f"loop{i}", "length_normalization": not per_label},
            f"best_length{i}": {"class": "length", "axis": "T", "from": f"best{i}"},
        }
        network |= {key: {**layer, "is_output_layer": True} for key, layer in around.items()}
    return network


@cache
def in_numpy(optimize: bool) -> tuple[Arrays, Arrays]:
    """What all loops give as NumPy runs their graphs, and the parameters."""
    return run_network(network_of(list(ROWS)), "search", optimize)


def run_network(network: dict[str, Any], mode: ModeName, optimize: bool) -> tuple[Arrays, Arrays]:
    """Outputs and parameters of a network as NumPy runs its graph."""
    built = build({"network": network, "extern_data": EXTERN, "behavior_version": 21}, mode)
    found = run(built, optimized(built, optimize), FEED, LENGTHS)
    names = {name: tuple(dim.name for dim in x.dims) for name, x in found.items()}
    arrays = {name.removeprefix("layer:"): beam_first(x.array, names[name]) for name, x in found.items()}
    return arrays, parameters_of(built)


@cache
def in_tensorflow(optimize: bool) -> tuple[Arrays, Arrays]:
    """What loops give as TensorFlow runs them: it needs longer for them."""
    names = list(ROWS) if NIGHTLY else IN_TENSORFLOW
    net = rl.compile(network_of(names), EXTERN, mode="search", behavior_version=21, optimize=optimize)
    for i, name in enumerate(sorted(net.params)):
        net.params[name].assign(np.random.default_rng(i).normal(size=net.params[name].shape) * 1.2)
    found = net.run(FEED, LENGTHS).layers
    arrays = {name: beam_first(np.asarray(x.value), x.dims) for name, x in found.items()}
    return arrays, {name: variable.numpy() for name, variable in net.params.items()}


def beam_first(value: np.ndarray, dims: tuple[str, ...]) -> np.ndarray:
    """Batch, hypotheses, time and the rest."""
    first = [dim for dim in dims if dim == "B"] + [dim for dim in dims if "beam" in dim]
    order = [*first, *(dim for dim in dims if "time" in dim), *(dim for dim in dims if "feature" in dim)]
    return np.transpose(value, [dims.index(dim) for dim in order])


@dataclass(frozen=True)
class Hypothesis:
    score: float
    labels: tuple[int, ...] = ()
    ended: bool = False


@dataclass(frozen=True)
class Model:
    """The network of one loop for one sequence."""

    prefix: str
    params: dict[str, np.ndarray]
    start: np.ndarray
    flat: bool = False

    def states(self, labels: tuple[int, ...]) -> list[np.ndarray]:
        """`prev:acc` and `acc` at each step: zero, zero, then what the labels add up to."""
        states = [np.zeros(3), np.zeros(3)]
        for label in labels:
            embedded = self.params[f"{self.prefix}/embed/W"][label] + self.params[f"{self.prefix}/embed/b"]
            states.append(0.5 * states[-1] + embedded)
        return states

    def log_p(self, labels: tuple[int, ...]) -> np.ndarray:
        x = np.concatenate([self.states(labels)[-1], self.start])
        logits = x @ self.params[f"{self.prefix}/logits/W"] + self.params[f"{self.prefix}/logits/b"]
        logits = logits * (not self.flat)
        return logits - np.log(np.exp(logits).sum())


def steps_of(choice: Options, options: Options, sequence: int) -> tuple[int, int | None]:
    """How many steps the loop may have, and how many the sequence has, if that is known before."""
    if "cheating" in choice or "size_target" in options:
        return max(map(len, GOLD)), len(GOLD[sequence])
    return options.get("max_seq_len", STEPS), None


def search(model: Model, choice: Options, options: Options, sequence: int, steps: int) -> list[Hypothesis]:
    """The hypotheses, best first, with their scores after some steps; what has label 0 and no score does not exist."""
    beam, per_label = choice.get("beam_size", 3), choice.get("length_normalization", True)
    _, known = steps_of(choice, options, sequence)
    found = [Hypothesis(0.0)]
    for t in range(steps):
        if known is not None:
            found = [replace(one, ended=t >= known) for one in found]
        rows = []
        over = all(one.ended or one.score == -np.inf for one in found)  # the step is there for others of the batch
        for one in found:
            log_p = np.where(np.arange(CLASSES) == 0, 0.0, -1e30) if one.ended else model.log_p(one.labels)
            base = one.score
            if one.ended and t and per_label:
                base *= ((t + 1) / t) ** choice.get("length_normalization_exponent", 1.0)
            scale = 1.0 if over or (known is not None and one.ended) else choice.get("base_beam_score_scale", 1.0)
            total = log_p * choice.get("prob_scale", 1.0) + base * scale
            rows.append([Hypothesis(s, (*one.labels, c), one.ended) for c, s in enumerate(total)])
        right = None
        if "cheating" in choice:
            label = 0 if found[-1].ended else GOLD[sequence][t]
            right = rows[-1][label]
            if choice["cheating"] == "exclusive":
                rows[-1] = [child for child in rows[-1] if child is not right]
        if choice.get("keep_beams") and t:
            found = [max(row, key=lambda child: child.score) for row in rows]
        else:  # stable: of equal scores, those of the hypothesis before come first, then those of the label before
            found = sorted((child for row in rows for child in row), key=lambda child: -child.score)[:beam]
        if right is not None:
            found = [*found[: beam - 1], right]
        found += [Hypothesis(-np.inf, (0,) * (t + 1))] * (beam - len(found))
        end = options.get("end", 0)
        found = [replace(one, ended=one.ended or (known is None and one.labels[-1] == end)) for one in found]
    return found


def length_of(one: Hypothesis, options: Options, known: int | None) -> int:
    end = options.get("end", 0)
    if known is not None:
        return known
    return one.labels.index(end) + options.get("include_eos", False) if end in one.labels else len(one.labels)


@BOTH
@pytest.mark.parametrize("name", ROWS)
def test_hypotheses(name: str, optimize: bool) -> None:
    check(name, *in_numpy(optimize))


@pytest.mark.parametrize("optimize", [True, False] if NIGHTLY else [True])
@pytest.mark.parametrize("name", ROWS if NIGHTLY else IN_TENSORFLOW)
def test_hypotheses_in_tensorflow(name: str, optimize: bool) -> None:
    check(name, *in_tensorflow(optimize))


def check(name: str, found: Arrays, params: Arrays) -> None:
    """Labels, lengths and scores of all, what a state was at each step of each, and which is the best."""
    choice, options = ROWS[name]
    i = list(ROWS).index(name)
    labels, seen, scores, best = (found[key] for key in (f"loop{i}", f"loop{i}/seen", f"scores{i}", f"best{i}"))
    lengths = found[f"length{i}"]
    lengths = np.broadcast_to(lengths if lengths.ndim == 2 else lengths[:, None], scores.shape)
    per_label = choice.get("length_normalization", True)
    models = [Model(f"loop{i}/rec", params, START[b], choice.get("from") == "equal") for b in range(2)]
    steps, _ = steps_of(choice, options, 0)
    for n in reversed(range(1, steps)):  # until all have ended: scores that are scaled depend on how long that is
        if all(one.ended for b, model in enumerate(models) for one in search(model, choice, options, b, n)):
            steps = n
    for b, model in enumerate(models):
        _, known = steps_of(choice, options, b)
        wanted = search(model, choice, options, b, steps)
        assert len(wanted) == scores.shape[1]
        divisor = steps ** choice.get("length_normalization_exponent", 1.0) if per_label else 1
        np.testing.assert_allclose(scores[b], [one.score / divisor for one in wanted], rtol=1e-4)
        ranks = []
        for k, one in enumerate(wanted):
            length = length_of(one, options, known)
            ranks.append(one.score if per_label else one.score / length if length else -np.inf)
            if one.score > -np.inf:
                assert lengths[b, k] == length
                assert tuple(labels[b, k, :length]) == one.labels[:length]
                states = np.array(model.states(one.labels))
                np.testing.assert_allclose(seen[b, k, :length], states[:length], rtol=1e-4, atol=1e-5)
        top = wanted[int(np.argmax(ranks))]
        length = length_of(top, options, known)
        assert found[f"best_length{i}"][b] == length
        assert tuple(best[b, :length]) == top.labels[:length]


def of_one_loop(choice: Options, mode: ModeName, optimize: bool, **around: Any) -> tuple[Arrays, Arrays]:
    """What a network with one loop `loop0`, and layers around it, gives; and its parameters."""
    start = {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"}
    network = {"start": start, "loop0": {**loop(choice, {}), "is_output_layer": True}, **around}
    return run_network(network, mode, optimize)


SAMPLING: list[Any] = [True, {"gold_mixin_prob": 0.0}, {"gold_mixin_prob": 1.0}, {"gold_mixin_prob": 1}]


@BOTH
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("given", SAMPLING, ids=str)
def test_scheduled_sampling(given: Any, mode: ModeName, optimize: bool) -> None:
    """Of a distribution that has all on one label: the label that the model prefers after those it chose; or the
    target's. The loop has the length of the target, whatever `end` says."""
    sharp = {"input_type": "logits", "from": "sharp", "scheduled_sampling": given}
    unit = loop(sharp, {})["unit"] | {"sharp": {"class": "eval", "eval": "source(0) * 1e4", "from": "logits"}}
    found, params = of_one_loop({}, mode, optimize, loop0={**loop({}, {}), "unit": unit, "is_output_layer": True})
    for b, gold in enumerate(GOLD):
        labels: tuple[int, ...] = ()
        for right in gold:
            preferred = int(np.argmax(Model("loop0/rec", params, START[b]).log_p(labels)))
            labels += (right if isinstance(given, dict) and given["gold_mixin_prob"] else preferred,)
        assert tuple(found["loop0"][b]) == labels + (0,) * (3 - len(gold))
        states = Model("loop0/rec", params, START[b]).states(labels)
        np.testing.assert_allclose(found["loop0/seen"][b, : len(gold)], states[: len(gold)])


@BOTH
def test_without_search_in_search(optimize: bool) -> None:
    """The labels of the target; behind its end there is 0, which ends it here."""
    found, params = of_one_loop({"search": False}, "search", optimize)
    assert found["loop0"].tolist() == [[1, 2, 3], [4, 2, 0]]
    for b, gold in enumerate(GOLD):
        states = Model("loop0/rec", params, START[b]).states(gold)
        np.testing.assert_allclose(found["loop0/seen"][b, : len(gold)], states[: len(gold)])


def edits(a: Sequence[int], b: Sequence[int]) -> int:
    """The Levenshtein distance."""
    if not a or not b:
        return len(a) + len(b)
    return min(edits(a[1:], b) + 1, edits(a, b[1:]) + 1, edits(a[1:], b[1:]) + (a[0] != b[0]))


@BOTH
@pytest.mark.parametrize("cheating", [False, "exclusive"])
@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("norm", [True, False])
def test_expected_loss(norm: bool, average: bool, cheating: Any, optimize: bool) -> None:
    """Minimum-risk training: errors of the hypotheses of a search in training, weighted by what the model thinks of
    them; each has the length of the target."""
    opts = {"loss": {"class": "edit_distance"}, "loss_kind": "error", "norm_scores": norm}
    opts |= {"subtract_average_loss": average, "divide_beam_size": False}
    risk = {"class": "copy", "from": "loop0", "target": "classes", "loss": "expected_loss", "loss_opts": opts}
    choice = {**SUMS, "search": True, "cheating": cheating}
    found, params = of_one_loop(choice, "train", optimize, risk=risk)
    expected = 0.0
    known = {key: value for key, value in choice.items() if value is not False or key != "cheating"}
    for b, gold in enumerate(GOLD):
        model = Model("loop0/rec", params, START[b])
        hypotheses = search(model, known, {"size_target": "classes"}, b, max(map(len, GOLD)))
        weights = np.exp([one.score for one in hypotheses])
        weights = weights / weights.sum() if norm else weights
        errors = np.array([edits(one.labels[: len(gold)], gold) for one in hypotheses], float)
        expected += (weights * (errors - errors.mean() * average)).sum()
    assert abs(expected) > 1e-4
    np.testing.assert_allclose(found["loss:risk:sum"], expected, rtol=1e-4)
