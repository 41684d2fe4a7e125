"""What a loss is divided by: in the reports (`count`) and, with `use_normalized_loss`, in the objective."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

FRAMES = np.random.default_rng(5).normal(size=(2, 3, 4)).astype("float32")
DATA = {"data": FRAMES, "classes": np.array([[1, 2, 0], [2, 1, 0]]), "weight": np.array([3, 4], "int32")}
LENGTHS = {"data": [3, 2], "classes": [3, 2]}
EXTERN_DATA: dict[str, dict[str, Any]] = {
    "data": {"dim": 4},
    "classes": {"dim": 3, "sparse": True, "same_dim_tags_as": {"t": "data"}, "available_for_inference": False},
    "weight": {"dim": 9, "sparse": True, "shape": ()},
}
OUTPUT = {"class": "softmax", "n_out": 3, "from": "data", "loss": "ce", "target": "classes"}
WEIGHT = {"weight": {"class": "cast", "dtype": "float32", "from": "data:weight"}}


def outside(options: dict[str, Any]) -> dict[str, Any]:
    return {**WEIGHT, "output": {**OUTPUT, "loss_opts": options}}


def loop(options: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The same in a loop, which the layer can't leave if `more` needs it in the next step."""
    unit = {"output": {**OUTPUT, "from": "data:source", "loss_opts": options}, **more}
    return {**WEIGHT, "output": {"class": "rec", "from": "data", "unit": unit}}


def compiled(network: dict[str, Any], optimize: bool = True) -> rl.Network:
    return rl.compile(network, EXTERN_DATA, "train", behavior_version=21, optimize=optimize)


CYCLE = {
    "output": {**OUTPUT, "from": ["data:source", "prev:output"]},
}
COUNTS = [
    ({}, 5.0),
    ({"custom_norm_factor": 0.25}, 4.0),
    ({"custom_inv_norm_factor": "weight"}, 7.0),
]


@pytest.mark.one_in(4)
@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("place", ["outside", "loop", "cycle"])
@pytest.mark.parametrize(("options", "count"), COUNTS)
def test_the_objective_is_the_sum_or_divided_by_what_is_reported(
    options: dict[str, Any], count: float, place: str, optimize: bool
) -> None:
    inside = {key: f"base:{x}" if isinstance(x, str) else x for key, x in options.items()}

    def run(**more: Any) -> tuple[Any, dict[str, np.ndarray]]:
        cycle = {"output": {**CYCLE["output"], "loss_opts": {**inside, **more}}} if place == "cycle" else {}
        network = outside({**options, **more}) if place == "outside" else loop({**inside, **more}, **cycle)
        net = compiled(network, optimize)
        for name, variable in net.params.items():
            variable.assign(np.random.default_rng(len(name)).normal(size=variable.shape))
        return net.run(DATA, LENGTHS), net.gradients(DATA, LENGTHS)

    summed, gradients = run()
    mean, mean_gradients = run(use_normalized_loss=True, scale=0.5)
    (loss,) = summed.losses.values()
    (mean_loss,) = mean.losses.values()
    assert loss.count == mean_loss.count == count
    assert loss.sum == pytest.approx(mean_loss.sum)
    assert summed.objective == pytest.approx(loss.sum)
    assert mean.objective == pytest.approx(0.5 * loss.sum / count)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(mean_gradients[name], 0.5 * gradient / count, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimize", [True, False])
def test_a_layer_of_the_loop_is_summed_over_the_steps(optimize: bool) -> None:
    more = {"one": {"class": "eval", "eval": "tf.cast(source(0), tf.float32) + 1.0", "from": ":i"}}
    net = compiled(loop({"custom_inv_norm_factor": "one"}, **more), optimize)
    (loss,) = net.run(DATA, LENGTHS).losses.values()
    assert loss.count == 1 + 2 + 3 + 1 + 2


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"custom_norm_factor": 0.0}, "positive"),
        ({"custom_norm_factor": lambda **_: 1.0}, "custom_inv_norm_factor"),
        ({"custom_norm_factor": 1.0, "custom_inv_norm_factor": "weight"}, "say the same"),
        ({"custom_inv_norm_factor": "wait"}, "weight"),
    ],
)
def test_mistakes(options: dict[str, Any], what: str) -> None:
    with pytest.raises(rl.ConfigError, match=what):
        compiled(outside(options))
