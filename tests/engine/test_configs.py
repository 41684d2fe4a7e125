"""Configs of `configs/` that nothing else trains: a few steps of each, whose objective falls."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from returnn_lite.cli.main import main

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", ["g2p_lstm_attention", "g2p_stacked"])
def test_a_few_steps_of_training(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["+train.max_words=60", "dev.max_words=10"]
    assert main(["train", str(CONFIGS / f"{name}.yaml"), *words, "num_epochs=2", f"model={tmp_path}/model"]) == 0
    first, last = map(float, re.findall(r"^epoch \d score: (\S+)", capsys.readouterr().out, re.MULTILINE))
    assert last < first
