"""Learning rates: those that RETURNN gave for the same scores, and its file."""

import json
import math
from pathlib import Path

import pytest

from returnn_lite.config.diagnostics import ConfigError
from returnn_lite.engine.errors import EngineError
from returnn_lite.engine.learning_rate import LearningRateControl, LearningRateOptions
from returnn_lite.engine.learning_rate_file import (
    EpochRecord,
    LearningRateFileError,
    read_learning_rates,
    write_learning_rates,
)
from returnn_lite.engine.options import engine_options

RECORDED = json.loads((Path(__file__).parent / "returnn_learning_rates.json").read_text())


def control(config: dict) -> LearningRateControl:
    rates = config.get("learning_rates")
    if isinstance(rates, dict):
        config = {**config, "learning_rates": {int(epoch): rate for epoch, rate in rates.items()}}
    return LearningRateControl(engine_options(LearningRateOptions, config))


@pytest.mark.parametrize(("config", "scores", "expected"), RECORDED)
def test_rates_are_those_of_returnn(config: dict, scores: list[float], expected: list[float]) -> None:
    chosen = control(config)
    records: dict[int, EpochRecord] = {}
    for epoch, score in enumerate(scores, start=1):
        records[epoch] = EpochRecord(chosen.next(epoch, records), {"dev_score": score, "train_score": score + 1})
    found = [records[epoch].learning_rate for epoch in records] + [chosen.next(len(scores) + 1, records)]
    assert found == pytest.approx(expected, rel=1e-9)


def test_old_records_win_over_the_config() -> None:
    chosen = control({"learning_rate": 0.5, "learning_rates": [0.1, 0.2]})
    assert chosen.next(1, {1: EpochRecord(0.7), 2: EpochRecord(0.6)}) == 0.7
    assert chosen.next(2, {1: EpochRecord(0.7)}) == 0.2


@pytest.mark.parametrize(
    ("errors", "measure", "key"),
    [
        ({"train_score": 1, "dev_score": 2, "dev_error": 3}, None, "dev_score"),
        ({"train_score": 1, "dev_score_output": 2, "dev_score_a": 3}, None, "dev_score_output"),
        ({"train_score": 1, "dev_score_b": 2, "dev_score_a": 3}, None, "dev_score_a"),
        ({"train_score": 1, "dev_error_b": 2}, None, "dev_error_b"),
        ({"train_score_a": 1}, None, "train_score_a"),
        ({"dev_score": 1, "dev_error": 2}, "dev_error", "dev_error"),
        ({"dev_score": 1, "dev_error_output": 2}, "dev_error", "dev_error_output"),
        ({"dev_score": 1, "dev_error": 2}, ["foo", "dev_error"], "dev_error"),
        ({}, "dev_error", None),
    ],
)
def test_the_measure_that_decides(errors: dict, measure: str | list[str] | None, key: str | None) -> None:
    assert control({"learning_rate_control_error_measure": measure}).error_key(errors) == key


def test_a_measure_that_does_not_exist_is_named() -> None:
    with pytest.raises(EngineError, match=r"there is no foo; there are \['dev_score'\]"):
        control({"learning_rate_control_error_measure": "foo"}).error_key({"dev_score": 1.0})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"learning_rate": "1e-3"}, "learning_rate: expected a number, got '1e-3'"),
        ({"learning_rate_control": "newbob_mult_epoch"}, "Did you mean 'newbob_multi_epoch'"),
        ({"learning_rate": 0.0}, "must be positive"),
    ],
)
def test_wrong_options_are_refused(config: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        control(config)


def test_file_comes_back_as_written(tmp_path: Path) -> None:
    records = {1: EpochRecord(0.5, {"dev_score": math.inf, "train_score": -1.5}), 12: EpochRecord(1e-5)}
    write_learning_rates(tmp_path / "rates", records)
    assert read_learning_rates(tmp_path / "rates") == records
    assert [path.name for path in tmp_path.iterdir()] == ["rates"]


def test_file_of_returnn(tmp_path: Path) -> None:
    (tmp_path / "rates").write_text(
        "{\n1: EpochData(learningRate=0.001, error={'dev_score': 1.5, 'train_score': 2.5}),\n"
        "2: EpochData(learningRate=0.001, error={\n'dev_score': nan,\n':meta:loss_scale': 1.0,\n}),\n}\n"
    )
    found = read_learning_rates(tmp_path / "rates")
    assert found[1] == EpochRecord(0.001, {"dev_score": 1.5, "train_score": 2.5})
    assert math.isnan(found[2].errors["dev_score"]) and len(found[2].errors) == 1


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{1: 2}",
        "{1: EpochData(error={})}",
        "{1: EpochData(__import__('os').getcwd())}",
        "{1: Epoch",
        "{'a': 1}",
    ],
)
def test_file_that_is_something_else_is_refused_and_never_run(tmp_path: Path, content: str) -> None:
    (tmp_path / "rates").write_text(content)
    with pytest.raises(LearningRateFileError, match="rates' cannot be read"):
        read_learning_rates(tmp_path / "rates")
