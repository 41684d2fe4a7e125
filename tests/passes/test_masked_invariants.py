"""What no step changes, under a mask: the value is the same at each step where the mask is true, and held between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from returnn_lite.compiler import build, optimized
from returnn_lite.ir import Loop, walk
from tests.properties.running import LENGTHS, assert_equal, parameters_of, run
from tests.reference.named import Array, Named

SIZE = 4
X: Array = np.random.default_rng(3).normal(size=(3, 4, SIZE))
FRAMES = np.arange(4) < LENGTHS["data"][:, None]
TRUE = X.sum(-1) > 0
Layers = dict[str, Any]
INNER = {"class": "linear", "n_out": SIZE, "activation": "tanh"}
LAST = {"class": "reduce", "mode": "max", "axis": "T"}
DRAWN = {"class": "random", "shape": ("B", SIZE), "distribution": "normal", "static": True}
UNITS: dict[str, Layers] = {
    "a loop of frames from around": {
        "inner": {"class": "rec", "from": "base:base:frames", "unit": {
            "output": {**INNER, "from": ["data:source", "prev:output"]}}},
        "output": {**LAST, "from": "inner"},
    },
    "a loop that reads the step": {
        "inner": {"class": "rec", "from": "base:base:frames", "unit": {
            "output": {**INNER, "from": ["data:source", "base:data", "prev:output"]}}},
        "output": {**LAST, "from": "inner"},
    },
    "a draw that is no new one in each step": {"output": DRAWN},
    "such a draw and the step": {
        "drawn": DRAWN, "output": {"class": "combine", "kind": "mul", "from": ["drawn", "data"]}},
    "statistics of what is from around": {
        "output": {"class": "batch_norm", "masked_time": True, "from": "base:base:mean"}},
}  # fmt: skip


def config_of(unit: Layers) -> dict[str, Any]:
    subnetwork = {"class": "subnetwork", "from": "data", "subnetwork": unit}
    body = {
        "level": {"class": "reduce", "mode": "sum", "axis": "F", "from": "data:source"},
        "mask": {"class": "compare", "kind": "greater", "value": 0.0, "from": "level"},
        "held": {"class": "masked_computation", "mask": "mask", "from": "data:source", "unit": subnetwork},
        "state": {"class": "combine", "kind": "add", "from": ["held", "prev:state"]},
        "output": {"class": "combine", "kind": "add", "from": ["state", "data:source"]},
    }
    network = {
        "frames": {"class": "linear", "n_out": SIZE, "activation": "tanh", "from": "data"},
        "mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"},
        "output": {"class": "rec", "from": "data", "unit": body},
    }
    return {"network": network, "extern_data": {"data": {"dim": SIZE}}, "behavior_version": 21}


def ordered(x: Named, names: list[str]) -> Array:
    """The array with the dims of these kinds of names in this order: batch, time, feature."""
    kinds = ["B" if dim.name == "B" else "T" if dim.is_ragged else "F" for dim in x.dims]
    missing = [name for name in names if name not in kinds]
    array = x.array.reshape(*x.array.shape, *[1] * len(missing))
    return array.transpose([[*kinds, *missing].index(name) for name in names])


def held(name: str, enabled: bool = True) -> Array:
    """What is under the mask, at each frame [B, T, F]."""
    built = build(config_of(UNITS[name]), "train")
    found = run(built, optimized(built, enabled), {"data": X}, {"data": LENGTHS["data"]})["layer:output/held"]
    return np.broadcast_to(ordered(found, ["B", "T", "F"]), X.shape)


@pytest.mark.parametrize("name", UNITS)
def test_all_ways_give_the_same(name: str) -> None:
    """Without optimisation, optimised, and step by step as built: but statistics, of which no step knows by itself."""
    built = build(config_of(UNITS[name]), "train")
    feed, lengths = {"data": X}, {"data": LENGTHS["data"]}
    plain = run(built, optimized(built, False), feed, lengths)
    assert_equal(run(built, optimized(built), feed, lengths), plain)
    if "statistics" not in name:
        assert_equal(run(built, built.graph, feed, lengths), plain)


@pytest.mark.parametrize("name", [name for name in UNITS if "the step" not in name])
def test_it_is_one_value_held_from_the_first_true_mask_on(name: str) -> None:
    found, begun = held(name), np.logical_or.accumulate(TRUE, 1) & FRAMES
    for sequence in range(3):
        steps = np.flatnonzero(begun[sequence])
        assert len(steps), "the mask is true somewhere"
        np.testing.assert_array_equal(found[sequence, ~begun[sequence] & FRAMES[sequence]], 0)
        first = np.broadcast_to(found[sequence, steps[:1]], (len(steps), SIZE))
        np.testing.assert_allclose(found[sequence, steps], first)
        assert np.abs(first).max() > 0


@pytest.mark.parametrize("enabled", [True, False])
def test_statistics_count_what_is_from_around_at_each_true_mask(enabled: bool) -> None:
    """By hand: sequences with more such frames weigh more."""
    means = np.array([X[i, : LENGTHS["data"][i]].mean(0) for i in range(3)])
    counts = (TRUE & FRAMES).sum(1)
    frames = np.repeat(means, counts, 0)
    parameters = parameters_of(build(config_of(UNITS["statistics of what is from around"]), "train"))
    gamma, beta = (next(v for n, v in parameters.items() if n.endswith(end)) for end in ("gamma", "beta"))
    expected = (means - frames.mean(0)) / np.sqrt(frames.var(0) + 1e-3) * gamma + beta
    found = held("statistics of what is from around", enabled)
    for sequence, step in enumerate((TRUE & FRAMES).argmax(1)):
        np.testing.assert_allclose(found[sequence, step], expected[sequence])


def test_a_loop_that_reads_the_step_runs_for_each() -> None:
    found = held("a loop that reads the step")
    first, second = np.flatnonzero(TRUE[1] & FRAMES[1])[:2]
    assert not np.allclose(found[1, first], found[1, second])


def test_what_no_step_changes_leaves_the_loop() -> None:
    graph = optimized(build(config_of(UNITS["a loop of frames from around"]), "train"))
    loops = [node.op for node in graph.nodes if isinstance(node.op, Loop)]
    assert not any(isinstance(node.op, Loop) for loop in loops for node in walk(loop.body))
