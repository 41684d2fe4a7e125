"""`ctc_opts`: what each does, by numbers, or the error that says what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

X = np.random.default_rng(3).normal(size=(2, 3, 4)).astype("float32")
DATA = {"data": X, "classes": np.array([[1, 2, 0], [2, 1, 0]])}
EXTERN_DATA = {"data": {"dim": 4}, "classes": {"dim": 3, "sparse": True, "available_for_inference": False}}
CTC = {"class": "softmax", "loss": "ctc", "target": "classes"}


def ctc_sum(frames: tuple[int, int], options: dict[str, Any]) -> float:
    layers = {"output": {**CTC, "from": "data", "loss_opts": options}}
    net = rl.compile(layers, EXTERN_DATA, "eval", behavior_version=21)
    found = net.run(DATA, {"classes": [3, 2], "data": frames}).losses["output"].sum
    assert found is not None
    return found


def test_a_ctc_target_that_does_not_fit_counts_nothing_if_that_is_asked_for() -> None:
    ignoring = {"ctc_opts": {"ignore_longer_outputs_than_inputs": True}}
    assert np.isinf(ctc_sum((3, 1), {}))
    assert np.isfinite(ctc_sum((3, 1), ignoring))
    assert ctc_sum((3, 2), ignoring) == pytest.approx(ctc_sum((3, 2), {}))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"zero": True}, "there is no 'zero'"),
        ({"logits_normalize": 1}, "true or false"),
        ({"ctc_merge_repeated": False}, "not supported"),
        ({"logits_normalize": False, "grad_wrt_softmax_in": True}, "gradient"),
    ],
)
def test_options_of_ctc_that_are_wrong(options: dict[str, Any], what: str) -> None:
    layers = {"output": {**CTC, "from": "data", "loss_opts": {"ctc_opts": options}}}
    with pytest.raises(rl.ConfigError, match=what):
        rl.compile(layers, EXTERN_DATA, "eval", behavior_version=21)


def test_the_error_is_that_of_the_best_path_in_training_and_of_the_best_labels_in_evaluation() -> None:
    """Two frames in which the blank is likelier than label 1, but less likely than it in one of both."""
    frame = np.log([0.001, 0.4, 0.001, 0.598])
    data = {"data": np.tile(frame, (1, 2, 1)), "classes": np.array([[1, 1]])}

    def error(mode: str, **options: Any) -> float | None:
        layers = {"output": {"class": "activation", "activation": "softmax", "from": "data", "loss": "ctc"}}
        layers["output"] |= {"target": "classes", "loss_opts": options}
        net = rl.compile(layers, EXTERN_DATA, mode, behavior_version=21)
        return net.run(data, {"classes": [2], "data": [2]}).losses["output"].error

    assert error("train") == error("eval", beam_width=1) == 2  # no labels
    assert error("eval") == 1  # one label
    assert error("eval", target_collapse_repeated=True) == 0
    assert error("train", target_collapse_repeated=True) == 1


def test_what_is_in_the_padding_of_pooled_frames_does_not_reach_the_gradient() -> None:
    """A window beyond a sequence has no maximum; one of the sequences has a target that does not fit."""
    layers = {
        "lstm": {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": "data"},
        "pool": {"class": "pool", "mode": "max", "padding": "same", "pool_size": [2], "from": "lstm"},
        "lstm1": {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": "pool"},
        "pool1": {"class": "pool", "mode": "max", "padding": "same", "pool_size": [2], "from": "lstm1"},
        "output": {**CTC, "from": "pool1", "loss_opts": {"ctc_opts": {"ignore_longer_outputs_than_inputs": True}}},
    }
    net = rl.compile(layers, EXTERN_DATA, "train", behavior_version=21)
    frames = np.random.default_rng(4).normal(size=(2, 8, 4))
    gradients = net.gradients({**DATA, "data": frames}, {"classes": [1, 2], "data": [8, 3]})
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    assert any(gradient.any() for gradient in gradients.values())
