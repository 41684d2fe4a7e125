"""Composition: `extends`, null, overrides of the command line, and where what came from is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from returnn_lite.config.compose import merged, overridden, parse_overrides, read_composed
from returnn_lite.config.diagnostics import ConfigError
from returnn_lite.config.source import Source, parse_yaml

BASE = """\
task: train
network:
  hidden: {class: linear, n_out: 3, from: data}
  output: {class: softmax, from: hidden}
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / "main.yaml"


def test_later_wins_dicts_merge_and_null_removes(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        base=BASE,
        other="network:\n  hidden: {n_out: 4, dropout: 0.1}\n",
        main="extends: [base.yaml, other.yaml]\nnetwork:\n  output: null\n  hidden: {n_out: 5, activation: null}\n",
    )
    assert read_composed(path).data == {
        "task": "train",
        "network": {
            "hidden": {"class": "linear", "n_out": 5, "from": "data", "dropout": 0.1, "activation": None},
        },
    }


@pytest.mark.parametrize(
    ("base", "over", "result"),
    [
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        ({}, {"a": None}, {"a": None}),
    ],
)
def test_merged(base: dict[str, Any], over: dict[str, Any], result: dict[str, Any]) -> None:
    before = repr(base), repr(over)
    assert merged(base, over) == result
    assert (repr(base), repr(over)) == before


def test_positions_are_of_the_file_that_says_it(tmp_path: Path) -> None:
    path = write(tmp_path, base=BASE, main="extends: base.yaml\nnetwork:\n  hidden: {n_out: 5}\n")
    source = read_composed(path)
    assert str(source.locate(("network", "hidden", "n_out"))) == f"{path}:3:12"
    assert str(source.locate(("network", "output", "from"))) == f"{tmp_path / 'base.yaml'}:4:28"
    assert str(source.locate(("nothing",))) == f"{path}:1:1"


@pytest.mark.parametrize(
    ("main", "base", "message"),
    [
        ("extends: base.yaml\n", "extends: main.yaml\n", "'main.yaml' extends this file in turn"),
        ("extends: main.yaml\n", "a: 1\n", "'main.yaml' extends this file in turn"),
        ("a: 1\nextends: [nothing.yaml]\n", "a: 1\n", "main.yaml:2:1: extends: there is no file 'nothing.yaml' beside"),
        ("extends: {a: 1}\n", "a: 1\n", "main.yaml:1:1: extends: expected a list of files, got {'a': 1}"),
        ("extends: base.yaml\n", "a: None\n", "base.yaml:1:4: a: None is Python's"),
    ],
)
def test_mistakes_of_extends(main: str, base: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read_composed(write(tmp_path, base=base, main=main))
    assert message in str(error.value)


@pytest.fixture
def source() -> Source:
    return parse_yaml(BASE + "learning_rates: {1: 0.1}\nrates: [1, 2]\n", "net.yaml")


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        (["network.hidden.n_out=7"], ("network", "hidden", "n_out"), 7),
        (["network.hidden.from=[data, 'prev:x']"], ("network", "hidden", "from"), ["data", "prev:x"]),
        (["+network.hidden.dropout=1e-1"], ("network", "hidden", "dropout"), 0.1),
        (["+network.new={class: copy}"], ("network", "new"), {"class": "copy"}),
        (["+a.b.c=no"], ("a", "b", "c"), "no"),
        (["++task", "search"], ("task",), "search"),
        (["++new", "a=b"], ("new",), "a=b"),
        (["++network.hidden.n_out", "8"], ("network", "hidden", "n_out"), 8),
        (["task="], ("task",), None),
        (["learning_rates.1=0.2"], ("learning_rates", 1), 0.2),
        (["task=a", "task=b"], ("task",), "b"),
        (["rates.1=5"], ("rates", 1), 5),
        (["++rates.0", "5"], ("rates", 0), 5),
    ],
)
def test_overrides(source: Source, arguments: list[str], path: tuple[str | int, ...], value: object) -> None:
    changed = overridden(source, parse_overrides(arguments))
    found: Any = changed.data
    for part in path:
        found = found[part]
    assert found == value
    assert str(changed.locate(path)) == "command line:1:1"
    assert source.data == parse_yaml(BASE + "learning_rates: {1: 0.1}\nrates: [1, 2]\n", "net.yaml").data


def test_null_removes_a_layer_and_sets_an_option(source: Source) -> None:
    arguments = ["network.output=null", "network.hidden.n_out=null"]
    changed = overridden(source, parse_overrides(arguments)).data["network"]
    assert changed == {"hidden": {"class": "linear", "n_out": None, "from": "data"}}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "tsk=eval",
            "tsk: this override matches nothing in the config. Did you mean 'task'? Write '+tsk=...' to add it.",
        ),
        (
            "network.hiden.n_out=3",
            "network.hiden.n_out: this override matches nothing in the config. Did you mean 'hidden'?",
        ),
        (
            "network.hidden.n_out.x=3",
            "network.hidden.n_out.x: there is no 'x' in 'network.hidden.n_out', which is 3, no dict. "
            "Write 'network.hidden.n_out=...' to replace it as a whole.",
        ),
        ("+network.hidden.n_out.x=3", "there is no 'x' in 'network.hidden.n_out', which is 3, no dict."),
        ("+rates.2=3", "rates.2: there is no '2' in 'rates', which is a list of 2. Write 'rates=...'"),
        ("task=[train", "command line:1:1: task: this bracket is not closed. Add ']', or a comma."),
        ("network.hidden.n_out=(2, 2)", "command line:1:1: network.hidden.n_out: (2, 2) is Python's notation"),
        ("=3", "command line:1:1: '=3' has no key. Write 'key=value'."),
        ("task=[1", "this bracket is not closed"),
        ("task=None", "None is Python's. Write null."),
    ],
)
def test_overrides_that_are_wrong(source: Source, argument: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        overridden(source, parse_overrides([argument]))
    assert message in str(error.value)
