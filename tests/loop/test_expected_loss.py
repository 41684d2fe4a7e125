"""The loss that hypotheses are expected to have, against its formula for one sequence alone: the value, and each
gradient against the slope of the formula, the hypotheses and what is defined as constant held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from returnn_lite.compiler import build, optimized
from tests.properties.backend import program_of, run_once
from tests.properties.running import parameters_of

CLASSES, STEP = 3, 1e-6
GOLD = ((1, 2, 1), (2,), (0, 1))
START = np.random.default_rng(5).normal(size=(3, 2))
FEED = {"data": START[:, None], "classes": np.array([[1, 2, 1], [2, 9, 9], [0, 1, 9]])}
LENGTHS = {"data": np.array([1, 1, 1]), "classes": np.array([3, 1, 2])}
Options = dict[str, Any]
Arrays = dict[str, np.ndarray]
Labels = tuple[int, ...]

EDITS: Options = {"loss": {"class": "edit_distance"}, "loss_kind": "error"}
SQUARES: Options = {"loss": {"class": "as_is"}, "loss_kind": "value"}
SUMS: Options = {"length_normalization": False}
ROWS: dict[str, tuple[Options, Options]] = {
    "default": ({}, EDITS),
    "gradient of the norm": (SUMS, {**EDITS, "norm_scores_stop_gradient": False}),
    "no norm": ({}, {**EDITS, "norm_scores": False}),
    "no average": (SUMS, {**EDITS, "subtract_average_loss": False, "divide_beam_size": False}),
    "average in the gradient, scales": (
        {**SUMS, "prob_scale": 0.5, "base_beam_score_scale": 0.8},
        {**EDITS, "loss_correction_grad_only": True},
    ),
    "cheating": ({"cheating": "exclusive"}, EDITS),
    # The shortest sequence has fewer hypotheses than places.
    "more places than labels": ({"beam_size": 5}, {**EDITS, "norm_scores_stop_gradient": False}),
    # A loss that is a number has a gradient of its own.
    "squares": (SUMS, SQUARES),
}


def network(row: str) -> dict[str, Any]:
    """A loop, with the loss of its hypotheses."""
    choice, opts = ROWS[row]
    unit = {
        "acc": {"class": "eval", "eval": "source(0) * 0.5 + source(1)", "from": ["prev:acc", "prev:embed"]},
        "prob": {"class": "softmax", "from": ["acc", "base:start"], "n_out": CLASSES},
        "squares": {"class": "eval", "eval": "source(0) ** 2", "from": "prob", "is_output_layer": True},
        "output": {"class": "choice", "from": "prob", "target": "classes", "beam_size": 3, "initial_output": 0}
        | {"search": True, **choice},
        "embed": {"class": "linear", "activation": None, "from": "output", "n_out": 2, "initial_output": 0},
    }
    source = "loop" if opts["loss_kind"] == "error" else "loop/squares"
    target = {"target": "classes"} if opts["loss_kind"] == "error" else {}
    return {
        "start": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"},
        "loop": {"class": "rec", "from": [], "target": "classes", "unit": unit},
        "risk": {"class": "copy", "from": source, **target, "loss": "expected_loss", "loss_opts": opts},
    }


def in_tensorflow(row: str, optimize: bool) -> tuple[Arrays, Arrays, Arrays]:
    """The losses, the gradients of their sum, and the parameters."""
    extern = {"data": {"dim": 2}, "classes": {"dim": CLASSES, "sparse": True}}
    built = build({"network": network(row), "extern_data": extern, "behavior_version": 21}, "train")
    program = program_of(built, optimized(built, optimize))
    outputs, gradients = run_once(built, program, FEED, LENGTHS)
    losses = {name: output.value for name, output in outputs.items() if name.startswith("loss:")}
    return losses, gradients, parameters_of(built)


@dataclass(frozen=True)
class Model:
    """What one loop says of labels, of one sequence."""

    params: Arrays
    start: np.ndarray

    def log_p(self, labels: Labels) -> np.ndarray:
        acc, embed = np.zeros(2), np.zeros(2)
        for label in labels:
            acc, embed = 0.5 * acc + embed, self.params["embed/W"][label] + self.params["embed/b"]
        x = np.concatenate([0.5 * acc + embed, self.start])
        logits = x @ self.params["prob/W"] + self.params["prob/b"]
        return logits - np.log(np.exp(logits).sum())

    def score(self, labels: Labels, choice: Options) -> float:
        total = 0.0
        for t, label in enumerate(labels):
            own = self.log_p(labels[:t])[label] * choice.get("prob_scale", 1.0)
            total = own + total * choice.get("base_beam_score_scale", 1.0)
        return total

    def squares(self, labels: Labels) -> float:
        return float(sum((np.exp(self.log_p(labels[:t])) ** 2).sum() for t in range(len(labels))))


def search(model: Model, choice: Options, gold: Labels) -> list[Labels]:
    """The hypotheses of a sequence by itself; the best that is dropped is clearly worse than any that stays."""
    found: list[Labels] = [()]
    kept = bool(choice.get("cheating"))
    for t in range(len(gold)):
        children = [(*one, label) for one in found for label in range(CLASSES)]
        children = [one for one in children if not kept or one != gold[: t + 1]]
        children.sort(key=lambda one: -model.score(one, choice))
        places = choice.get("beam_size", 3) - kept
        if len(children) > places:
            last, dropped = (model.score(one, choice) for one in children[places - 1 : places + 1])
            assert last - dropped > 1e4 * STEP, "no ties"
        found = children[:places] + [gold[: t + 1]] * kept
    return found


def edits(a: Sequence[int], b: Sequence[int]) -> int:
    """The Levenshtein distance."""
    if not a or not b:
        return len(a) + len(b)
    return min(edits(a[1:], b) + 1, edits(a, b[1:]) + 1, edits(a[1:], b[1:]) + (a[0] != b[0]))


Constants = list[tuple[float, float]]
"""For each sequence the log of the sum of the weights, and the average of the losses."""


def scores_and_risks(params: Arrays, row: str, b: int, found: list[Labels]) -> tuple[np.ndarray, np.ndarray]:
    """Of each hypothesis of a sequence."""
    choice, opts = ROWS[row]
    model, per_label = Model(params, START[b]), choice.get("length_normalization", True)
    scores = [model.score(one, choice) / (len(GOLD[b]) if per_label else 1) for one in found]
    edit = opts["loss_kind"] == "error"
    return np.array(scores), np.array([edits(one, GOLD[b]) if edit else model.squares(one) for one in found], float)


def constants(params: Arrays, row: str, found: list[list[Labels]]) -> Constants:
    both = [scores_and_risks(params, row, b, one) for b, one in enumerate(found)]
    return [(float(np.log(np.exp(scores).sum())), float(risks.mean())) for scores, risks in both]


def expected(params: Arrays, row: str, found: list[list[Labels]], held: Constants, centred: bool) -> float:
    """The loss of all sequences; without the average of each, if not `centred`."""
    choice, opts = ROWS[row]
    total, now = 0.0, constants(params, row, found)
    for b, one in enumerate(found):
        scores, risks = scores_and_risks(params, row, b, one)
        norm = held[b][0] if opts.get("norm_scores_stop_gradient", True) else now[b][0]
        weights = np.exp(scores - norm * opts.get("norm_scores", True))
        total += float((weights * (risks - held[b][1] * centred)).sum())
    return total / (choice.get("beam_size", 3) if opts.get("divide_beam_size", True) else 1)


def slope(of: Callable[[Arrays], float], params: Arrays, name: str) -> np.ndarray:
    """How fast a number changes with each element of a parameter."""
    result = np.zeros(params[name].shape)
    for index in np.ndindex(result.shape):
        step = np.zeros(result.shape)
        step[index] = STEP
        ends = [of({**params, name: params[name] + sign * step}) for sign in (1, -1)]
        result[index] = (ends[0] - ends[1]) / (2 * STEP)
    return result


@pytest.mark.one_in(2)
@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("row", ROWS)
def test_value_and_gradient(row: str, optimize: bool) -> None:
    losses, gradients, everything = in_tensorflow(row, optimize)
    prefix = "loop/rec/"
    params = {name.removeprefix(prefix): x for name, x in everything.items() if name.startswith(prefix)}
    choice, opts = ROWS[row]
    found = [search(Model(params, START[b]), choice, gold) for b, gold in enumerate(GOLD)]
    held = constants(params, row, found)
    average = opts.get("subtract_average_loss", True)
    shown = average and not opts.get("loss_correction_grad_only", False)
    value = expected(params, row, found, held, shown)
    np.testing.assert_allclose(losses["loss:risk:sum"], value, rtol=1e-6)
    assert len(params) == 4
    for name in params:
        wanted = slope(lambda moved: expected(moved, row, found, held, average), params, name)
        assert abs(wanted).max() > 1e-4, name
        np.testing.assert_allclose(gradients[prefix + name], wanted, rtol=1e-5, atol=1e-8, err_msg=name)
