"""The phased LSTM: its formula on single sequences, in all ways, and what a cell with two inputs needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.tf.executable import Executable

DATA = {"data": {"dim": 3}, "t": {"shape": (None, 1), "dim": 1, "dtype": "float64", "same_dim_tags_as": {"t": "data"}}}
LENGTHS = [5, 3]
GENERATOR = np.random.default_rng(3)
SOURCE = GENERATOR.normal(size=(2, 5, 3))
TIMES = np.cumsum(GENERATOR.uniform(0.2, 1.5, size=(2, 5, 1)), axis=1)
UNIT = {"class": "phased_lstm", "units": 4}


def layers_of(unit: Any, *, in_loop: bool = False) -> dict[str, Any]:
    layer = {"class": "rec", "from": ["data:t", "data"], "unit": unit}
    if in_loop:
        step = {"class": "rnn_cell", "from": ["data:t", "data:source"], "unit": unit}
        layer = {"class": "rec", "from": "data", "unit": {"output": step}}
    return {"output": layer}


def network(unit: Any, *, in_loop: bool = False, optimize: bool = True) -> tuple[Executable, dict[str, np.ndarray]]:
    """The network of a unit and its parameters, which are drawn by the order of their names."""
    net = rl.compile(layers_of(unit, in_loop=in_loop), DATA, "eval", behavior_version=21, optimize=optimize)
    scope, values = "output/rec/output/rec/" if in_loop else "output/rec/", {}
    for seed, name in enumerate(sorted(net.params)):
        generator = np.random.default_rng(seed)
        shape = net.params[name].shape
        drawn = {"period": (1.0, 6.0), "phase": (0.0, 3.0), "ratio_on": (0.2, 0.7)}.get(name.split("/")[-1], (-1, 1))
        net.params[name].assign(generator.uniform(*drawn, size=shape))
        values[name.removeprefix(scope)] = net.params[name].numpy().astype("float64")
    return net, values


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def expected(p: dict[str, np.ndarray], x: np.ndarray, t: np.ndarray, *, peephole: bool, leak: float) -> np.ndarray:
    """The outputs of one sequence."""
    c = h = np.zeros(4)
    outputs = []
    for frame, time in zip(x, t, strict=True):
        seen = [c] if peephole else []
        i, f = np.split(sigmoid(np.concatenate([frame, h, *seen]) @ p["mask_gates/kernel"] + p["mask_gates/bias"]), 2)
        g = np.tanh(np.concatenate([frame, h]) @ p["new_input/kernel"] + p["new_input/bias"])
        new_c = f * c + i * g
        seen = [new_c] if peephole else []
        o = sigmoid(np.concatenate([frame, h, *seen]) @ p["output_gate/kernel"] + p["output_gate/bias"])
        new_h = o * np.tanh(new_c)
        phi, r = np.mod(time - p["phase"], p["period"]) / p["period"], p["ratio_on"]
        k = np.where(phi < r / 2, 2 * phi / r, np.where(phi < r, 2 - 2 * phi / r, leak * phi))
        c, h = k * new_c + (1 - k) * c, k * new_h + (1 - k) * h
        outputs.append(h)
    return np.stack(outputs)


@pytest.mark.parametrize(("in_loop", "optimize"), [(False, True), (False, False), (True, True), (True, False)])
@pytest.mark.parametrize(("peephole", "leak"), [(False, 0.001), (True, 0.3)])
def test_formula(peephole: bool, leak: float, in_loop: bool, optimize: bool) -> None:
    net, params = network({**UNIT, "peephole": peephole, "leak": leak}, in_loop=in_loop, optimize=optimize)
    output = net.run({"data": SOURCE, "t": TIMES}, {"data": LENGTHS}).layers["output"].value
    for row, length in enumerate(LENGTHS):
        frames = slice(0, length)
        wanted = expected(params, SOURCE[row, frames], TIMES[row, frames], peephole=peephole, leak=leak)
        np.testing.assert_allclose(output[row, frames], wanted, rtol=1e-5, atol=1e-6)


def test_phi_has_the_precision_of_time() -> None:
    """Seconds since 1970 are no float32: the least difference would be two minutes."""
    late = TIMES + 1.6e9
    net, params = network(UNIT)
    output = net.run({"data": SOURCE, "t": late}, {"data": LENGTHS}).layers["output"].value
    wanted = expected(params, SOURCE[0], late[0], peephole=False, leak=0.001)
    np.testing.assert_allclose(output[0], wanted, rtol=1e-4, atol=1e-5)


def test_parameters() -> None:
    unit = {**UNIT, "units": 200, "trainable_ratio_on": False, "period_init_min": 2.0, "period_init_max": 50.0}
    net = rl.compile(layers_of({**unit, "peephole": True, "ratio_on": 0.3}), DATA, "eval", behavior_version=21)
    values = {name.removeprefix("output/rec/"): variable for name, variable in net.params.items()}
    assert {name: tuple(value.shape) for name, value in values.items()} == {
        "mask_gates/kernel": (3 + 200 + 200, 400),
        "mask_gates/bias": (400,),
        "new_input/kernel": (3 + 200, 200),
        "new_input/bias": (200,),
        "output_gate/kernel": (3 + 200 + 200, 200),
        "output_gate/bias": (200,),
        "period": (200,),
        "phase": (200,),
        "ratio_on": (200,),
    }
    assert [name for name, value in values.items() if not value.trainable] == ["ratio_on"]
    assert np.all(values["ratio_on"].numpy() == np.float32(0.3))
    period, phase = values["period"].numpy(), values["phase"].numpy()
    assert 2 <= period.min() < 2.5 and 40 < period.max() <= 50
    assert abs(np.mean(np.log(period)) - np.log(10)) < 0.25, "uniform is the logarithm"
    part = phase / period
    assert 0 <= part.min() < 0.05 and 0.95 < part.max() <= 1 and abs(part.mean() - 0.5) < 0.1
    assert abs(np.corrcoef(period, part)[0, 1]) < 0.3


@pytest.mark.parametrize("in_loop", [False, True])
def test_first_of_a_stack_reads_all_sources(in_loop: bool) -> None:
    net, params = network([UNIT, {"class": "gru", "units": 2}], in_loop=in_loop)
    assert params["0/period"].shape == (4,)
    output = net.run({"data": SOURCE, "t": TIMES}, {"data": LENGTHS}).layers["output"].value
    later = net.run({"data": SOURCE, "t": TIMES + 0.5}, {"data": LENGTHS}).layers["output"].value
    assert output.shape == (2, 5, 2)
    assert np.abs(output - later).max() > 1e-3


def test_time_without_features_and_as_numbers() -> None:
    net, _ = network(UNIT)
    wanted = net.run({"data": SOURCE, "t": np.floor(TIMES)}, {"data": LENGTHS}).layers["output"].value
    for dtype in ("float32", "int32"):
        entry = {"shape": (None,), "dtype": dtype, "feature_dim_axis": None, "same_dim_tags_as": {"t": "data"}}
        other = rl.compile(layers_of(UNIT), {**DATA, "t": entry}, "eval", behavior_version=21)
        for name, variable in other.params.items():
            variable.assign(net.params[name])
        times = np.floor(TIMES)[..., 0].astype(dtype)
        output = other.run({"data": SOURCE, "t": times}, {"data": LENGTHS}).layers["output"].value
        np.testing.assert_allclose(output, wanted, rtol=1e-5, atol=1e-6)


def test_initial_state_and_last_state() -> None:
    layers = layers_of(UNIT)
    layers["output"]["initial_state"] = {"h": "data:h0", "c": 0.5}
    layers["last"] = {"class": "get_last_hidden_state", "from": "output", "key": "c", "is_output_layer": True}
    data = {**DATA, "h0": {"shape": (4,), "dim": 4, "time_dim_axis": None}}
    net = rl.compile(layers, data, "eval", behavior_version=21)
    feeds = {"data": SOURCE, "t": TIMES, "h0": np.ones((2, 4))}
    results = net.run(feeds, {"data": [5, 0]}).layers
    np.testing.assert_array_equal(results["last"].value[1], 0.5)
    assert np.abs(results["last"].value[0] - 0.5).max() > 1e-4


@pytest.mark.parametrize("direction", [-1, "both"])
def test_backwards(direction: Any) -> None:
    """Both sources are read from each sequence's end."""
    layers = layers_of(UNIT)
    layers["output"] |= {"direction": direction}
    net = rl.compile(layers, DATA, "eval", behavior_version=21)
    for seed, name in enumerate(sorted(net.params)):
        net.params[name].assign(np.random.default_rng(seed).uniform(0.5, 1.5, size=net.params[name].shape))
    output = net.run({"data": SOURCE, "t": TIMES}, {"data": LENGTHS}).layers["output"].value[..., -4:]
    scope = "output/rec/backward/" if direction == "both" else "output/rec/"
    found = {name.removeprefix(scope): net.params[name].numpy().astype("float64") for name in net.params}
    for row, length in enumerate(LENGTHS):
        x, t = SOURCE[row, :length][::-1], TIMES[row, :length][::-1]
        wanted = expected(found, x, t, peephole=False, leak=0.001)[::-1]
        np.testing.assert_allclose(output[row, :length], wanted, rtol=1e-5, atol=1e-6)


def test_under_a_mask() -> None:
    """The frames that a mask leaves out are no frames of the cell, nor are their times."""
    pair = {"class": "rnn_cell", "from": ["time", "data"], "unit": UNIT}
    loop: dict[str, Any] = {
        "time": {"class": "rec_unstack", "from": "base:data:t"},
        "first": {"class": "gather", "from": "data:source", "axis": "F", "position": 0},
        "mask": {"class": "compare", "from": "first", "value": 0.0, "kind": "greater"},
        "output": {"class": "masked_computation", "mask": "mask", "from": "data:source", "unit": pair},
    }
    net = rl.compile({"output": {"class": "rec", "from": "data", "unit": loop}}, DATA, "eval", behavior_version=21)
    params: dict[str, np.ndarray] = {}
    for seed, name in enumerate(sorted(net.params)):
        net.params[name].assign(np.random.default_rng(seed).uniform(0.5, 1.5, size=net.params[name].shape))
        params[name.rpartition("rec/")[2]] = net.params[name].numpy().astype("float64")
    source, times = GENERATOR.normal(size=(1, 6, 3)), np.arange(6.0)[None, :, None]
    source[0, :, 0] = [1, -1, 1, 1, -1, 1]
    output = net.run({"data": source, "t": times}, {"data": [6]}).layers["output"].value[0]
    kept = source[0, :, 0] > 0
    wanted = expected(params, source[0][kept], times[0][kept], peephole=False, leak=0.001)
    np.testing.assert_allclose(output[kept], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("direction", [1, "both"])
def test_sources_from_around_a_loop(direction: Any) -> None:
    """Each of its steps runs over the same frames."""
    run = {"class": "rec", "unit": UNIT, "direction": direction}
    last = {"class": "reduce", "mode": "sum", "axis": "T", "from": "run"}
    step = {"run": {**run, "from": ["base:data:t", "base:data"]}, "output": last}
    found = []
    for layers in (
        {"output": {"class": "rec", "from": "data", "unit": step}},
        {"run": {**run, "from": ["data:t", "data"]}, "output": last},
    ):
        net = rl.compile(layers, DATA, "eval", behavior_version=21)
        for seed, name in enumerate(sorted(net.params)):
            net.params[name].assign(np.random.default_rng(seed).uniform(0.2, 1.0, size=net.params[name].shape))
        found.append(net.run({"data": SOURCE, "t": TIMES}, {"data": LENGTHS}).layers["output"].value)
    for step_of_first in range(5):
        np.testing.assert_allclose(found[0][0, step_of_first], found[1][0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[0][1, 2], found[1][1], rtol=1e-5, atol=1e-5)


REFUSED: dict[str, tuple[Any, list[str], str]] = {
    "one source": (UNIT, ["data"], r"the cell reads 2 sources \(time, x\), but gets 1"),
    "three sources": (UNIT, ["data:t", "data", "data"], r"reads 2 sources \(time, x\), but gets 3"),
    "the other order": (UNIT, ["data", "data:t"], r"time is one number for each frame"),
    "other frames": (UNIT, ["data:other", "data"], r"the sources have other frames"),
    "in a wrapper": ({"class": "residual", "cell": UNIT}, ["data:t", "data"], "'residual' is for cells of one source"),
    "second of a stack": (["gru", UNIT], ["data"], r"reads 2 sources \(time, x\), but gets 1"),
    "periods": (
        {**UNIT, "period_init_min": 3.0, "period_init_max": 2.0},
        ["data:t", "data"],
        "at most period_init_max",
    ),
    "no period": ({**UNIT, "period_init_min": 0.0}, ["data:t", "data"], "period_init_min is above 0"),
    "never open": ({**UNIT, "ratio_on": 0.0}, ["data:t", "data"], "ratio_on is above 0"),
    "dropout of joined": (UNIT, ["data:t", "data"], "'rec' does not join its sources"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    unit, sources, message = REFUSED[name]
    data = {**DATA, "other": {"shape": (None, 1), "dim": 1}}
    layer = {
        "class": "rec",
        "from": sources,
        "unit": unit,
        "n_out": 4,
        **({"dropout": 0.1} if "dropout" in name else {}),
    }
    with pytest.raises(rl.ConfigError, match=message):
        rl.check({"network": {"output": layer}, "extern_data": data, "behavior_version": 21}, "eval")
