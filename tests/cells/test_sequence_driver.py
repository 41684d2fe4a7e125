"""Recorded cases told in another way are replayed as well: only the last output, and frames from behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools.cells.case import Array, Case, read_case
from tools.cells.replay import replayed

RECORDED = Path(__file__).parent / "recorded"


def told(name: str, arrays: Mapping[str, Array], **layer: Any) -> Case:
    """A case with other arrays and options of the layer that ran it."""
    case = read_case(RECORDED / f"{name}.json")
    return replace(case, arrays=arrays, record={**case.record, "layer": {**case.record["layer"], **layer}})


def test_the_last_output_with_spatial_dims() -> None:
    """Keras repeats outputs at masked steps, so the last one is that of each last real frame."""
    name = "keras.ConvLSTM2D__default_valid"
    recorded = read_case(RECORDED / f"{name}.json").arrays
    arrays = {key: array for key, array in recorded.items() if not key.startswith("grad/")}
    for key in ("out/y", "w/y"):
        arrays[key] = arrays[key][:, -1]
    assert replayed(told(name, arrays, return_sequences=False), "rec").is_equal
    wrong = {**arrays, "out/y": recorded["out/y"][:, 0]}
    assert not replayed(told(name, wrong, return_sequences=False), "rec").is_equal


@pytest.mark.parametrize("through", ["rec", "rnn_cell"])
def test_frames_from_behind(through: str) -> None:
    """Of reversed frames `go_backwards` makes what was recorded, in the order of its steps."""
    name = "keras.ConvLSTM2D__dilation"
    arrays = dict(read_case(RECORDED / f"{name}.json").arrays)
    for key in ("in/x", "grad/in/x"):
        arrays[key] = np.flip(arrays[key], 1)
    assert replayed(told(name, arrays, go_backwards=True), through).is_equal
    assert not replayed(told(name, arrays), through).is_equal


@pytest.mark.parametrize("first", [False, True])
def test_frames_from_behind_the_padding(first: bool) -> None:
    """With a mask `go_backwards` leaves the padding in front; the objective may count as many frames from there on."""
    case = read_case(RECORDED / "keras.RNN__unroll_mask.json")
    arrays, lengths = dict(case.arrays), case.lengths
    assert lengths is not None
    behind = {key: np.zeros_like(arrays[key]) for key in ("out/y", "w/y")}
    for b, length in enumerate(lengths):
        for key in ("in/x", "grad/in/x"):
            arrays[key] = arrays[key].copy()
            arrays[key][b, :length] = arrays[key][b, :length][::-1]
        for key, array in behind.items():
            array[b, -length:] = arrays[key][b, :length]
    arrays |= behind
    if first:
        inside = np.arange(arrays["out/y"].shape[1]) < lengths[:, None]
        arrays["objective"] = (arrays["out/y"] * arrays["w/y"])[inside].sum()
    found = replayed(told("keras.RNN__unroll_mask", arrays, go_backwards=True), "rec")
    assert max(found.outputs, found.states) <= 1
    assert (found.gradients <= 1) is not first, "the gradients are those of the frames that are there"
