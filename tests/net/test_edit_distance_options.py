"""Options of the edit distance: what counts as what, outputs of ctc, and what is printed."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

LABELS = np.array([[0, 1, 2, 3], [3, 3, 9, 9]])
TARGET = np.array([[1, 2, 3], [3, 0, 9]])
LENGTHS = {"data": [4, 2], "classes": [3, 2]}
SPARSE: dict[str, dict[str, Any]] = {
    "data": {"dim": 10, "sparse": True},
    "classes": {"dim": 10, "sparse": True, "available_for_inference": False},
}
DENSE: dict[str, dict[str, Any]] = {
    "data": {"dim": 4},
    "classes": {"dim": 3, "sparse": True, "available_for_inference": False},
}
IDENTITY: dict[int, Any] = {label: label for label in range(10)}
LAYER = {"class": "copy", "from": "data", "loss": "edit_distance", "target": "classes"}


def result(options: dict[str, Any], *, optimize: bool = True, mode: str = "eval") -> Any:
    layers = {"output": {**LAYER, "loss_opts": options}}
    net = rl.compile(layers, SPARSE, mode, behavior_version=21, optimize=optimize)
    return net.run({"data": LABELS, "classes": TARGET}, LENGTHS).losses["output"]


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize(
    ("label_map", "error"),
    [
        (None, 1 + 1),
        (IDENTITY, 1 + 1),
        ({**IDENTITY, 0: 3}, 1 + 0),
        ({**IDENTITY, 0: None}, 0 + 1),
        ({**IDENTITY, 0: None, 3: None}, 0 + 0),
        (dict.fromkeys(range(10), 5), 1 + 0),
        (dict.fromkeys(range(10)), 0),
        ({**{str(label): label for label in range(10)}, "0": 3}, 1 + 0),
    ],
)
def test_labels_that_count_as_others(label_map: dict[Any, int | None] | None, error: int, optimize: bool) -> None:
    found = result({} if label_map is None else {"label_map": label_map}, optimize=optimize)
    assert found.error == error
    assert found.count == 5


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_what_is_compared_is_printed(capfd: pytest.CaptureFixture[str], mode: str, optimize: bool) -> None:
    assert result({"debug_print": True, "label_map": {**IDENTITY, 2: 7}}, mode=mode, optimize=optimize).error == 2
    printed = capfd.readouterr().err
    for name, first in (("output", [0, 1, 7, 3]), ("target", [1, 7, 3])):
        found = re.search(rf"output {name} \[(\[.*?\])\]", printed, re.DOTALL)
        assert found is not None, printed
        rows = np.array([[int(x) for x in row.split()] for row in re.findall(r"\[([^\[\]]*)\]", found[1])])
        assert (rows if len(rows) == len(LABELS) else rows.T)[0].tolist() == first


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("in_log_space", [True, False])
def test_the_output_of_ctc_is_decoded(in_log_space: bool, mode: str) -> None:
    """Two frames in which the blank is likelier than label 1, but less likely than it in one of both."""
    p = np.array([0.001, 0.4, 0.001, 0.598])
    data = {"data": np.tile(np.log(p) if in_log_space else p, (1, 2, 1)), "classes": np.array([[1, 1]])}
    layers = {"output": {**LAYER, "loss_opts": {"ctc_decode": True, "output_in_log_space": in_log_space}}}
    net = rl.compile(layers, DENSE, mode, behavior_version=21)
    loss = net.run(data, {"classes": [2], "data": [2]}).losses["output"]
    assert (loss.sum, loss.error, loss.count) == (None, 1, 2)


def test_a_layer_whose_output_is_decoded_has_a_blank() -> None:
    layers = {"output": {**LAYER, "class": "softmax", "loss_opts": {"ctc_decode": True}}}
    net = rl.compile(layers, DENSE, "train", behavior_version=21)
    assert net.params["output/W"].shape == (4, 4)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"label_map": {0: 1}}, "what label 1 counts as"),
        ({"label_map": {**IDENTITY, 10: 1}}, "no label 10"),
        ({"label_map": {**IDENTITY, 3: "x"}}, "label or null"),
        ({"label_map": {**IDENTITY, 3: -1}}, "label or null"),
        ({"ctc_decode": True}, "scores of labels and blank"),
        ({"output_in_log_space": True}, "is for ctc_decode"),
    ],
)
def test_mistakes(options: dict[str, Any], what: str) -> None:
    with pytest.raises(rl.ConfigError, match=what):
        result(options)
