"""A recurrent layer over inner frames, in a loop: each step of the loop has a run of its own, with its own start."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from returnn_lite import ConfigError
from returnn_lite.compiler import build, optimized
from tests.properties.running import parameters_of, run
from tests.reference.named import Array

EXTERN = {"data": {"dim": 3}, "z": {"dim": 3, "available_for_inference": True}}
LENGTHS = {"data": np.array([4, 2]), "z": np.array([3, 2])}
FEED = {
    "data": np.random.default_rng(16).normal(size=(2, 4, 3)),
    "z": np.random.default_rng(17).normal(size=(2, 3, 3)),
}


def network(state: Any, **lstm: Any) -> dict[str, Any]:
    """An LSTM over the frames of the data, in each step of a loop over z."""
    unit = {
        "x": {"class": "combine", "kind": "add", "from": ["base:data", "data:source"]},
        "double": {"class": "eval", "from": "data:source", "eval": "source(0) * 2.0"},
        "lstm": {"class": "rec", "unit": "nativelstm2", "from": "x", "n_out": 3, "initial_state": state, **lstm},
        "output": {"class": "reduce", "mode": "sum", "axis": "T", "from": "lstm"},
    }
    return {
        "data": {"class": "copy", "from": "data:data"},
        "mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data:z"},
        "output": {"class": "rec", "from": "data:z", "unit": unit},
    }


def lstm(params: dict[str, Array], frames: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
    """The sum of the outputs, and the states behind the last frame."""
    total = np.zeros(3)
    for x in frames:
        gates = x @ params["W"] + h @ params["W_re"] + params["b"]
        z, i, f, o = np.split(gates, 4)
        c = c / (1 + np.exp(-f)) + np.tanh(z) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        total = total + h
    return total, h, c


@pytest.mark.parametrize("optimize", [True, False, None])
@pytest.mark.parametrize(
    ("state", "start"),
    [
        ({"h": "base:mean", "c": 0.5}, lambda z, step, mean, before: (mean, np.full(3, 0.5))),
        ({"h": "double", "c": "base:mean"}, lambda z, step, mean, before: (z[step] * 2, mean)),
        ("prev:double", lambda z, step, mean, before: (z[step - 1] * 2 * (step > 0),) * 2),
        ("prev:lstm", lambda z, step, mean, before: before),
        ({"c": "prev:lstm"}, lambda z, step, mean, before: (np.zeros(3), before[1])),
    ],
    ids=["from around", "from the step", "from the step before", "where the run before ended", "half of that"],
)
def test_the_state_before_the_first_inner_frame(state: Any, start: Any, optimize: bool | None) -> None:
    """As plain NumPy computes it of single sequences; `None` is the graph before all passes."""
    built = build({"network": network(state), "extern_data": EXTERN, "behavior_version": 21}, "forward")
    graph = built.graph if optimize is None else optimized(built, optimize)
    found = run(built, graph, FEED, LENGTHS)["layer:output"]
    params = {name.rpartition("/")[2]: value for name, value in parameters_of(built).items()}
    batch, steps = (next(dim for dim in found.dims if dim.name == name) for name in ("B", "z:time"))
    array = found.over((batch, steps, *(dim for dim in found.dims if dim not in (batch, steps))))
    for sequence, (frames, count) in enumerate(zip(LENGTHS["data"], LENGTHS["z"], strict=True)):
        z = FEED["z"][sequence][:count]
        before = (np.zeros(3), np.zeros(3))
        for step in range(count):
            first = start(z, step, z.mean(0), before)
            total, *before = lstm(params, FEED["data"][sequence][:frames] + z[step], *first)
            np.testing.assert_allclose(array[sequence, step], total)


def test_one_step_can_not_start_with_what_steps_compute() -> None:
    one = network("double", **{"from": "data:source"})
    one["output"]["unit"]["output"] = {"class": "copy", "from": "lstm"}
    with pytest.raises(ConfigError, match=r"lstm\.initial_state: the state before the first step can't be 'double'"):
        build({"network": one, "extern_data": EXTERN, "behavior_version": 21}, "forward")
