"""What happens to gradients: each step alone, their order, and accumulation."""

import inspect

import numpy as np
import pytest
import tensorflow as tf

from returnn_lite.engine.errors import EngineError
from returnn_lite.engine.gradient_options import GradientOptions
from returnn_lite.engine.gradients import Accumulator, transformed
from returnn_lite.engine.optimizer_options import ELSEWHERE, OPTIMIZERS, OptimizerOptions
from returnn_lite.engine.optimizers import _CLASSES, Optimizers, make_optimizer

GRADIENTS = {"a": tf.constant([3.0, -4.0]), "b": tf.constant([[12.0]])}  # norms 5 and 12, together 13


def apply(**options: float) -> dict[str, list]:
    found = transformed(GRADIENTS, GradientOptions(**options), tf.constant(1))
    return {name: gradient.numpy().tolist() for name, gradient in found.items()}


@pytest.mark.parametrize(
    ("options", "a", "b"),
    [
        ({}, [3.0, -4.0], [[12.0]]),
        ({"gradient_clip": 3.5}, [3.0, -3.5], [[3.5]]),
        ({"gradient_clip_norm": 6.0}, [3.0, -4.0], [[6.0]]),
        ({"gradient_clip_avg_norm": 1.25}, [1.5, -2.0], [[1.25]]),
        ({"gradient_clip_global_norm": 6.5}, [1.5, -2.0], [[6.0]]),
        ({"gradient_clip_global_norm": 20.0}, [3.0, -4.0], [[12.0]]),
        ({"grad_norm_to_clip_to_zero": 12.0}, [0.0, 0.0], [[0.0]]),
        ({"grad_norm_to_clip_to_zero": 14.0}, [3.0, -4.0], [[12.0]]),
        ({"gradient_clip": 4.0, "gradient_clip_global_norm": 100.0}, [3.0, -4.0], [[4.0]]),
        ({"gradient_clip_norm": 1.0, "grad_norm_to_clip_to_zero": 2.0}, [0.6, -0.8], [[1.0]]),
    ],
)
def test_clipping(options: dict, a: list, b: list) -> None:
    found = apply(**options)
    np.testing.assert_allclose(found["a"], a, rtol=1e-6)
    np.testing.assert_allclose(found["b"], b, rtol=1e-6)


def test_numbers_that_are_not_finite_become_zero() -> None:
    gradients = {"a": tf.constant([np.nan, 1.0, -np.inf])}
    found = transformed(gradients, GradientOptions(gradient_nan_inf_filter=True), tf.constant(1))
    assert found["a"].numpy().tolist() == [0.0, 1.0, 0.0]


def test_noise_depends_on_the_seed_alone() -> None:
    options = GradientOptions(gradient_noise=0.5)
    zeros = {"a": tf.zeros([5000]), "b": tf.zeros([5000])}
    first, again, other = (transformed(zeros, options, tf.constant(seed)) for seed in (1, 1, 2))
    assert (first["a"].numpy() == again["a"].numpy()).all()
    assert abs(np.corrcoef(first["a"], other["a"])[0, 1]) < 0.1
    assert abs(np.corrcoef(first["a"], first["b"])[0, 1]) < 0.1
    assert np.std(first["a"]) == pytest.approx(0.5, rel=0.05)


def test_accumulation_sums_and_begins_anew() -> None:
    accumulator = Accumulator(2, {"a": tf.Variable([0.0])})
    found = []
    for step in range(4):
        number = tf.constant(step, tf.int64)
        sums = accumulator.add({"a": tf.constant([10.0**step])}, number)
        found.append((float(sums["a"][0]), bool(accumulator.is_full(number))))
    assert found == [(1.0, False), (11.0, True), (100.0, False), (1100.0, True)]


def test_negative_options_are_refused() -> None:
    with pytest.raises(EngineError, match="gradient_clip must not be negative"):
        GradientOptions(gradient_clip=-1.0)


def updated(options: OptimizerOptions, updater_opts: dict | None = None, steps: int = 1) -> tuple[float, float]:
    params = {"a": tf.Variable([1.0], name="x/W"), "b": tf.Variable([1.0], name="x/b")}
    optimizers = Optimizers(options, params, ["a", "b"], updater_opts or {})
    optimizers.set_learning_rate(0.1)
    for _ in range(steps):
        optimizers.apply({"a": tf.constant([2.0]), "b": tf.constant([2.0])})
    return float(params["a"][0]), float(params["b"][0])


@pytest.mark.parametrize(
    ("options", "value"),
    [
        (OptimizerOptions(), 0.6),  # two steps of plain gradient descent
        (OptimizerOptions(momentum=0.5), 0.5),
        (OptimizerOptions(optimizer={"class": "momentum", "momentum": 0.5}), 0.5),
        (OptimizerOptions(optimizer={"class": "adam"}), 0.8),
        (OptimizerOptions(adam=True), 0.8),
        (OptimizerOptions(optimizer={"class": "Adam", "beta1": 0.5}), 0.8),
    ],
)
def test_optimizers(options: OptimizerOptions, value: float) -> None:
    assert updated(options, steps=2)[0] == pytest.approx(value, abs=1e-5)


def test_layers_may_learn_at_their_own_rate() -> None:
    assert updated(OptimizerOptions(), {"b": {"learning_rate_multiplier": 0.5}}) == pytest.approx((0.8, 0.9))
    assert updated(OptimizerOptions(), {"b": {"optimizer": {"class": "adam"}}}) == pytest.approx((0.8, 0.9), abs=1e-5)
    with pytest.raises(EngineError, match="updater_opts of 'b': 'clip' is not supported"):
        updated(OptimizerOptions(), {"b": {"clip": 1}})


def test_epsilon_is_tiny_unless_given() -> None:
    assert make_optimizer({"class": "adam"}, 1e-16).epsilon == 1e-16
    assert make_optimizer({"class": "adam", "epsilon": 0.5}, 1e-16).epsilon == 0.5


@pytest.mark.parametrize("name", ["adam", "nadam", "adamw", "momentum", "rmsprop", "adagrad", "adadelta", "adamax"])
def test_state_has_a_name_for_every_variable(name: str) -> None:
    params = {key: tf.Variable([1.0], name="same") for key in ("a/W", "b", "c")}
    options = OptimizerOptions(optimizer={"class": name})
    state = Optimizers(options, params, ["c", "a/W", "b"], {"b": {"learning_rate_multiplier": 2.0}}).state()
    slots = {key.rpartition("/")[2] for key in state if key.startswith("optimizer/a/W/")}
    assert slots == {key.rpartition("/")[2] for key in state if key.startswith("optimizer/b/")} != set()
    # Beside the slots each of the two optimizers counts its steps; Nadam has one more number.
    assert len(state) == 3 * len(slots) + (4 if name == "nadam" else 2)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"class": "adm"}, "no class 'adm'. Did you mean 'adam'"),
        ({"class": "adam", "amsgrd": 1}, "no option 'amsgrd'. Did you mean 'amsgrad'"),
        ({"class": "adam", "clipnorm": 1.0}, "Use gradient_clip_norm"),
        ({"class": "sgd", "momentum": 7}, "sgd: "),
        ({}, "give a 'class'"),
    ],
)
def test_wrong_optimizers_are_refused(described: dict, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        make_optimizer(described, 1e-16)


def test_two_optimizers_are_refused() -> None:
    with pytest.raises(EngineError, match="more than one optimizer"):
        OptimizerOptions(adam=True, optimizer="nadam").described()


def test_the_table_of_optimizers_is_keras_own() -> None:
    keras_options = {
        name: set(inspect.signature(cls).parameters) - {*ELSEWHERE, "kwargs"} for name, cls in _CLASSES.items()
    }
    assert {name: set(options) for name, options in OPTIMIZERS.items()} == keras_options
