"""What is known of padding is true: a sequence gives the same alone and in a batch with a longer one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

LENGTHS = [4, 2]
X = np.random.default_rng(1).normal(size=(2, 4, 3)).astype("float32")

FILLED = {
    "shift_right": {"class": "shift_axis", "axis": "F", "amount": 1, "pad_value": 5},
    "shift_left": {"class": "shift_axis", "axis": "F", "amount": -1, "pad_value": 5, "adjust_size_info": False},
    "split": {"class": "split_dims", "axis": "F", "dims": [2, 2], "pad_to_multiples": True, "pad_value": 5.0},
    "pad": {"class": "pad", "axes": "F", "padding": [1, 2], "value": 5.0},
    "window": {"class": "window", "axis": "F", "window_size": 3},
}


@pytest.mark.parametrize("name", FILLED)
def test_numbers_filled_in_along_one_dim_are_no_frames_of_another(name: str) -> None:
    """The feature dim is filled with a number in the padding of the time dim, too, over which is summed then."""
    network: dict[str, Any] = {
        "filled": {**FILLED[name], "from": "data"},
        "output": {"class": "reduce", "mode": "sum", "axis": "T", "from": "filled"},
    }
    net = rl.compile(network, extern_data={"data": {"dim": 3}}, mode="forward", behavior_version=21)
    batch = net.run({"data": X}, {"data": LENGTHS}).layers["output"].value
    for row, length in enumerate(LENGTHS):
        alone = net.run({"data": X[row : row + 1, :length]}, {"data": [length]}).layers["output"].value
        np.testing.assert_allclose(batch[row], alone[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimize", [True, False])
def test_infinity_in_place_of_padding_is_not_summed(optimize: bool) -> None:
    """From the third frame on there is -inf, which the shorter sequence has none of; 0 times it is no number."""
    network: dict[str, Any] = {
        "position": {"class": "range_in_axis", "axis": "T", "from": "data"},
        "early": {"class": "compare", "kind": "less", "value": 2, "from": "position"},
        "cut": {"class": "switch", "condition": "early", "true_from": "data", "false_from": float("-inf")},
        "product": {"class": "combine", "kind": "mul", "from": ["data", "cut"]},
        "output": {"class": "reduce", "mode": "sum", "axis": "T", "from": "product"},
    }
    net = rl.compile(network, extern_data={"data": {"dim": 3}}, mode="forward", behavior_version=21, optimize=optimize)
    value = np.asarray(net.run({"data": X}, {"data": LENGTHS}).layers["output"].value)
    np.testing.assert_allclose(value[1], (X[1, :2] ** 2).sum(0), rtol=1e-5)


@pytest.mark.parametrize("optimize", [True, False])
def test_the_weights_of_an_empty_sequence_are_not_summed(optimize: bool) -> None:
    """Those of the other one are 1 together."""
    network: dict[str, Any] = {
        "weights": {"class": "softmax_over_spatial", "from": "data"},
        "output": {"class": "reduce", "mode": "sum", "axis": "T", "from": "weights"},
    }
    net = rl.compile(network, extern_data={"data": {"dim": 3}}, mode="forward", behavior_version=21, optimize=optimize)
    value = np.asarray(net.run({"data": X}, {"data": [4, 0]}).layers["output"].value)
    np.testing.assert_allclose(value, [np.ones(3), np.zeros(3)], rtol=1e-5)


@pytest.mark.parametrize("optimize", [True, False])
def test_the_largest_frame_of_an_empty_sequence_is_not_summed(optimize: bool) -> None:
    """It is infinite, and so is what is computed with it; the other sequences' loss is a number."""
    network: dict[str, Any] = {
        "weights": {"class": "softmax_over_spatial", "from": "data"},
        "largest": {"class": "reduce", "mode": "max", "axis": "T", "from": "data"},
        "twice": {"class": "eval", "eval": "source(0) * 2", "from": "largest"},
        "product": {"class": "combine", "kind": "mul", "from": ["weights", "twice"]},
        "output": {"class": "reduce", "mode": "sum", "axis": "T", "from": "product"},
    }
    net = rl.compile(network, extern_data={"data": {"dim": 3}}, mode="forward", behavior_version=21, optimize=optimize)
    value = np.asarray(net.run({"data": X}, {"data": [4, 0]}).layers["output"].value)
    np.testing.assert_allclose(value, [2 * X[0].max(0), np.zeros(3)], rtol=1e-5)
