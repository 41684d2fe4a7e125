"""Cross-entropy with smoothed labels: values that NumPy computes; what RETURNN refuses is refused."""

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

PROBABILITIES = np.array([[[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]]], "float32")
LABELS = np.array([[2, 1]], "int32")


def loss(opts: dict[str, Any], target: str = "classes") -> float:
    net = rl.compile(
        {"output": {"class": "copy", "from": "data", "loss": "ce", "target": target, "loss_opts": opts}},
        extern_data={
            "data": {"dim": 3},
            "classes": {"dim": 3, "sparse": True, "same_dim_tags_as": {"t": "data"}},
            "dense": {"dim": 3, "same_dim_tags_as": {"t": "data"}},
        },
        mode="eval",
        behavior_version=21,
    )
    inputs = {"data": PROBABILITIES, "classes": LABELS, "dense": PROBABILITIES}
    return float(net.run(inputs, seq_lens={key: [2] for key in inputs}).losses["output"].sum)


def smoothed(eps: float, gaussian: bool) -> np.ndarray:
    """-Σ soft · log p, less the entropy of 1-ε at the label and ε/(V-1) elsewhere."""
    classes, labels = np.arange(3), LABELS[0][:, np.newaxis]
    if gaussian:
        soft = np.exp(-0.5 * ((classes - labels) / (1 - eps)) ** 2) / ((1 - eps) * np.sqrt(2 * np.pi))
    else:
        soft = np.where(classes == labels, 1 - eps, eps / 2)
    entropy = -(1 - eps) * np.log(1 - eps) - eps * np.log(eps / 2)
    return np.asarray(-(soft * np.log(PROBABILITIES[0])).sum(-1) - entropy)


@pytest.mark.parametrize("gaussian", [False, True])
def test_smoothed(gaussian: bool) -> None:
    found = loss({"label_smoothing": 0.2, "label_smoothing_gaussian": gaussian})
    np.testing.assert_allclose(found, smoothed(0.2, gaussian).sum(), rtol=1e-5)


def test_focal_factor_looks_at_the_label_alone() -> None:
    of_label = PROBABILITIES[0][[0, 1], LABELS[0]]
    expected = (smoothed(0.2, False) * (1 - of_label) ** 2).sum()
    np.testing.assert_allclose(loss({"label_smoothing": 0.2, "focal_loss_factor": 2.0}), expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [{}, {"label_smoothing": 1.0}])
def test_a_gaussian_needs_a_width(smoothing: dict[str, float]) -> None:
    with pytest.raises(rl.ConfigError, match="a Gaussian needs a label_smoothing"):
        loss({"label_smoothing_gaussian": True, **smoothing})


@pytest.mark.parametrize("opts", [{"label_smoothing": 0.1}, {"focal_loss_factor": 2.0}])
def test_a_dense_target_is_not_smoothed(opts: dict[str, float]) -> None:
    with pytest.raises(rl.ConfigError, match="sparse target"):
        loss(opts, target="dense")
