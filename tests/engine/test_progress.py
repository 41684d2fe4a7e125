"""Progress: a bar on a terminal, lines in the log elsewhere."""

import io
import logging

import pytest
from rich.console import Console

from returnn_lite.engine import progress as module
from returnn_lite.engine.progress import progress
from returnn_lite.engine.statistics import Totals


def test_a_bar_on_a_terminal() -> None:
    output = io.StringIO()
    with progress("train epoch 3", 2, Console(file=output, force_terminal=True, width=100)) as advance:
        advance("score: 0.5")
        advance("score: 0.4")
    assert "train epoch 3" in output.getvalue() and "score: 0.4" in output.getvalue()


@pytest.mark.parametrize(("seconds", "lines"), [(0.0, 2), (1e9, 0)])
def test_lines_without_a_terminal(
    seconds: float, lines: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", seconds)
    output = io.StringIO()
    with caplog.at_level(logging.INFO), progress("train epoch 3", 2, Console(file=output)) as advance:
        advance("score: 0.5")
        advance("score: 0.4")
    assert output.getvalue() == ""
    assert len(caplog.messages) == lines
    assert all(message.startswith("train epoch 3, step ") for message in caplog.messages)


def test_totals_of_several_losses() -> None:
    totals = Totals()
    for _ in range(2):
        totals.add(
            {"ctc": {"sum": 6.0, "count": 3.0, "error": 1.0, "error_count": 4.0}, "ce": {"sum": 1.0, "count": 2.0}}
        )
    expected = {"dev_score_ctc": 2.0, "dev_score_ce": 0.5, "dev_error_ctc": 0.25}
    assert totals.errors("dev") == expected
    assert str(totals) == "score: {ctc: 2, ce: 0.5} error: {ctc: 0.25}"
    assert totals.is_finite()
    totals.add({"ce": {"sum": float("nan"), "count": 1.0}})
    assert not totals.is_finite()
