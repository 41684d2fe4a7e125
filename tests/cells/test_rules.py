"""The documented differences are what they say: with theirs in place of ours, the recorded numbers are ours."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from tools.cells.case import read_case
from tools.cells.replay import replayed
from tools.cells.rules import rule_of

RECORDED = Path(__file__).parent / "recorded"


def without_gradient_of_the_clip(b: CellBuilder, x: View, limit: float | None) -> View:
    return b.add(x, b.stop_gradient(b.sub(CLIPPED(b, x, limit), x)))


CLIPPED = CellBuilder.clipped


def test_the_gradient_of_the_block_lstm_ignores_the_clip() -> None:
    case = read_case(RECORDED / "LSTMBlockFusedCell__all.json")
    found = replayed(case, "rec")
    assert found.rule is not None
    assert found.rule is rule_of(case)
    assert found.rule.parts == {"gradients"}
    assert found.gradients > 1.0
    with patch.object(CellBuilder, "clipped", without_gradient_of_the_clip):
        theirs = replayed(case, "rec")
    assert max(theirs.outputs, theirs.states, theirs.gradients) <= 1.0


def test_no_other_case_has_that_rule() -> None:
    for name in ("LSTMBlockCell__peephole", "LSTMCell__sharded"):
        assert rule_of(read_case(RECORDED / f"{name}.json")) is None
