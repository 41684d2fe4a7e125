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
        ({"ctc_merge_repeated": False, "label_loop": False}, "say the same"),
        ({"blank_index": True}, "blank_index is a class"),
        ({"blank_index": 4}, "no class 4"),
    ],
)
def test_options_of_ctc_that_are_wrong(options: dict[str, Any], what: str) -> None:
    layers = {"output": {**CTC, "from": "data", "loss_opts": {"ctc_opts": options}}}
    with pytest.raises(rl.ConfigError, match=what):
        rl.compile(layers, EXTERN_DATA, "eval", behavior_version=21)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("softmax_in", [True, False])
@pytest.mark.parametrize("viterbi", [True, False])
def test_the_gradient_with_and_without_that_of_a_softmax(
    viterbi: bool, softmax_in: bool, normalized: bool, optimize: bool
) -> None:
    """It is p - q of the probabilities p of the classes and q of them given the target, or -q; with the last sequence
    left out, as its target does not fit."""
    options = {"logits_normalize": normalized, "grad_wrt_softmax_in": softmax_in, "zero_infinity": True}

    def gradient_of_frames(options: dict[str, Any]) -> tuple[float, np.ndarray]:
        layers: dict[str, dict[str, Any]] = {
            "bias": {"class": "variable", "shape": (4,), "init": 0.5},
            "scores": {"class": "combine", "kind": "add", "from": ["data", "bias"]},
            "output": {"class": "copy", "from": "scores", "loss": "ctc", "target": "classes"},
        }
        layers["output"]["loss_opts"] = {"output_in_log_space": True, "use_viterbi": viterbi, "ctc_opts": options}
        net = rl.compile(layers, EXTERN_DATA, "train", behavior_version=21, optimize=optimize)
        lengths = {"classes": [3, 2], "data": [3, 1]}
        (gradient,) = net.gradients(DATA, lengths).values()
        found = net.run(DATA, lengths).losses["output"].sum
        assert found is not None
        return found, gradient

    usual, usual_gradient = gradient_of_frames({"zero_infinity": True})
    scores = X[0] + 0.5
    sums = np.exp(scores).sum(-1, keepdims=True)
    occupied = (np.exp(scores) / sums).sum(0) - usual_gradient
    found, gradient = gradient_of_frames(options)
    assert found == pytest.approx(usual if normalized else usual - np.log(sums).sum(), rel=1e-5)
    p = np.exp(scores) / (sums if normalized else 1.0)
    np.testing.assert_allclose(gradient, (p.sum(0) if softmax_in else 0.0) - occupied, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("options", [{}, {"use_viterbi": True}, {"ctc_opts": {"label_loop": False}}])
def test_of_a_target_that_is_too_long_what_fits_counts(options: dict[str, Any], optimize: bool) -> None:
    """One frame less than there are is for labels."""

    def losses(target: list[list[int]], lengths: list[int], **more: Any) -> Any:
        layers = {"output": {**CTC, "from": "data", "loss_opts": {**options, **more}}}
        net = rl.compile(layers, EXTERN_DATA, "eval", behavior_version=21, optimize=optimize)
        for name, variable in net.params.items():
            variable.assign(np.random.default_rng(len(name)).normal(size=variable.shape))
        data = {"data": X, "classes": np.array(target)}
        return net.run(data, {"classes": lengths, "data": [3, 1]}).losses["output"]

    clipped = losses([[1, 2, 0], [2, 1, 0]], [3, 2], auto_clip_target_len=True)
    expected = losses([[1, 2], [0, 0]], [2, 0])
    assert clipped.sum == pytest.approx(expected.sum) and np.isfinite(clipped.sum)
    assert clipped.error == expected.error
    assert (clipped.count, expected.count) == (5, 2)


def test_the_blank_may_be_another_class() -> None:
    """With the classes in another order the loss and the error are the same."""

    def losses(frames: np.ndarray, labels: list[list[int]], blank: int, **options: Any) -> Any:
        output: dict[str, Any] = {"class": "activation", "activation": "softmax", "from": "data", "loss": "ctc"}
        output |= {"target": "classes", "loss_opts": {"ctc_opts": {"blank_index": blank}, **options}}
        extern_data = {**EXTERN_DATA, "classes": {**EXTERN_DATA["classes"], "dim": 4}}
        net = rl.compile({"output": output}, extern_data, "eval", behavior_version=21)
        data = {"data": frames, "classes": np.array(labels)}
        return net.run(data, {"classes": [3, 0], "data": [3, 2]}).losses["output"]

    both: tuple[dict[str, Any], ...] = ({}, {"use_viterbi": True})
    for options in both:
        last = losses(X, [[1, 2, 0], [0, 0, 0]], -1, **options)
        first = losses(np.roll(X, 1, -1), [[2, 3, 1], [0, 0, 0]], 0, **options)
        assert first.sum == pytest.approx(last.sum)
        assert first.error == last.error


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
