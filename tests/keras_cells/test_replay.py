"""Recorded cases through Keras' layers: a difference is found, and what these can't run is said."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tools.cells.case import Case, read_case
from tools.cells.replay import line_of, replayed

RECORDED = Path(__file__).parent.parent / "cells" / "recorded"


def case_of(name: str) -> Case:
    return read_case(RECORDED / f"{name}.json")


@pytest.mark.one_in(3)
@pytest.mark.parametrize("key", ["out/y", "state/s", "grad/in/x"])
def test_a_difference_is_found(key: str) -> None:
    case = case_of("GRUCell__relu")
    assert key in case.arrays
    changed = dataclasses.replace(case, arrays={**case.arrays, key: case.arrays[key] + 1e-3})
    assert not replayed(changed, "keras").is_equal


def test_what_does_not_apply() -> None:
    case = case_of("LSTMWithAttention__regular")
    found = replayed(case, "keras")
    assert found.is_equal and "gives a cell nothing but its source" in found.inapplicable
    assert line_of(case, "keras", found).startswith("n/a LSTMWithAttention__regular keras: does not apply: a loop")
