"""Layers that change gradients: against their formulas, and the same in a loop whether optimised or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.layers.affine import Linear
from returnn_lite.layers.base import LayerError
from returnn_lite.layers.gradients import ScaledGrad
from tests.layers.harness import Bench, draw

X = draw(2, 3, 4)
LENGTHS = [3, 2]
REAL = np.array([[1, 1, 1], [1, 1, 0]], "float32")[:, :, None]
WEIGHT = {"class": "linear", "activation": None, "n_out": 4, "with_bias": True, "from": "data"}


def gradient_of_bias(network: dict[str, Any], optimize: bool = True) -> dict[str, np.ndarray]:
    """The gradients of all parameters; the objective is the sum of the squares of "output"."""
    loss = {"class": "eval", "eval": "source(0) ** 2", "from": "output", "loss": "as_is"}
    net = rl.compile(
        {**network, "loss": loss},
        extern_data={"data": {"dim": 4}},
        mode="train",
        behavior_version=21,
        optimize=optimize,
    )
    for variable in net.params.values():
        variable.assign(draw(*variable.shape, seed=3))
    return net.gradients({"data": X}, {"data": LENGTHS})


def weighted() -> tuple[np.ndarray, np.ndarray]:
    """The output of the linear layer "y" of the networks here, and the gradient that reaches it."""
    w, b = draw(4, 4, seed=3), draw(4, seed=3)
    y = X @ w + b
    return y, 2 * y * REAL


def largest(g: np.ndarray) -> np.ndarray:
    return np.abs(g).max(-1, keepdims=True)


FORMULAS = {
    "shift": ({"scale": 2.0, "shift": 0.5}, lambda g: 2 * g + 0.5),
    "no_scale": ({"scale": 0, "shift": 0.5}, lambda g: 0 * g + 0.5),
    "sum": (
        {"scale": 1.0, "shift": -0.1, "scale_shift_by_sum_over_axis": "F"},
        lambda g: g - 0.1 * np.abs(g).sum(-1, keepdims=True),
    ),
    "clip": (
        {"scale": 1.5, "shift": 0.5, "clip_max_axis": "F"},
        lambda g: np.clip(1.5 * g + 0.5, -largest(g), largest(g)),
    ),
    "clip_time": (
        {"scale": 3.0, "clip_max_axis": "T"},
        lambda g: np.clip(3 * g, -np.abs(g).max(1, keepdims=True), np.abs(g).max(1, keepdims=True)),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_scaled_grad(name: str) -> None:
    options, formula = FORMULAS[name]
    found = gradient_of_bias({"y": WEIGHT, "output": {"class": "scaled_grad", "from": "y", **options}})
    _, g = weighted()
    np.testing.assert_allclose(found["y/b"], (formula(g) * REAL).sum((0, 1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("optimize", [True, False])
def test_grad_filter(optimize: bool) -> None:
    """On whole sequences the largest entry of a sequence decides, in a loop that of a step."""
    _, g = weighted()
    squares = (g**2).max(-1)
    threshold = float(squares[0].max() + squares[0].min()) / 2
    linear = {**WEIGHT, "grad_filter": threshold}
    unit = {"y": {**linear, "from": "data:source"}, "output": {"class": "copy", "from": "y"}}
    networks = {
        "output/rec/y/b": {"output": {"class": "rec", "from": "data", "unit": unit}},
        "y/b": {"y": linear, "output": {"class": "copy", "from": "y"}},
    }
    kept = {"output/rec/y/b": squares < threshold, "y/b": (squares.max(1, keepdims=True) < threshold)}
    assert not kept["y/b"][0]
    assert kept["output/rec/y/b"][0].any() and not kept["output/rec/y/b"][0].all()
    for name, network in networks.items():
        expected = (g * kept[name][..., None]).sum((0, 1))
        np.testing.assert_allclose(gradient_of_bias(network, optimize)[name], expected, rtol=1e-4, atol=1e-4)


INNER = {
    "clip": {"scale": 2.0, "clip_max_axis": "F"},
    "shift": {"scale": 1.0, "shift": 0.3},
    "sum": {"scale": 1.0, "shift": 0.3, "scale_shift_by_sum_over_axis": "F"},
}


@pytest.mark.parametrize("name", INNER)
def test_each_step_has_its_own_gradient(name: str) -> None:
    """Also of a value that is the same in all steps: what moves it out of the loop must not change a sum instead."""
    unit = {
        "x": {"class": "scaled_grad", "from": "base:mean", **INNER[name]},
        "output": {"class": "combine", "kind": "mul", "from": ["x", "data:source"]},
    }
    network = {
        "y": WEIGHT,
        "mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "y"},
        "output": {"class": "rec", "from": "data", "unit": unit},
    }
    found = [gradient_of_bias(network, optimize)["y/b"] for optimize in (True, False)]
    y, _ = weighted()
    mean = (y * REAL).sum(1, keepdims=True) / np.array(LENGTHS)[:, None, None]
    g = 2 * mean * X**2 * REAL
    options = INNER[name]
    changed = options["scale"] * g
    shift = options.get("shift", 0.0)
    changed = changed + shift * (np.abs(g).sum(-1, keepdims=True) if name == "sum" else REAL)
    if name == "clip":
        changed = np.clip(changed, -largest(g), largest(g))
    for bias in found:
        np.testing.assert_allclose(bias, changed.sum((0, 1)), rtol=1e-4, atol=1e-4)


def test_equal_layers_change_their_own_gradients() -> None:
    """What is filtered is the gradient of one layer, not the sum of those of equal ones."""
    network = {
        "y": WEIGHT,
        "a": {"class": "scaled_grad", "scale": 1.0, "shift": 0.5, "from": "y"},
        "b": {"class": "scaled_grad", "scale": 1.0, "shift": 0.5, "from": "y"},
        "output": {"class": "combine", "kind": "add", "from": ["a", "b"]},
    }
    y, _ = weighted()
    expected = (2 * (2 * 2 * y + 0.5) * REAL).sum((0, 1))
    for optimize in (True, False):
        np.testing.assert_allclose(gradient_of_bias(network, optimize)["y/b"], expected, rtol=1e-4)


def test_values_stay() -> None:
    bench = Bench()
    x = bench.input("x", bench.batch, bench.time, bench.feature(4))
    scaled = bench.build(ScaledGrad(scale=2.0, shift=1.0, clip_max_axis="F"), x)
    linear = bench.build(Linear(grad_filter=0.1, with_bias=False), scaled, name="linear", n_out=2)
    weights = draw(4, 2)
    np.testing.assert_allclose(
        bench.run(linear, {"x": X}, parameters={"linear/W": weights}).value[0], X[0] @ weights, rtol=1e-5
    )


def test_a_layer_with_other_dims_is_refused() -> None:
    bench = Bench()
    x = bench.input("x", bench.batch, bench.time, bench.feature(4))
    bench.input("y", bench.batch, bench.feature(3, "G"))
    with pytest.raises(LayerError, match="does not fit the source"):
        bench.build(ScaledGrad(scale="y"), x)


def test_shift_under_a_mask_is_refused() -> None:
    unit = {
        "mask": {"class": "compare", "kind": "greater", "value": 0.0, "from": "first"},
        "first": {"class": "reduce", "mode": "max", "axis": "F", "from": "data:source"},
        "output": {
            "class": "masked_computation",
            "mask": "mask",
            "from": "data:source",
            "unit": {"class": "scaled_grad", "scale": 1.0, "shift": 0.5, "from": "data"},
        },
    }
    with pytest.raises(rl.ConfigError, match="under a mask"):
        gradient_of_bias({"output": {"class": "rec", "from": "data", "unit": unit}})
