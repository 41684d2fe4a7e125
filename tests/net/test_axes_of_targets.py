"""An output that has other axes than its target: the one is the same along what only the other has, and each entry is a
frame; refused where both have more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.compiler import build, optimized
from tests.properties.running import run, sequence_of
from tests.reference.named import Array

GENERATOR = np.random.default_rng(1)
EXTERN: dict[str, Any] = {
    "data": {"dim": 4},
    "classes": {"dim": 5, "sparse": True, "same_dim_tags_as": {"t": "data"}},
    "vector": {"dim": 5, "same_dim_tags_as": {"t": "data"}},
    "labels": {"dim": 5, "sparse": True},
    "pairs": {"shape": (None, 3), "dim": 5, "sparse": True, "same_dim_tags_as": {"t": "data"}},
}
FEED: dict[str, Array] = {
    "data": GENERATOR.normal(size=(3, 5, 4)),
    "classes": GENERATOR.integers(0, 5, (3, 5)),
    "vector": GENERATOR.normal(size=(3, 5, 5)),
    "labels": GENERATOR.integers(0, 5, (3, 2)),
    "pairs": GENERATOR.integers(0, 5, (3, 5, 3)),
}
LENGTHS: dict[str, Array] = {key: np.array([5, 2, 4]) for key in EXTERN} | {"labels": np.array([2, 1, 2])}
HALVES: dict[str, Any] = {"class": "split_dims", "axis": "F", "dims": [2, 2], "from": "data"}
LOSSES: dict[str, dict[str, Any]] = {
    "ce": {"class": "softmax", "loss": "ce", "target": "classes"},
    "ce of a vector": {"class": "softmax", "loss": "ce", "target": "vector"},
    "bin_ce": {"class": "linear", "activation": "sigmoid", "loss": "bin_ce", "target": "vector"},
    "mse": {"class": "linear", "activation": None, "loss": "mse", "target": "vector"},
    "mean_l1": {"class": "linear", "activation": None, "loss": "mean_l1", "target": "classes"},
    "ctc": {"class": "softmax", "loss": "ctc", "target": "labels", "n_out": 6, "loss_opts": {"beam_width": 1}},
    "edit_distance": {
        "class": "softmax", "loss": "edit_distance", "target": "labels", "n_out": 6,
        "loss_opts": {"ctc_decode": True},
    },
}  # fmt: skip


def losses(network: dict[str, Any], optimize: bool, sequence: int | None = None) -> dict[str, float]:
    built = build({"network": network, "extern_data": EXTERN, "behavior_version": 21}, "eval")
    batch = (FEED, LENGTHS) if sequence is None else sequence_of(FEED, LENGTHS, sequence)
    found = run(built, optimized(built, optimize), *batch)
    return {name: float(value.array) for name, value in found.items() if name.startswith("loss:output:")}


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_the_target_is_the_same_for_all_entries_of_an_axis(name: str, optimize: bool) -> None:
    """With two entries, the loss is that of the one and of the other, its count too."""
    layer = LOSSES[name]
    found = losses({"halves": HALVES, "output": {**layer, "from": "halves"}}, optimize)
    parts = []
    for half in range(2):
        one = {"class": "gather", "axis": "static:0", "position": half, "from": "halves"}
        parts.append(losses({"halves": HALVES, "one": one, "output": {**layer, "from": "one"}}, optimize))
    assert found == pytest.approx({key: parts[0][key] + parts[1][key] for key in found})
    assert found == pytest.approx(
        {
            key: sum(
                losses({"halves": HALVES, "output": {**layer, "from": "halves"}}, optimize, i)[key] for i in range(3)
            )
            for key in found
        }
    )


def test_the_output_is_the_same_for_all_frames_of_a_target() -> None:
    mean = {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"}
    found = losses({"mean": mean, "output": {**LOSSES["ce"], "from": "mean"}}, True)
    zero = {"class": "eval", "eval": "0.0 * source(0)", "from": "data"}
    repeated = {"class": "combine", "kind": "add", "from": ["zero", "mean"]}
    wanted = losses({"mean": mean, "zero": zero, "x": repeated, "output": {**LOSSES["ce"], "from": "x"}}, True)
    assert found["loss:output:count"] == 11
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["ce", "mse", "mean_l1"])
def test_axes_that_each_lacks_of_the_other_are_refused(name: str) -> None:
    network = {"halves": HALVES, "output": {**LOSSES[name], "from": "halves", "target": "pairs", "n_out": 5}}
    message = r"network.output.target: the output has .*\(2\), which the target lacks, and the target pairs.*\(3\), whi"
    with pytest.raises(rl.ConfigError, match=message):
        rl.check({"network": network, "extern_data": EXTERN, "behavior_version": 21}, "train")
