"""Recurrent units: what is random in training, what they refuse, and that units with loops in them agree with those
without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from tests.layers.harness import draw

BATCH, FRAMES, WIDTH = 40, 6, 8


def outputs(network: dict[str, Any], mode: str, optimize: bool = True) -> np.ndarray:
    """The output [B, T, n] of a network whose weights and source are drawn from seeds."""
    net = rl.compile(network, {"data": {"dim": 3}}, mode, behavior_version=21, optimize=optimize)
    for parameter in net.params.values():
        parameter.assign(draw(*parameter.shape, seed=1))
    run = net.run({"data": draw(BATCH, FRAMES, 3)}, seq_lens={"data": [FRAMES] * BATCH})
    output = run.layers["output"]
    value: np.ndarray = output.value
    return value if value.shape[:2] == (BATCH, FRAMES) else value.swapaxes(0, 1)


def frames(unit: str, options: dict[str, Any], mode: str = "eval", **more: Any) -> np.ndarray:
    """The output of a unit on a whole sequence."""
    layer = {"class": "rec", "unit": unit, "unit_opts": options, "n_out": WIDTH, "from": "data", **more}
    return outputs({"output": layer}, mode)


def test_zoneout_keeps_old_values_with_its_probability() -> None:
    h = frames("zoneoutlstm", {"zoneout_factor_output": 0.3}, "train")
    kept = h[:, 1:] == h[:, :-1]
    assert abs(kept.mean() - 0.3) < 0.05
    assert (h[:, 0] == 0).mean() == pytest.approx(0.3, abs=0.1)
    assert all(kept.mean(axis=axes).std() > 0.0 for axes in ((1, 2), (0, 2)))


def test_zoneout_is_the_mean_in_evaluation() -> None:
    """The first output: it comes from a state of zeros, of which a part stays."""
    plain = frames("zoneoutlstm", {})
    zoned = frames("zoneoutlstm", {"zoneout_factor_output": 0.3})
    np.testing.assert_allclose(zoned[:, 0], 0.7 * plain[:, 0], rtol=1e-5, atol=1e-6)


def test_zoneout_without_zoned_output_is_not_kept() -> None:
    h = frames("zoneoutlstm", {"zoneout_factor_output": 0.3, "use_zoneout_output": False}, "train")
    assert not (h[:, 1:] == h[:, :-1]).any()


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("options", [{"cell_clip": 1e6}, {"activation": "tanh", "cell_clip": 1e6}])
def test_a_loop_over_steps_is_the_primitive(options: dict[str, Any], direction: Any) -> None:
    """A clip that is never reached."""
    stepwise = frames("standardlstm", options, direction=direction)
    fused = frames("standardlstm", {}, direction=direction)
    np.testing.assert_allclose(stepwise, fused, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("unit", "options", "name", "wanted"),
    [
        ("rhn", {"transform_bias": -2}, "b", [0, 0, 0, -2, -2, -2]),
        ("rhn", {"transform_bias": None}, "b", [0] * 6),
        ("layernormvariantslstm", {"forget_bias": 1}, "beta_input_below", [1] * 12),
        ("layernormvariantslstm", {"forget_bias": 1, "norm_shift": 0.5}, "beta_new_c", [0.5] * 3),
        (
            "layernormvariantslstm",
            {"forget_bias": 1, "global_norm": False, "global_norm_joined": True, "norm_shift": 0.5},
            "beta_lstm_in",
            [1.5] * 12,
        ),
        (
            "layernormvariantslstm",
            {"forget_bias": 1, "global_norm": False, "per_gate_norm": True},
            "beta_f_gate",
            [1] * 3,
        ),
        (
            "layernormvariantslstm",
            {"forget_bias": 1, "global_norm": False, "per_gate_norm": True},
            "beta_i_gate",
            [0] * 3,
        ),
        ("layernormvariantslstm", {"forget_bias": 1, "global_norm": False}, "bias_ff", [0] * 6 + [1] * 3 + [0] * 3),
    ],
)
def test_what_biases_start_with(unit: str, options: dict[str, Any], name: str, wanted: list[float]) -> None:
    """As in RETURNN: what a forget bias starts is the whole beta of a norm over all gates."""
    layer = {"class": "rec", "unit": unit, "unit_opts": options, "n_out": 3, "from": "data"}
    net = rl.compile({"output": layer}, {"data": {"dim": 2}}, "forward", behavior_version=21)
    np.testing.assert_allclose(net.params[f"output/rec/{name}"].numpy(), wanted)


def test_a_bias_starts_once() -> None:
    layer = {"class": "rec", "unit": "rhn", "unit_opts": {"transform_bias": -2}, "bias_init": 1.0, "n_out": 3}
    with pytest.raises(rl.ConfigError, match="transform_bias says what the bias starts with, and bias_init, too"):
        rl.compile({"output": {**layer, "from": "data"}}, {"data": {"dim": 2}}, "forward", behavior_version=21)


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_dropout_of_the_highway_unit(rate: float, optimize: bool) -> None:
    """One mask for all steps and depths, in training: with weights on the diagonal, the state of a unit that is
    dropped halves each time, and no other does."""
    unit_opts = {"dropout": rate, "depth": 2}
    layer = {"class": "rec", "unit": "rhn", "unit_opts": unit_opts, "n_out": WIDTH, "initial_state": 1, "from": "data"}
    found = {}
    for mode in ("train", "eval"):
        net = rl.compile({"output": layer}, {"data": {"dim": 3}}, mode, behavior_version=21, optimize=optimize)
        for name, parameter in net.params.items():
            diagonal = np.concatenate([np.eye(WIDTH), np.zeros((WIDTH, WIDTH))], axis=1)
            parameter.assign(diagonal if "depth" in name else np.zeros(parameter.shape))
        out = net.run({"data": draw(BATCH, FRAMES, 3)}, seq_lens={"data": [FRAMES] * BATCH}).layers["output"]
        found[mode] = np.moveaxis(out.value, out.dims.index("B"), 0)
    halved = 0.25 ** np.arange(1, FRAMES + 1)[:, None]
    dropped = (found["train"] == halved).all(axis=1)
    assert dropped.mean() == pytest.approx(rate, abs=0.1)
    scale = 1 / (1 - rate)
    state, states = 1.0, []
    for _ in range(FRAMES):
        for _ in range(2):
            state = 0.5 * np.tanh(scale * state) + 0.5 * state
        states.append(state)
    kept = found["train"].transpose(0, 2, 1)[~dropped]
    np.testing.assert_allclose(kept, np.broadcast_to(states, kept.shape), rtol=1e-5)
    assert (found["eval"][..., 0] == found["eval"][..., 1]).all()


@pytest.mark.parametrize("name", ["dropout", "dropout_h"])
def test_dropout_of_the_layer_norm_lstm_is_for_training(name: str) -> None:
    plain = frames("layernormvariantslstm", {})
    np.testing.assert_array_equal(frames("layernormvariantslstm", {name: 0.4}), plain)
    assert np.abs(frames("layernormvariantslstm", {name: 0.4}, "train") - plain).max() > 0.01


@pytest.mark.parametrize(
    ("unit", "options", "message"),
    [
        ("layernormvariantslstm", {"forget_bias": -1.0}, "forget_bias: expected a number of at least 0, got -1.0"),
        ("layernormvariantslstm", {"per_gate_norm": True}, "global_norm and per_gate_norm exclude each other"),
        ("layernormvariantslstm", {"with_concat": True}, "with_concat"),
        ("layernormvariantslstm", {"cell_norm": 1}, "unit_opts.cell_norm: expected true or false, got 1"),
        ("zoneoutlstm", {"zoneout_factor_cell": 1.5}, "of at least 0 and below 1, got 1.5"),
        ("zoneoutlstm", {"zoneout": 0.5}, "'zoneout' is not an option"),
        ("rhn", {"depth": 0}, "depth: expected a number of at least 1"),
        ("rhn", {"dropout": 1.0}, "dropout: expected a number of at least 0 and below 1"),
        ("twodnativelstm", {}, "the unit 'twodnativelstm' is not supported. It goes over two sequences: .* twod_lstm"),
    ],
)
def test_refused(unit: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(rl.ConfigError, match=message):
        rl.compile(
            {"output": {"class": "rec", "unit": unit, "unit_opts": options, "n_out": 3, "from": "data"}},
            {"data": {"dim": 2}},
            "forward",
            behavior_version=21,
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial_state": {"x": 0}}, "has no state 'x'"),
        ({"initial_state": "placeholder"}, "a placeholder is for a program around the graph to feed"),
        ({"initial_state": [0]}, "1 entries for 2 states"),
        ({"state": "data"}, "'state' is for one step of a loop"),
        ({"input_projection": False, "unit": "zoneoutlstm"}, "can't go without its input weights"),
    ],
)
def test_states_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(rl.ConfigError, match=message):
        rl.compile(
            {"output": {"class": "rec", "unit": "lstm", "n_out": 3, "from": "data", **options}},
            {"data": {"dim": 2}},
            "forward",
            behavior_version=21,
        )


@pytest.mark.parametrize("optimize", [True, False])
def test_state_at_each_step_is_what_the_unit_goes_on_from(optimize: bool) -> None:
    """A GRU whose state is put to its output of the step before is that GRU."""
    cell = {"class": "rnn_cell", "unit": "gru", "n_out": WIDTH, "from": "data:source"}
    unit = {"s": {**cell, "state": "before"}, "before": {"class": "copy", "from": "prev:s"}}
    unit["output"] = {"class": "copy", "from": "s"}
    plain = {"s": cell, "output": unit["output"]}
    results = [
        outputs({"output": {"class": "rec", "from": "data", "unit": u}}, "eval", optimize) for u in (unit, plain)
    ]
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5, atol=1e-6)
