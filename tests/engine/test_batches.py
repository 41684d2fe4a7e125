"""A dataset with one wrong sequence: every task and `verify` name it, with key or layer; no traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from returnn_lite.cli.loading import LoadedConfig, load
from returnn_lite.cli.tasks import RunError, run_task
from returnn_lite.cli.verification import verify
from returnn_lite.config.compose import to_yaml

GOOD = [(5, 5), (3, 3), (2, 2)]
SOFTMAX = {"class": "softmax", "target": "classes", "loss": "ce"}
NETWORK = {"output": {**SOFTMAX, "from": "data"}}
SUM = {"sum": {"class": "combine", "kind": "add", "from": ["data", "data:other"], "is_output_layer": True}}
OTHER = {"dim": 3, "available_for_inference": True}
SAME = {"same_dim_tags_as": {"t": "data"}}


def loaded(tmp_path: Path, lengths: list[tuple[int, int]], network: dict[str, Any], **more: Any) -> LoadedConfig:
    """A config whose sequences have so many frames and labels; other data is as long as the labels."""
    draw = np.random.default_rng(1)
    data = [
        {
            "data": draw.normal(size=(frames, 3)).round(3).tolist(),
            "other": draw.normal(size=(labels, 3)).round(3).tolist(),
            "classes": draw.integers(0, 4, labels).tolist(),
        }
        for frames, labels in lengths
    ]
    dataset = {
        "class": "StaticDataset",
        "data": data,
        "output_dim": {"data": [3, 2], "other": [3, 2], "classes": [4, 1]},
    }
    config = {
        "model": str(tmp_path / "model"),
        "batch_size": 1000,
        "num_epochs": 1,
        "extern_data": {"data": {"dim": 3}, "other": OTHER, "classes": {"dim": 4, "sparse": True}},
        "network": network,
        "optimizer": {"class": "sgd"},
        "train": dataset,
    } | more
    file = tmp_path / "net.yaml"
    file.write_text(to_yaml(config))
    return load(str(file), [])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a model that was trained on sequences that are all right."""
    path = tmp_path_factory.mktemp("trained")
    run_task("train", loaded(path, GOOD, {**NETWORK, **SUM}))
    return path


BAD = [(5, 5), (3, 2), (2, 2)]
LOSS = r"^{}: .*net.yaml:\d+:\d+: output: .*'output' and its target.*: sequence 'seq-1' has 2 and 3$"
ADDED = r"^{}: .*net.yaml:\d+:\d+: sum: .*'data'.* and 'other'.*: sequence 'seq-1' has 2 and 3$"
SHARED = r"^{}: 'data' and 'classes' share the dim data:time.*: sequence 'seq-1' has 3 frames of 'data' and 2 of 'cl"
SHARING = {"data": {"dim": 3}, "other": {**OTHER, **SAME}, "classes": {"dim": 4, "sparse": True, **SAME}}


@pytest.mark.parametrize(
    ("task", "more", "message"),
    [
        ("train", {}, LOSS),
        ("train", {"extern_data": SHARING}, SHARED),
        ("eval", {}, LOSS),
        ("eval", {"extern_data": SHARING}, SHARED),
        ("search", {"search_output_layer": "picked"}, ADDED),
        ("forward", {"forward_output_layer": "sum"}, ADDED),
    ],
)
def test_every_task_names_the_sequence(task: str, more: dict[str, Any], message: str, trained: Path) -> None:
    name = "train" if task == "train" else "dev"
    wrong = loaded(trained, BAD, {**NETWORK, **SUM, "picked": PICKED}).data["train"]
    data = {name: wrong} if task == "train" else {"dev": wrong, "search_data": "dev", "forward_data": "dev"}
    model = {"model": str(trained / "another")} if task == "train" else {}
    config = loaded(trained, GOOD, {**NETWORK, **SUM, "picked": PICKED}, **more, **data, **model)
    with pytest.raises(RunError, match=message.format(name)):
        run_task(task, config)


PICKED = {"class": "reduce", "mode": "argmax", "axis": "F", "from": "sum", "is_output_layer": True}


def test_verify_takes_equal_lengths_where_it_can_and_else_says_what_is_not_equal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(loaded(tmp_path, GOOD, {**NETWORK, **SUM}), 3, every_row=False, seconds=0) == 0
    assert "equal" in capsys.readouterr().out
    half = {"class": "pool", "mode": "max", "pool_size": [2], "padding": "same", "from": "data"}
    twice = {"class": "repeat", "repetitions": 2, "from": "half"}
    sized = {"class": "reinterpret_data", "size_base": "data", "from": "twice"}
    network = {"half": half, "twice": twice, "output": {**sized, "is_output_layer": True}}
    with pytest.raises(RunError, match=r"random data of all lengths: .*net.yaml.*: output: 'output' takes"):
        verify(loaded(tmp_path, GOOD, network), 3, every_row=False, seconds=0)
