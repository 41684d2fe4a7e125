"""How Caffe2's cases are replayed: its conventions beyond a sequence's length, and forms of the same case."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools.cells.case import Case, read_case
from tools.cells.drivers.caffe2_functions import cell_of
from tools.cells.replay import replayed

RECORDED = Path(__file__).parent / "recorded"


def changed(case: Case, change: Callable[[str, np.ndarray], np.ndarray], **options: Any) -> Case:
    """A case with other arrays and other options of the constructor."""
    arrays = {key: change(key, array) for key, array in case.arrays.items()}
    return dataclasses.replace(case, arrays=arrays, constructor={**case.constructor, **options})


def case_of(name: str) -> Case:
    return read_case(RECORDED / f"{name}.json")


def beyond_the_end(case: Case) -> np.ndarray:
    assert case.real is not None
    return ~case.real


def dropped(case: Case) -> Case:
    """The case with drop_states, as Caffe2 says that is: outputs and states are 0 beyond the length."""
    beyond = beyond_the_end(case)

    def change(key: str, array: np.ndarray) -> np.ndarray:
        if key.startswith(("out/", "state/")):
            return np.where(beyond[..., None] if key.endswith("_all") else beyond[:, -1:], 0, array)
        return array

    return changed(case, change, drop_states=True)


@pytest.mark.parametrize("way", ["rec", "rnn_cell"])
def test_dropped_states(way: str) -> None:
    found = dropped(case_of("LSTM__default"))
    assert replayed(found, way).is_equal
    held = dataclasses.replace(found, constructor={**found.constructor, "drop_states": False})
    assert replayed(held, way).states > 1


def test_held_states_are_compared() -> None:
    case = case_of("LSTM__default")
    beyond = beyond_the_end(case)[..., None]
    other = changed(case, lambda key, array: array + 0.1 * beyond if key == "state/cell_all" else array)
    assert replayed(case, "rnn_cell").is_equal
    assert replayed(other, "rnn_cell").states > 1


@pytest.mark.parametrize("key", ["out/hidden_all", "grad/param/rnn/gates_t_b", "grad/state0/cell", "grad/in/x"])
def test_other_numbers_are_not_equal(key: str) -> None:
    def change(name: str, array: np.ndarray) -> np.ndarray:
        return array + np.float32(0.01) if name == key else array

    assert not replayed(changed(case_of("LSTM__default"), change), "rec").is_equal


def test_initial_states_without_an_axis_of_frames() -> None:
    case = case_of("LSTM__default")
    flat = changed(case, lambda key, array: array[0] if "state0/" in key else array)
    assert flat.arrays["state0/cell"].ndim == 2
    assert replayed(flat, "rec").is_equal


def test_states_of_a_lower_layer_in_the_objective() -> None:
    """They are outputs in a loop only, which is then what runs."""
    case = case_of("MultiRNNCell__residual_three_layers")
    moved = {key.replace("state/hidden_all_layer0", "out/hidden_all_layer0"): a for key, a in case.arrays.items()}
    assert replayed(dataclasses.replace(case, arrays=moved), "plain").is_equal
    moved["out/hidden_all_layer0"] = moved["out/hidden_all_layer0"] + np.float32(0.01)
    assert replayed(dataclasses.replace(case, arrays=moved), "plain").outputs > 1


CELLS = {
    "LSTM__default": "LSTM",
    "BasicRNN__no_lengths": "BasicRNN",
    "layered_LSTM__two": "LSTM",
    "DropoutCell__output": "LSTM",
    "InitFromLSTMParams__mapping": "LSTM",
    "LayerNormMILSTM__forget_bias": "LayerNormMILSTM",
    "MultiRNNCell__residual_three_layers": "LSTM",
}


@pytest.mark.parametrize("name", CELLS)
def test_cell_of(name: str) -> None:
    assert cell_of(case_of(name)) == CELLS[name]


def test_cell_of_a_stack_is_known_by_its_parameters() -> None:
    inside = case_of("LayerNormMILSTM__forget_bias")
    assert cell_of(dataclasses.replace(inside, constructor={"function": "MultiRNNCell"})) == "LayerNormMILSTM"
