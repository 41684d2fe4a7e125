"""Indices that the network computes: one that is out of range is told as the user's, with layer, sequence and value.

Only what a sequence has counts: its own steps, under a mask the steps at which that is true, the hypotheses that are
left in the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.compiler import build, optimized
from returnn_lite.ir.batches import BatchError
from returnn_lite.ir.ops.indexing import CheckIndex

EXTERN = {"data": {"dim": 3}, "classes": {"dim": 5, "sparse": True, "same_dim_tags_as": {"t": "data"}}}
DATA = {"data": np.ones((3, 4, 3), "float32"), "classes": np.array([[0, 1, 2, 3], [1, 1, 9, 9], [4, 0, 0, 9]])}
LENGTHS = {"data": [4, 2, 3], "classes": [4, 2, 3]}
Layers = dict[str, Any]


def labels(added: int, of: str = "data:classes") -> Layers:
    """Labels of five classes with a number added."""
    return {"class": "eval", "eval": f"source(0) + {added}", "from": of, "out_type": {"dim": 5, "sparse": True}}


def embedded(of: str) -> Layers:
    return {"class": "linear", "n_out": 3, "activation": None, "from": of}


def loop(unit: Layers, **options: Any) -> Layers:
    return {"class": "rec", "from": "data", "unit": unit, **options}


SUMMED: Layers = {"class": "combine", "kind": "add", "from": ["embedded", "prev:output"], "initial_output": 0}
IN_CYCLE: Layers = {
    "shifted": labels(1, "prev:label"),
    "label": {"class": "copy", "from": "shifted", "initial_output": 1},
    "embedded": embedded("label"),
    "output": SUMMED,
}


def gathered(position: int, **options: Any) -> Layers:
    return {"output": {"class": "gather", "axis": "T", "position": position, "from": "data", **options}}


def masked(least: int) -> Layers:
    """Labels less three, embedded where they are at least that."""
    unit = {
        "mask": {"class": "compare", "kind": "greater_equal", "value": least, "from": "data:classes"},
        "fewer": labels(-3),
        "embedded": {"class": "masked_computation", "mask": "mask", "from": "fewer", "unit": embedded("data")},
        "output": {**SUMMED, "from": ["embedded", "prev:output"]},
    }
    return {"output": loop(unit)}


def inner_loop(added: int) -> Layers:
    """A loop over frames from around in each step; its steps read labels."""
    unit = {
        "added": {"class": "eval", "eval": f"source(0) + {added}", "from": "base:data:classes"},
        "label": {"class": "reinterpret_data", "set_sparse": True, "set_sparse_dim": 5, "from": "added"},
        "inner": {"class": "rec", "from": "label", "unit": {"embedded": embedded("data:source"), "output": SUMMED}},
        "output": {"class": "reduce", "mode": "sum", "axis": "T", "from": "inner"},
    }
    return {"output": loop(unit)}


def positions(of: str) -> Layers:
    """Each frame of the data at the number that a label says."""
    return {"output": {"class": "gather", "axis": "T", "position": of, "from": "data"}}


WRONG: dict[str, tuple[Layers, str]] = {
    "one frame": (
        gathered(2), "output: a position is beyond the frames of data:time: sequence 1 has position 2, counted from 0,"
    ),
    "frames": (positions("data:classes"), "output: a position .*: sequence 2 has position 4, counted from 0, of 3 fr"),
    "an embedding": (
        {"shifted": labels(1), "output": embedded("shifted")}, "output: a label is none of the 5 .*: sequence 2 has 5$"
    ),
    "before the first": (
        {"shifted": labels(-1), "output": embedded("shifted")}, "output: a la.*: sequence 0 has -1; sequence 2 has -1$"
    ),
    "in a cycle": ({"output": loop(IN_CYCLE)}, "output/embedded: a label is none of the 5 classes: sequence 0 has 5$"),
    "under a mask": (masked(2), "output/embedded.*: a label is none of the 5 classes: sequence 0 has -1$"),
    "in a loop in a loop": (inner_loop(1), "output/inner/embedded: a label is none of the 5 .*: sequence 2 has 5$"),
    "scattered": (
        {"output": {"class": "scatter_nd", "position": "data:classes", "position_axis": "T", "out_spatial_dim": 4,
                    "from": "data"}},
        "output: a label is none of the 4 classes: sequence 2 has 4$",
    ),
}  # fmt: skip
RIGHT: dict[str, Layers] = {
    "one frame": gathered(1),
    "clipped": gathered(7, clip_to_valid=True),
    "an embedding": {"shifted": labels(0), "output": embedded("shifted")},
    "in a cycle": {"output": loop({**IN_CYCLE, "shifted": labels(0, "prev:label")})},
    "under a mask": masked(3),
    "in a loop in a loop": inner_loop(0),
    "left out": {"output": {"class": "scatter_nd", "position": "data:classes", "position_axis": "T",
                            "out_spatial_dim": 4, "filter_invalid_indices": True, "from": "data"}},
}  # fmt: skip


def compiled(network: Layers, mode: Any, optimize: bool) -> rl.Network:
    loss = {"class": "eval", "eval": "source(0) * 0.5", "from": "output", "loss": "as_is"}
    return rl.compile({**network, "loss": loss}, EXTERN, mode, optimize=optimize, behavior_version=21)


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("name", WRONG)
def test_what_is_out_of_range_is_told(name: str, optimize: bool) -> None:
    network, message = WRONG[name]
    for mode in ("train", "forward"):
        net = compiled(network, mode, optimize)
        with pytest.raises(BatchError, match=message):
            net.run(DATA, LENGTHS)
        if mode == "train" and net.params:
            with pytest.raises(BatchError, match=message):
                net.gradients(DATA, LENGTHS)


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("name", RIGHT)
def test_what_a_sequence_has_not_does_not_matter(name: str, optimize: bool) -> None:
    """Padding, the steps of others, and what no mask lets through may be anything."""
    net = compiled(RIGHT[name], "train", optimize)
    assert np.isfinite(net.run(DATA, LENGTHS).losses["loss"].sum)


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("added", [0, 1])
def test_in_a_search(added: int, optimize: bool) -> None:
    """Each step chooses class 4; what the chosen labels make is looked at when the search is over."""
    unit = {
        "shifted": labels(added, "output"),
        "embedded": {**embedded("shifted"), "initial_output": 0},
        "scores": {"class": "linear", "n_out": 5, "activation": None, "from": ["prev:embedded"]},
        "prob": {"class": "activation", "activation": "softmax", "from": "scores"},
        "output": {"class": "choice", "target": "classes", "beam_size": 1, "from": "prob", "initial_output": 0},
        "end": {"class": "compare", "from": "output", "value": 0},
    }
    search = {"class": "rec", "from": [], "max_seq_len": 3, "target": "classes", "unit": unit}
    network = {"output": search}
    keys = {**EXTERN, "classes": {"dim": 5, "sparse": True, "available_for_inference": False}}
    net = rl.compile(network, keys, "search", optimize=optimize, behavior_version=21)
    net.params["output/rec/scores/b"].assign([0, 0, 0, 0, 5])
    batch = {"data": DATA["data"]}, {"data": LENGTHS["data"]}
    if added:
        with pytest.raises(BatchError, match=r"output/embedded: a label is none of the 5 cl.*: sequence 0 has 5; se"):
            net.run(*batch, layers=["output"])
    else:
        assert net.run(*batch).layers["output"].value.shape == (3, 1, 3)


def test_what_is_in_range_by_itself_is_not_checked() -> None:
    """Labels of data, of a choice in the step before, the place of the largest."""
    unit = {
        "prob": {"class": "softmax", "from": ["data:source", "prev:embedded"], "target": "classes", "loss": "ce"},
        "output": {"class": "choice", "from": "prob", "target": "classes", "beam_size": 2, "initial_output": 0},
        "embedded": {**embedded("output"), "initial_output": 0},
        "best": {"class": "reduce", "mode": "argmax", "axis": "F", "from": "prob"},
        "of_best": {**embedded("best"), "is_output_layer": True},
    }
    for mode in ("train", "search"):
        network = {"output": loop(unit, target="classes")}
        built = build({"network": network, "extern_data": EXTERN, "behavior_version": 21}, mode)  # type: ignore[arg-type]
        graph = optimized(built)
        assert not any(isinstance(node.op, CheckIndex) for node in graph.nodes)


@pytest.mark.parametrize(
    ("axis", "position", "message"),
    [
        ("F", 3, r"output.position: there is no position 3: data:feature\(3\) has 3"),
        ("T", -1, "output.position: there is no position -1: positions count from 0"),
    ],
)
def test_a_fixed_position_that_cannot_be_there_is_refused(axis: str, position: int, message: str) -> None:
    network = {"output": {"class": "gather", "axis": axis, "position": position, "from": "data"}}
    with pytest.raises(rl.ConfigError, match=message):
        rl.check({"network": network, "extern_data": EXTERN, "behavior_version": 21}, "forward")
