"""Python configs: globals as keys, `config` inside, positions of literals, and where code failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from returnn_lite.config.diagnostics import ConfigError
from returnn_lite.config.python_source import read_python
from returnn_lite.config.source import Source

TEXT = """\
import os
from math import sqrt

dim = config.int("dim", 4)
given = config.has("dim"), config.value("dim"), config.typed_value("dim")
others = config.float("rate", 0.5), config.bool("flag", False), config.list("names", ["a"]), config.value("x", None)
network = {
    "hidden": {"class": "linear", "n_out": dim, "from": ["data"]},
}
network["output"] = {
    "class": "softmax"}
"""


def read(folder: Path, text: str, **overrides: object) -> Source:
    path = folder / "net.config"
    path.write_text(text)
    return read_python(path, overrides)


def test_globals_are_the_keys(tmp_path: Path) -> None:
    data = read(tmp_path, TEXT).data
    assert sorted(data) == ["dim", "given", "network", "others", "sqrt"]
    assert data["given"] == (True, "4", 4)
    assert data["others"] == (0.5, False, ["a"], None)
    assert data["network"]["hidden"]["n_out"] == 4


def test_overrides_are_seen_by_the_code_and_hold(tmp_path: Path) -> None:
    data = read(tmp_path, TEXT, dim=8, rate=2, flag="yes", names="b, c").data
    assert data["network"]["hidden"]["n_out"] == 8
    assert data["others"] == (2.0, True, ["b", "c"], None)
    assert read(tmp_path, "task = 'train'\n", task="search").data["task"] == "search"


def test_overrides_that_the_code_neither_sets_nor_reads(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, TEXT, dmi=8, dim=3)
    assert [str(one) for one in caught.value.diagnostics] == [
        "command line:1:1: dmi: this override matches nothing in the config. Did you mean 'dim'? "
        "Write '+dmi=...' to add it."
    ]
    path = tmp_path / "net.config"
    assert read_python(path, {"dmi": 8}, ["dmi"]).data["dmi"] == 8
    set_in_passing = "for task in ['train']:\n    pass\nglobals().update(model='a')\nif True:\n    epoch: int = 3\n"
    assert read(tmp_path, set_in_passing, task="search", model="b", epoch=1).data["model"] == "b"


def test_positions_of_literals(tmp_path: Path) -> None:
    source = read(tmp_path, TEXT)
    for path, place in {
        ("dim",): "4:1",
        ("network", "hidden", "n_out"): "8:35",
        ("network", "hidden", "from", 0): "8:58",
        ("network", "output", "class"): "11:5",
        ("network", "hidden", "unknown"): "8:5",
    }.items():
        assert str(source.locate(path)) == f"{tmp_path / 'net.config'}:{place}"


def test_positions_are_those_of_globals(tmp_path: Path) -> None:
    text = """
network: dict = {"output": {"class": "copy"}}
if True:
    batch_size = 5
def other():
    network = {"output": {"class": "linear"}}
    return network
class Other:
    batch_size = 7
"""
    source = read(tmp_path, text)
    assert str(source.locate(("network", "output", "class"))).endswith(":2:29")
    assert str(source.locate(("batch_size",))).endswith(":4:5")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nb = \n", "net.config:2:5: Python: invalid syntax."),
        ("a = 1\nb = a / 0\n", "net.config:2:1: ZeroDivisionError: division by zero. "),
        ("def f():\n    return x\nb = f()\n", "net.config:2:1: NameError: name 'x' is not defined. "),
        (
            "import returnn.util\n",
            "net.config:1:1: ModuleNotFoundError: No module named 'returnn'. RETURNN's own modules",
        ),
        ("import json\njson.loads('{')\n", "net.config:2:1: JSONDecodeError: "),
    ],
)
def test_code_that_fails(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path}/{message}")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        read_python(tmp_path / "nothing.py", {})
