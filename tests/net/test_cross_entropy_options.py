"""Bounds in the cross-entropy: what the value is, and that the gradient is that of the loss without them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

# In the second sequence a class that can't be is the right one.
LOGITS = np.array([[[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]], [[0.0, 0.0, -np.inf], [0.0, 0.0, 0.0]]], "float32")
DATA = {"data": LOGITS, "classes": np.array([[2, 1], [2, 0]])}
LENGTHS = {"data": [2, 1], "classes": [2, 1]}
EXTERN_DATA: dict[str, dict[str, Any]] = {
    "data": {"dim": 3},
    "classes": {"dim": 3, "sparse": True, "same_dim_tags_as": {"t": "data"}},
}


def compiled(options: dict[str, Any], optimize: bool, mode: str = "train", **layer: Any) -> rl.Network:
    bias = {"class": "variable", "shape": (3,), "init": 0.0}
    network = {
        "bias": bias,
        "sum": {"class": "combine", "kind": "add", "from": ["data", "bias"]},
        "output": {"from": "sum", "loss": "ce", "target": "classes", "loss_opts": options, **layer},
    }
    return rl.compile(network, EXTERN_DATA, mode, behavior_version=21, optimize=optimize)


def frame_losses() -> np.ndarray:
    p = np.exp(LOGITS[0]) / np.exp(LOGITS[0]).sum(-1, keepdims=True)
    return -np.log(p[[0, 1], [2, 1]])


SOFTMAX = {"class": "activation", "activation": "softmax"}


@pytest.mark.parametrize("optimize", [True, False])
def test_a_bound_makes_a_finite_value_and_keeps_the_gradient(optimize: bool) -> None:
    free, bounded = compiled({}, optimize, **SOFTMAX), compiled({"fake_upper_bound": 2.0}, optimize, **SOFTMAX)
    assert free.run(DATA, LENGTHS).losses["output"].sum == np.inf
    found = bounded.run(DATA, LENGTHS).losses["output"].sum
    assert found == pytest.approx(np.minimum(frame_losses(), 2).sum() + 2, rel=1e-5)
    (gradient,), (expected,) = (net.gradients(DATA, LENGTHS).values() for net in (bounded, free))
    assert np.isfinite(gradient).all() and gradient.any()
    np.testing.assert_allclose(gradient, expected)


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize(("straight", "slope"), [(True, -1 / 0.25), (False, 0.0)])
def test_the_least_probability_of_a_logarithm(straight: bool, slope: float, optimize: bool) -> None:
    """The sources are the probabilities here: one is below the bound, the other above."""
    data = {"data": np.array([[[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]], "float32"), "classes": np.array([[2, 1]])}
    net = compiled({"safe_log_opts": {"eps": 0.25, "use_fake_grad": straight}}, optimize, **{"class": "copy"})
    lengths = {"data": [2], "classes": [2]}
    assert net.run(data, lengths).losses["output"].sum == pytest.approx(-np.log(0.5) - np.log(0.25))
    (gradient,) = net.gradients(data, lengths).values()
    np.testing.assert_allclose(gradient, [0, slope, -1 / 0.5], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"epsilon": 1}, "eps and use_fake_grad"),
        ({"eps": 0}, "positive"),
        ({"eps": "small"}, "positive"),
        ({"use_fake_grad": 1}, "true or false"),
    ],
)
def test_mistakes(options: dict[str, Any], what: str) -> None:
    with pytest.raises(rl.ConfigError, match=what):
        compiled({"safe_log_opts": options}, True, **SOFTMAX)


def test_bounds_that_would_be_ignored() -> None:
    with pytest.raises(rl.ConfigError, match="smoothed labels"):
        compiled({"safe_log_opts": {}, "label_smoothing": 0.1}, True, **SOFTMAX)


@pytest.mark.parametrize("optimize", [True, False])
def test_targets_and_their_probabilities_are_printed(capfd: pytest.CaptureFixture[str], optimize: bool) -> None:
    compiled({"debug_dump": True}, optimize, **SOFTMAX).run(DATA, LENGTHS)
    printed = capfd.readouterr().err
    assert "output target [[" in printed
    probabilities = printed.partition("output probability of the target")[2]
    for probability in np.exp(-frame_losses()):
        assert f"{probability:.6f}"[:-1] in probabilities
