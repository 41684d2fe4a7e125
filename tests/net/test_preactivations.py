"""Losses are computed from what went into a softmax or a sigmoid, wherever the probabilities have been since."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

F = rl.Dim("features", "feature", 3)
LABELS = np.array([[2, 1], [0, 0]])
LENGTHS = {"data": [2, 1], "classes": [2, 1]}
EXTERN_DATA: dict[str, dict[str, Any]] = {
    "data": {"dim": 3},
    "classes": {"dim": 3, "sparse": True, "same_dim_tags_as": {"t": "data"}},
}
P = {"class": "activation", "activation": "softmax", "from": "data"}
TRUE = {"class": "compare", "kind": "greater_equal", "value": 0, "from": ":i"}

# Where a softmax is, and what hands it on; the loss is that of "output", or of its copy in the loop.
WAYS: dict[str, dict[str, Any]] = {
    "by itself": {"output": {**P}},
    "an expression": {"output": {"class": "eval", "eval": "tf.nn.softmax(source(0))", "from": "data"}},
    "over an axis": {"output": {"class": "softmax_over_spatial", "axis": "F", "from": "data"}},
    "copied": {"p": P, "output": {"class": "copy", "from": "p"}},
    "renamed": {"p": P, "output": {"class": "copy", "from": "p", "out_dim": F}},
    "marked": {"p": P, "output": {"class": "reinterpret_data", "from": "p", "set_axes": {"T": "T"}}},
    "transposed": {"p": P, "output": {"class": "transpose", "perm": {"T": "F"}, "from": "p"}},
    "cast": {"p": P, "output": {"class": "cast", "dtype": "float32", "from": "p"}},
    "made in a network": {"output": {"class": "subnetwork", "subnetwork": {"output": {**P}}, "from": "data"}},
    "read in a network": {
        "p": P,
        "output": {"class": "subnetwork", "subnetwork": {"output": {"class": "copy", "from": "data"}}, "from": "p"},
    },
    "a part of a network": {
        "n": {"class": "subnetwork", "subnetwork": {"p": P, "output": {"class": "copy", "from": "data"}}},
        "output": {"class": "copy", "from": "n/p"},
    },
}
IN_LOOPS: dict[str, dict[str, Any]] = {
    "a step": {"step": {**P, "from": "data:source"}},
    "masked": {
        "mask": TRUE,
        "step": {"class": "masked_computation", "mask": "mask", "unit": {**P, "from": "data"}, "from": "data:source"},
    },
    "masked network": {
        "mask": TRUE,
        "p": {**P, "from": "data:source"},
        "step": {
            "class": "masked_computation",
            "mask": "mask",
            "unit": {"class": "subnetwork", "subnetwork": {"output": {"class": "copy", "from": "data"}}},
            "from": "p",
        },
    },
}


def loss(network: dict[str, Any], name: str, data: np.ndarray, **classes: Any) -> float:
    extern_data = {**EXTERN_DATA, "classes": {**EXTERN_DATA["classes"], **classes}}
    net = rl.compile(network, extern_data, "train", behavior_version=21)
    targets = LABELS if not classes else np.stack([LABELS == 0, LABELS == 1, LABELS == 2], -1).astype("float32")
    return net.run({"data": data, "classes": targets}, LENGTHS).losses[name].sum


def cross_entropy(x: np.ndarray) -> float:
    """Of class indices, over the real frames."""
    frames, labels = np.array([x[0, 0], x[0, 1], x[1, 0]], "float64"), [2, 1, 0]
    largest = frames.max(-1)
    sums = largest + np.log(np.exp(frames - largest[:, None]).sum(-1))
    return float((sums - frames[range(3), labels]).sum())


def draw(scale: float) -> np.ndarray:
    return (np.random.default_rng(5).normal(size=(2, 2, 3)) * scale).astype("float32")


LARGE = draw(300.0)
"""Logits whose probabilities are mostly 0: their logarithms are lost."""


@pytest.mark.parametrize("way", WAYS)
def test_cross_entropy_is_that_of_the_logits(way: str) -> None:
    network = {**WAYS[way], "output": {**WAYS[way]["output"], "loss": "ce"}}
    assert loss(network, "output", LARGE) == pytest.approx(cross_entropy(LARGE), rel=1e-5)


@pytest.mark.parametrize("way", IN_LOOPS)
def test_cross_entropy_in_a_loop_is_that_of_the_logits(way: str) -> None:
    unit = {**IN_LOOPS[way], "output": {"class": "copy", "from": "step", "loss": "ce"}}
    network = {"output": {"class": "rec", "unit": unit, "from": "data"}}
    assert loss(network, "output/output", LARGE) == pytest.approx(cross_entropy(LARGE), rel=1e-5)


def test_a_softmax_over_frames_has_no_logits_of_classes() -> None:
    """Its features do not add up to 1, but are what the config calls probabilities."""
    x = draw(1.0)
    network = {"output": {"class": "softmax_over_spatial", "axis": "T", "from": "data", "loss": "ce"}}
    first = np.exp(x[0]) / np.exp(x[0]).sum(0)
    expected = -np.log(first[[0, 1], [2, 1]]).sum()  # the one frame of the second sequence has a weight of 1
    assert loss(network, "output", x) == pytest.approx(expected, rel=1e-5)


SIGMOID = {"class": "activation", "activation": "sigmoid", "from": "data"}


@pytest.mark.parametrize(
    "network",
    [
        {"output": {**SIGMOID}},
        {"output": {**SIGMOID, "out_dim": F}},
        {"p": SIGMOID, "output": {"class": "copy", "from": "p", "out_dim": F}},
        {"p": SIGMOID, "output": {"class": "transpose", "perm": {"T": "F"}, "from": "p"}},
        {"p": SIGMOID, "output": {"class": "reinterpret_data", "from": "p", "set_axes": {"T": "T"}}},
    ],
    ids=["by itself", "with a Dim", "renamed", "transposed", "marked"],
)
def test_binary_cross_entropy_is_that_before_the_sigmoid(network: dict[str, Any]) -> None:
    x, target = draw(2.0), np.stack([LABELS == 0, LABELS == 1, LABELS == 2], -1)
    frames = -np.where(target, -np.log1p(np.exp(-x)), -np.log1p(np.exp(x))).mean(-1)
    network = {**network, "output": {**network["output"], "loss": "bin_ce"}}
    found = loss(network, "output", x, sparse=False)
    assert found == pytest.approx(frames[0].sum() + frames[1, 0], rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"out_dim": F}])
def test_darc1_is_of_what_went_into_the_activation(options: dict[str, Any]) -> None:
    x = draw(2.0)
    layer = {"class": "activation", "activation": "tanh", "from": "data", "darc1": 0.5, "loss": "as_is", **options}
    net = rl.compile({"output": {**layer, "loss_scale": 0}}, EXTERN_DATA, "train", behavior_version=21)
    result = net.run({"data": x, "classes": LABELS}, LENGTHS)
    sums = np.abs(np.concatenate([x[0], x[1, :1]])).sum(0)
    assert result.objective == pytest.approx(0.5 * sums.max(), rel=1e-5)
