"""random, rand_int: their distributions, in and out of a loop, where each step draws anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite import ConfigError
from returnn_lite.compiler import Network

BOTH = pytest.mark.parametrize("optimize", [True, False])
BATCH, STEPS, WIDTH = 40, 30, 25
TEN: Mapping[str, Any] = {"class": "constant", "value": 10.0}
DISTRIBUTIONS: Mapping[str, tuple[dict[str, Any], float, float, float, float]] = {
    "up to": ({"distribution": "uniform", "maxval": 3.0}, 0.0, 3.0, 1.5, 3 / 12**0.5),
    "between": ({"distribution": "uniform", "minval": -1.0, "maxval": 3.0}, -1.0, 3.0, 1.0, 4 / 12**0.5),
    "bound": ({"distribution": "uniform", "bound": 2.0}, -2.0, 2.0, 0.0, 4 / 12**0.5),
    "uniform by deviation": ({"distribution": "uniform", "mean": 5, "stddev": 2.0}, 5 - 12**0.5, 5 + 12**0.5, 5.0, 2.0),
    "normal": ({"distribution": "normal"}, -np.inf, np.inf, 0.0, 1.0),
    "normal of": ({"distribution": "normal", "mean": 4.0, "stddev": 0.5}, -np.inf, np.inf, 4.0, 0.5),
    "truncated": ({"distribution": "truncated_normal", "mean": 1.0, "stddev": 0.5}, 0.0, 2.0, 1.0, 0.5 * 0.8796),
    "ints": ({"distribution": "uniform", "minval": 2, "maxval": 7, "dtype": "int32"}, 2, 6, 4.0, 2**0.5),
    "bound of a layer": ({"distribution": "uniform", "bound": "ten"}, -10.0, 10.0, 0.0, 20 / 12**0.5),
    "up to a layer": ({"distribution": "uniform", "maxval": "ten"}, 0.0, 10.0, 5.0, 10 / 12**0.5),
    "ints up to a layer": ({"distribution": "uniform", "maxval": "ten", "dtype": "int32"}, 0, 9, 4.5, 8.25**0.5),
    "uniform by a layer": (
        {"distribution": "uniform", "mean": "ten", "stddev": 1.0},
        10 - 3**0.5,
        10 + 3**0.5,
        10.0,
        1,
    ),
    "normal around a layer": ({"distribution": "normal", "mean": "ten", "stddev": 3.0}, -np.inf, np.inf, 10.0, 3.0),
    "rand_int": ({"class": "rand_int", "minval": 2, "maxval": 7}, 2, 6, 4.0, 2**0.5),
    "rand_int of a layer": ({"class": "rand_int", "maxval": "ten"}, 0, 9, 4.5, 8.25**0.5),
}
"""Options; the least and the largest number; mean and standard deviation."""
NORMAL = {"distribution": "normal"}


def random(shape: Any = ("B", WIDTH), **options: Any) -> dict[str, Any]:
    return {"class": "random", "shape": list(shape), **options}


def compiled(network: dict[str, Any], optimize: bool = True) -> Network:
    config = {"network": network, "extern_data": {"data": {"dim": 2}}, "behavior_version": 21}
    return Network(config, "train", optimize, "float32", {}, 42, draws_by_step=True)


def run(net: Network, layer: str = "output") -> np.ndarray:
    """The output, the batch first."""
    data = np.zeros((BATCH, STEPS, 2), "float32")
    out = net.run({"data": data}, {"data": [STEPS] * BATCH}).layers[layer]
    order = sorted(range(len(out.dims)), key=lambda i: (out.dims[i] != "B", out.dims[i] != "data:time", i))
    return np.transpose(np.asarray(out.value), order)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions(name: str) -> None:
    options, least, most, mean, deviation = DISTRIBUTIONS[name]
    net = compiled({"ten": TEN, "output": random(("B", STEPS, WIDTH), **options)})
    for found in (run(net), run(net)):
        assert found.shape == (BATCH, STEPS, WIDTH)
        assert found.dtype == ("int32" if "int" in name else "float32")
        assert found.min() >= least
        assert found.max() <= most
        if "int" in name:
            assert set(np.unique(found)) == set(range(int(least), int(most) + 1))
        elif np.isfinite(least):
            assert found.min() < least + 0.02 * (most - least)
            assert found.max() > most - 0.02 * (most - least)
        np.testing.assert_allclose(found.mean(), mean, atol=0.03 * deviation)
        np.testing.assert_allclose(found.std(), deviation, rtol=0.03)
    assert not np.array_equal(run(net), run(net)), "each run draws anew"


@pytest.mark.parametrize("layer", [random(**NORMAL), {"class": "rand_int", "shape": ["B", WIDTH], "maxval": 1000}])
@pytest.mark.parametrize("around", [{}, {"in_cycle": True}])
def test_each_step_of_a_loop_draws_anew(layer: dict[str, Any], around: dict[str, Any]) -> None:
    """What leaves the loop draws what it would have drawn inside."""
    network = {"output": {"class": "rec", "from": "data", "unit": {"output": layer}}}
    if around:
        add = {"class": "combine", "kind": "add", "from": ["prev:output", "r"]}
        network = {"output": {"class": "rec", "from": "data", "unit": {"r": layer, "output": add}}}
    fast, plain = (run(compiled(network, optimize)) for optimize in (True, False))
    np.testing.assert_allclose(fast, plain, rtol=1e-5, atol=1e-4)
    drawn = np.diff(fast, axis=1) if around else fast
    assert len(np.unique(drawn[0, :, 0])) > STEPS // 2
    assert len(np.unique(drawn[:, 0, 0])) > BATCH // 2


@pytest.mark.parametrize("in_cycle", [False, True])
def test_a_loop_in_a_loop_draws_anew_in_each_step(in_cycle: bool) -> None:
    """Though nothing that it reads differs from step to step."""
    summed = {"class": "combine", "kind": "add", "from": ["r", "prev:output"] if in_cycle else ["r", "data:source"]}
    inner = {"class": "rec", "from": "base:frames", "unit": {"r": random(("B", 2), **NORMAL), "output": summed}}
    total = {"class": "reduce", "mode": "sum", "axis": "T", "from": "inner"}
    frames = {"class": "pad", "axes": "T", "padding": [0, 2], "from": "data"}
    network = {"frames": frames, "output": {"class": "rec", "from": "data", "unit": {"inner": inner, "output": total}}}
    fast, plain = (run(compiled(network, optimize)) for optimize in (True, False))
    np.testing.assert_allclose(fast, plain, rtol=1e-4, atol=1e-4)
    assert len(np.unique(fast[0, :, 0])) > STEPS // 2


@BOTH
def test_a_parameter_may_change_from_step_to_step(optimize: bool) -> None:
    layer = random((), distribution="uniform", maxval="n", dtype="int32")
    unit = {"n": {"class": "eval", "from": ":i", "eval": "source(0) + 1"}, "output": layer}
    net = compiled({"output": {"class": "rec", "from": "data", "unit": unit}}, optimize)
    found = np.stack([run(net).reshape(-1)[:STEPS] for _ in range(20)])
    assert (found >= 0).all()
    assert (found <= np.arange(STEPS)).all()
    assert (found.max(0)[5:] > 0).all()


@BOTH
def test_what_is_static_is_the_same_in_all_runs_and_steps(optimize: bool) -> None:
    unit = {"a": random(**NORMAL, static=True), "b": random(**NORMAL), "output": {"class": "copy", "from": ["a", "b"]}}
    net = compiled({"output": {"class": "rec", "from": "data", "unit": unit}}, optimize)
    first, second = run(net), run(net)
    np.testing.assert_array_equal(first[..., :WIDTH], second[..., :WIDTH])
    np.testing.assert_array_equal(first[:, :1, :WIDTH].repeat(STEPS, 1), first[..., :WIDTH])
    assert not np.array_equal(first[..., WIDTH:], second[..., WIDTH:])


def test_layers_of_one_seed_draw_the_same_and_others_do_not() -> None:
    layers = {"a": random(**NORMAL, seed=3), "b": random(**NORMAL, seed=3), "c": random(**NORMAL, seed=[3, 4])}
    layers |= {"d": random(**NORMAL), "e": random(**NORMAL)}
    net = compiled(layers | {"output": {"class": "copy", "from": list(layers)}})
    a, b, *others = np.split(run(net), len(layers), axis=1)
    np.testing.assert_array_equal(a, b)
    for i, x in enumerate([a, *others]):
        for y in [a, *others][:i]:
            assert not np.array_equal(x, y)


@pytest.mark.parametrize("stop_grad", [True, False])
def test_gradients_of_the_parameters(stop_grad: bool) -> None:
    """The derivative of mean + stddev * draw."""
    layers = {
        "mu": {"class": "variable", "shape": [], "init": 2.0},
        "sigma": {"class": "variable", "shape": [], "init": 1.5},
        "output": {
            **random((WIDTH,), distribution="normal", mean="mu", stddev="sigma", static=True, stop_grad=stop_grad),
            "loss": "as_is",
        },
        "other": {"class": "combine", "kind": "add", "from": ["mu", "sigma"], "loss": "as_is"},
    }
    net = compiled(layers)
    data = {"data": np.zeros((BATCH, STEPS, 2), "float32")}
    drawn = net.run(data, {"data": [STEPS] * BATCH}).layers["output"].value
    gradients = net.gradients(data, {"data": [STEPS] * BATCH})
    expected = (0.0, 0.0) if stop_grad else (WIDTH, ((np.asarray(drawn) - 2.0) / 1.5).sum())
    found = [gradients[next(name for name in gradients if key in name)] - 1.0 for key in ("mu", "sigma")]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_class_indices() -> None:
    layers = {
        "r": {"class": "rand_int", "shape": ["B"], "maxval": 6, "sparse_dim": rl.Dim("six", rl.DimKind.FEATURE, 6)},
        "output": {"class": "linear", "from": "r", "n_out": 3, "activation": None},
    }
    assert run(compiled(layers)).shape == (BATCH, 3)


def message(layer: dict[str, Any], more: dict[str, Any] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        compiled({**(more or {}), "output": layer})
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"distribution": "uniform"}, "what is drawn from is not known"),
        ({"distribution": "uniform", "minval": 1}, "minval without maxval"),
        ({"distribution": "uniform", "minval": 2, "maxval": 2}, "there is nothing between 2 and 2"),
        ({"distribution": "uniform", "maxval": 2, "bound": 2}, "bound does not go with the others of 'uniform'"),
        ({"distribution": "normal", "maxval": 2.0}, "maxval does not go with the others of 'normal'"),
        ({"distribution": "normal", "dtype": "int32"}, "a normal distribution has no int32"),
        ({"distribution": "truncated_normal", "maxval": 3.0}, "ends two standard deviations from its mean, not at 3.0"),
        ({"distribution": "normal", "mean": "data"}, "not one number"),
        ({"distribution": "normal", "algorithm": "philox"}, "TensorFlow's stateless draws"),
        ({"distribution": "normal", "explicit_state": "state"}, "and on no state"),
        ({"distribution": "normal", "auto_update_state": True}, "and on no state"),
        ({"distribution": "normal", "sparse_dim": 4}, "class indices can't be float32"),
        ({"distribution": "normal", "shape": ["B", "B"]}, "a dim occurs twice"),
        ({"distribution": "normal", "shape": ["T"]}, "expected a size or a Dim, got 'T'"),
    ],
)
def test_refused(options: dict[str, Any], wanted: str) -> None:
    assert wanted in message({**random(), **options})


def test_no_state_of_random_numbers() -> None:
    assert "and on no state" in message({"class": "random_state_init"})
