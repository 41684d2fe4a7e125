"""Cells of TensorFlow 1.15 and Caffe2 that were recorded (tests/cells/recorded): outputs, states and gradients.

A commit runs one case in eight, through one of the ways: its hash says which; nightly all go through all. What
Keras' layers can't run says why.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commit import NIGHTLY, drawn
from tools.cells.case import read_case
from tools.cells.networks import THROUGH
from tools.cells.replay import replayed

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.json"))


@pytest.mark.one_in(12)
@pytest.mark.tensorflow
@pytest.mark.parametrize("path", RECORDED, ids=[path.stem for path in RECORDED])
def test_recorded(path: Path) -> None:
    ways = THROUGH if NIGHTLY else [way for way in THROUGH if drawn(f"{path.stem} {way}", 3)][:1] or THROUGH[:1]
    for way in ways:
        found = replayed(read_case(path), way)
        assert found.is_equal, (way, found)
        assert not found.inapplicable or way == "keras"
