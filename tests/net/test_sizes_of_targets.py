"""The output that a loss compares with its target has the target's classes: each loss refuses any other number of them,
at the option that says it."""

from __future__ import annotations

from typing import Any

import pytest

import returnn_lite as rl
from returnn_lite.compiler import build

EXTERN_DATA: dict[str, dict[str, Any]] = {
    "data": {"dim": 4},
    "few": {"dim": 2, "sparse": True, "same_dim_tags_as": {"t": "data"}},
    "many": {"dim": 5, "sparse": True, "same_dim_tags_as": {"t": "data"}},
    "vector": {"dim": 5, "same_dim_tags_as": {"t": "data"}},
    "number": {"shape": (None,), "dtype": "float32", "same_dim_tags_as": {"t": "data"}},
}
LABELS = {"class": "reduce", "mode": "argmax", "axis": "F", "from": "scores"}


def config(loss: dict[str, Any], of: dict[str, Any], size: int, in_loop: bool = False) -> dict[str, Any]:
    """A network whose output has a loss, from a softmax of some size."""
    scores = {"class": "softmax", "n_out": size, "from": "data:source" if in_loop else "data"}
    network: dict[str, Any] = {"scores": scores, "output": {"from": "scores", **of, **loss}}
    if in_loop:
        network = {"output": {"class": "rec", "from": "data", "unit": network}}
    return {"behavior_version": 21, "extern_data": EXTERN_DATA, "network": network}


COPY, SIGMOID = {"class": "copy"}, {"class": "activation", "activation": "sigmoid"}
LINEAR = {"class": "linear", "n_out": 5, "activation": None}
OF_FRAMES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ce": ({"loss": "ce", "target": "many"}, COPY),
    "ce of vectors": ({"loss": "ce", "target": "vector"}, COPY),
    "ce of logits": ({"loss": "ce", "loss_opts": {"input_type": "logits"}, "target": "many"}, COPY),
    "ce smoothed": ({"loss": "ce", "loss_opts": {"label_smoothing": 0.1}, "target": "many"}, COPY),
    "ce focused": ({"loss": "ce", "loss_opts": {"focal_loss_factor": 2.0}, "target": "many"}, COPY),
    "bin_ce": ({"loss": "bin_ce", "target": "vector"}, SIGMOID),
    "sse_sigmoid": ({"loss": "sse_sigmoid", "target": "vector"}, COPY),
    **{name: ({"loss": name, "target": "vector"}, COPY) for name in ("mse", "l1", "mean_l1")},
    **{f"{name} of labels": ({"loss": name, "target": "many"}, COPY) for name in ("mse", "l1", "mean_l1")},
}
OF_SEQUENCES: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "ctc": ({"loss": "ctc", "target": "many"}, COPY, 6),
    "edit_distance": ({"loss": "edit_distance", "target": "many"}, LABELS, 5),
    "edit_distance decoded": ({"loss": "edit_distance", "loss_opts": {"ctc_decode": True}, "target": "many"}, COPY, 6),
}


@pytest.mark.parametrize("in_loop", [False, True])
@pytest.mark.parametrize("size", [1, 4, 6])
@pytest.mark.parametrize("name", OF_FRAMES)
def test_losses_of_frames(name: str, size: int, in_loop: bool) -> None:
    loss, of = OF_FRAMES[name]
    build(config(loss, of, 5, in_loop), "train")
    with pytest.raises(rl.ConfigError, match=rf"output\.target: the output has {size} classes, but the target 5"):
        build(config(loss, of, size, in_loop), "train")


@pytest.mark.parametrize("wrong", [-1, 1])
@pytest.mark.parametrize("name", OF_SEQUENCES)
def test_losses_of_sequences(name: str, wrong: int) -> None:
    """Where there is a blank, the output has one class more."""
    loss, of, size = OF_SEQUENCES[name]
    build(config(loss, of, size), "train")
    with pytest.raises(rl.ConfigError, match=f"the output has {size + wrong} classes, but the target 5"):
        build(config(loss, of, size + wrong), "train")


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(("size", "at"), [({"n_out": 5}, "n_out"), ({"out_dim": 5}, "out_dim")])
def test_the_option_that_says_the_size(size: dict[str, Any], at: str, mode: Any) -> None:
    layer = {"class": "softmax", "loss": "ce", "target": "few", **size}
    with pytest.raises(rl.ConfigError, match=rf"output\.{at}: the output has 5 classes, but the target 2"):
        build(config(layer, {}, 4), mode)


def test_labels_and_numbers() -> None:
    """What has no classes is a number, which is no label."""
    number = {"class": "squeeze", "axis": "F", "loss": "mse"}
    build(config({**number, "target": "number"}, {}, 1), "train")
    with pytest.raises(rl.ConfigError, match="the output has no classes, but the target 2 classes"):
        build(config({**number, "target": "few"}, {}, 1), "train")
    with pytest.raises(rl.ConfigError, match="the output has 5 classes, but the target no classes"):
        build(config({"loss": "mse", "target": "number"}, LINEAR, 1), "train")


def test_a_map_brings_labels_of_two_kinds_together() -> None:
    into = {"label_map": {0: 0, 1: 1, 2: 0, 3: 1, 4: 0}}
    build(config({"loss": "edit_distance", "loss_opts": into, "target": "few"}, LABELS, 5), "train")


def decoder(size: int, target: Any = "few", loss: dict[str, Any] | None = None, **choice: Any) -> dict[str, Any]:
    unit = {
        "embed": {"class": "linear", "n_out": 4, "from": "prev:output"},
        "scores": {"class": "softmax", "n_out": size, "from": "embed"},
        "output": {
            "class": "choice",
            "from": "scores",
            "beam_size": 2,
            "target": target,
            "initial_output": 0,
            **choice,
        },
        "end": {"class": "compare", "kind": "equal", "value": 0, "from": "output"},
    }
    network = {
        "output": {"class": "rec", "from": [], "target": "few", "max_seq_len": 4, "unit": unit},
        "copy": {"class": "copy", "from": "output", "is_output_layer": True, **(loss or {})},
    }
    return {"behavior_version": 21, "extern_data": EXTERN_DATA, "network": network}


@pytest.mark.parametrize(
    ("mode", "choice"),
    [
        ("search", {}),
        ("search", {"input_type": "logits"}),
        ("search", {"cheating": True}),
        ("train", {"search": True}),
        ("train", {"scheduled_sampling": True}),
    ],
)
def test_a_choice(mode: Any, choice: dict[str, Any]) -> None:
    """It gives labels of its target, also where the scores say which."""
    build(decoder(2, **choice), mode)
    with pytest.raises(rl.ConfigError, match=r"output\.target: 'scores' has scores of 5 classes, but the target has 2"):
        build(decoder(5, **choice), mode)


def test_an_expected_loss() -> None:
    """The loss inside compares as it does alone."""
    inner = {"loss": {"class": "edit_distance"}, "loss_kind": "error"}
    loss = {"loss": "expected_loss", "loss_opts": inner}
    build(decoder(2, search=True, loss={**loss, "target": "few"}), "train")
    with pytest.raises(rl.ConfigError, match="the output has 2 classes, but the target 5 classes"):
        build(decoder(2, search=True, loss={**loss, "target": "many"}), "train")
