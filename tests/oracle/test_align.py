"""How recorded arrays are brought to our order. These can fail: each case has a counterpart that must not fit."""

from typing import Any

import numpy as np
import pytest

from tools.oracle.align import deviation, output_deviation, recorded
from tools.oracle.records import Run

BATCH = {"kind": "batch"}
FEATURE = {"kind": "feature"}
DRAW = np.random.default_rng(1)


def run(values: np.ndarray, axes: list[dict[str, Any]], sizes: dict[int, Any], **options: Any) -> Run:
    return Run(
        layers={"x": values},
        axes={"x": axes},
        beams={"x": options.get("beam")},
        sizes={("x", axis): np.array(size) for axis, size in sizes.items()},
        scores={} if "scores" not in options else {"x": options["scores"]},
        losses={},
        gradients={},
        objective=None,
    )


def test_time_major_becomes_batch_major() -> None:
    values = DRAW.standard_normal((4, 2, 3))
    theirs = recorded(run(values, [{"kind": "spatial", "varies_over": [1]}, BATCH, FEATURE], {0: [4, 2]}), "x")
    ours, lengths = values.transpose(1, 0, 2), np.array([4, 2])
    assert output_deviation(ours, [None, lengths, None], theirs) == 0
    assert output_deviation(ours + 0.5, [None, lengths, None], theirs) == pytest.approx(0.5, rel=0.5)
    assert output_deviation(ours, [None, np.array([4, 3]), None], theirs) == np.inf


def test_padding_does_not_count_and_may_be_shorter() -> None:
    values = DRAW.standard_normal((2, 5, 3))
    theirs = recorded(run(values, [BATCH, {"kind": "spatial", "varies_over": [0]}, FEATURE], {1: [4, 2]}), "x")
    ours = values[:, :4].copy()
    ours[1, 2:] = 7
    assert output_deviation(ours, [None, np.array([4, 2]), None], theirs) == 0
    ours[1, 1] += 7
    assert output_deviation(ours, [None, np.array([4, 2]), None], theirs) > 1
    assert output_deviation(values[:, :3], [None, None, None], theirs) == np.inf


def test_the_order_of_inner_axes_is_found() -> None:
    values = DRAW.standard_normal((2, 3, 5, 4))
    theirs = recorded(run(values, [BATCH, {"kind": "spatial"}, {"kind": "spatial"}, FEATURE], {}), "x")
    assert output_deviation(values.transpose(0, 2, 1, 3), [None] * 4, theirs) == 0
    assert output_deviation(values.transpose(0, 2, 1, 3)[..., ::-1], [None] * 4, theirs) > 0.1


def test_beams_are_split_and_dead_hypotheses_left_out() -> None:
    values = np.array([[1, 2, 3, 4], [5, 0, 7, 0]])
    axes = [{"kind": "spatial", "varies_over": [1]}, BATCH]
    scores = np.array([[-1.0, -2.0], [-1.0, -1e30]])
    theirs = recorded(run(values, axes, {0: [2, 1, 2, 1]}, beam=2, scores=scores), "x")
    ours, lengths = np.array([[[1, 5], [2, 9]], [[3, 7], [8, 8]]]), np.array([[2, 1], [2, 2]])
    assert output_deviation(ours, [None, None, lengths], theirs) == 0
    ours[0, 1, 0] = 3
    assert output_deviation(ours, [None, None, lengths], theirs) == 0.5


def test_without_batch_axis_stands_for_every_sequence() -> None:
    values = np.tile(np.arange(4.0), (2, 1))
    theirs = recorded(run(values, [BATCH, {"kind": "spatial", "varies_over": [0]}], {1: [4, 3]}), "x")
    assert output_deviation(np.arange(4.0), [None], theirs) == 0
    assert output_deviation(np.arange(4.0) + 1, [None], theirs) > 0.1


def test_lengths_over_a_missing_batch_axis() -> None:
    axes = [{"kind": "spatial", "varies_over": [-1]}]
    theirs = recorded(run(np.arange(4), axes, {0: [4, 3]}), "x")
    assert output_deviation(np.arange(4), [None], theirs) == 0


def test_deviation_of_infinities() -> None:
    infinite = np.array([-np.inf, 1.0])
    assert deviation(infinite, infinite) == 0
    assert deviation(np.array([0.0, 1.0]), infinite) == np.inf
    assert deviation(np.array([np.nan]), np.array([1.0])) == np.inf
