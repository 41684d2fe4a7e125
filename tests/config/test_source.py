"""The YAML dialect: what each notation means, or where and how it is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from returnn_lite.config.compose import to_yaml
from returnn_lite.config.diagnostics import ConfigError
from returnn_lite.config.source import parse_yaml, read_yaml

VALUES = {
    "1e-4": 1e-4,
    "1E5": 1e5,
    "1.5e3": 1500.0,
    ".5": 0.5,
    "5.": 5.0,
    "-3": -3,
    "+3": 3,
    "007": 7,
    "1_000": 1000,
    "0x1F": 31,
    "0o17": 15,
    ".inf": math.inf,
    "-.inf": -math.inf,
    "true": True,
    "False": False,
    "null": None,
    "~": None,
    "": None,
    # Text, although other dialects and hasty eyes see something else.
    "no": "no",
    "yes": "yes",
    "on": "on",
    "off": "off",
    "y": "y",
    "inf": "inf",
    "1:30": "1:30",
    "2026-11-20": "2026-11-20",
    "1e": "1e",
    "1_": "1_",
    "0x": "0x",
    "0.1.2": "0.1.2",
    "'1'": "1",
    '"no"': "no",
    "'None'": "None",
    "'it''s'": "it's",
    "prev:output": "prev:output",
    "T?": "T?",
    "[1, [a, 2.0]]": [1, ["a", 2.0]],
    "{a: 1, 2: b}": {"a": 1, 2: "b"},
    "&x b": "b",
    ".NAN": math.nan,
    "-.INF": -math.inf,
    # Formulas, which are no tuples although they have brackets and commas.
    "(a + b) * f(c, d)": "(a + b) * f(c, d)",
    "f(a, b)": "f(a, b)",
    "(f(a, b))": "(f(a, b))",
    "a (b": "a (b",
    "['f(a, b)', a)]": ["f(a, b)", "a)"],
}


@pytest.mark.parametrize(("text", "value"), VALUES.items())
def test_values(text: str, value: object) -> None:
    found = parse_yaml(f"key: {text}\n", "net.yaml").data["key"]
    assert found == value or (value != value and math.isnan(found))
    assert type(found) is type(value)


REFUSED = {
    "a: None": "1:4: a: None is Python's. Write null.",
    "a: [1, None]": "1:8: a.1: None is Python's. Write null.",
    "a: (2, 2)": "1:4: a: (2, 2) is Python's notation of a tuple. Write [2, 2].",
    "a: ()": "1:4: a: () is Python's notation of a tuple. Write [].",
    "a: ((1, 2), 3)": "1:4: a: ((1, 2), 3) is Python's notation of a tuple. Write [(1, 2), 3].",
    "a: [(2, 2), 3]": "1:5: a.0: '(2' ends at a comma although a bracket is open. Write a tuple as [2, 2]; quote ",
    "a: {b: (2, 2)}": "1:8: a.b: '(2' ends at a comma although a bracket is open. ",
    "a:\n- {e: f(x, 1), c: 2}": "2:7: a.0.e: 'f(x' ends at a comma although a bracket is open. ",
    "a: {f(x, y): 2}": "1:5: a: 'f(x' ends at a comma although a bracket is open. ",
    "a: {x:1}": "1:5: a: 'x:1' has no ': ' and no value. Write 'x: 1'.",
    "a: {b: 1, x}": "1:11: a: 'x' has no ': ' and no value. Write 'x: ...'.",
    "a: " + "9" * 5000: "1:4: a: an int of 5000 digits is too large. ",
    "a: 1e400": "1:4: a: 1e400 is too large. Write .inf if that is meant.",
    "a: &x 1\nb: &x 2": "2:4: there is an anchor of this name already. Give it another name.",
    "a:\n  b: 1\n c: 2": "3:2: this line is indented unlike those above. Indent the keys of one dict alike.",
    "a: [b, :i]": "1:8: expected the node content, but found ':'. Quote text that begins with ':'.",
    "a: [:i]": "1:5: expected the node content, but found ':'. Write a slice with slice_start and slice_end, ",
    "a: !!python/object:os.system x": "1:4: a: the tag !!python/object:os.system is not allowed. ",
    "a: !!str 3": "1:4: a: the tag !!str is not allowed. ",
    "a: !!set {b}": "1:4: a: the tag !!set is not allowed. ",
    "a: !mine x": "1:4: a: the tag !mine is not allowed. ",
    "a: 1\na: 2": "2:1: a: the key 'a' is there twice. The first is in line 1; remove one.",
    "a: {b: 1,\n  b: 2}": "2:3: a.b: the key 'b' is there twice. ",
    "a: &x {b: 1}\nc: {<<: *x}": "2:5: c: merge keys ('<<') are not part of the dialect. Use 'extends', ",
    "a: &x [*x]": "1:4: an alias of what it is in.",
    "a: *x": "1:4: found undefined alias 'x'",
    "true: 1": '1:1: true is no name for a key. Write "true" in quotes.',
    "null: 1": "1:1: null is no name for a key. ",
    "1.5: 1": "1:1: 1.5 is no name for a key. ",
    "[a]: 1": "1:1: a key must be text or a number. ",
    "a: {axes: T?}": "1:12: '?' can't be in a value between brackets. Quote the value, as in 'T?'.",
    "a: 1\n---\nb: 2": "2:1: a second document begins here. A config is one document: remove the '---'.",
    "a: [1, 2\nb: 3": "1:4: this bracket is not closed. Add ']'",
    "a: {b: 1\n": "1:4: this bracket is not closed. Add '}'",
    "a: 'x\nb: 1": "1:4: this quote is not closed. ",
    "a: 1\nb\n": "2:1: this is no key with a value. Is a ':' missing?",
    "a:\n\t- b": "2:1: found character '\\t' that cannot start any token. Indent with spaces, not with tabs.",
    "a: b: c": "1:5: mapping values are not allowed here. ",
    "a: @x": "1:4: found character '@' that cannot start any token. Quote text that has one of ",
    "---\na: 1\n---\nb: 2": "3:1: a second document begins here. ",
    "- a": "1:1: expected keys and values, such as 'task: train'.",
    "# nothing": "1:1: the file is empty. ",
    "a: \x01": "1:1: unacceptable character #x0001",
    "[" * 500: "1:1: ",
}


@pytest.mark.parametrize(("text", "message"), REFUSED.items())
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_yaml(text, "net.yaml")
    assert str(error.value).startswith(f"net.yaml:{message}")
    assert len(error.value.diagnostics) == 1


def test_all_mistakes_of_notation_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        parse_yaml("a: None\nb: 1\nb: 2\nc: !x y\n", "net.yaml")
    assert [found.position.line for found in error.value.diagnostics if found.position] == [1, 3, 4]


def test_aliases_that_expand_to_too_much_are_refused_unexpanded() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(ConfigError, match="more than 1000000 values"):
        parse_yaml("\n".join(lines), "bomb.yaml")


def test_positions_of_keys_and_of_the_nearest_key_above() -> None:
    source = parse_yaml("network:\n  out: {class: linear,\n        n_out: 3}\n", "net.yaml")
    assert str(source.locate(("network", "out", "n_out"))) == "net.yaml:3:9"
    assert str(source.locate(("network", "out", "from"))) == "net.yaml:2:3"
    assert str(source.locate(("task",))) == "net.yaml:1:1"


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "net.json"
    path.write_bytes(b'\xef\xbb\xbf{"network": {"output": {"from": [], "n_out": 1e1}}}')
    assert read_yaml(path).data == {"network": {"output": {"from": [], "n_out": 10.0}}}
    path.write_text('{\n\t"network": {\t"output": 3}\n}')
    source = read_yaml(path)
    assert source.data == {"network": {"output": 3}}
    assert str(source.locate(("network", "output"))) == f"{path}:2:15"
    path.write_bytes("a: 1\né: ".encode() + b"\xff")
    with pytest.raises(ConfigError, match=r"net.json:2:4: byte 9 is not UTF-8. Save the file as UTF-8."):
        read_yaml(path)
    with pytest.raises(ConfigError, match="there is no file"):
        read_yaml(tmp_path / "nothing.yaml")


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
    | st.sampled_from(["None", "no", "1e-4", "1_000", "0o7", "<<", "(2,2)", "~", "", "0x10", ".5", "=", "2026-11-20"])
    | st.sampled_from(["(2", "2)", "f(a, b)", "(a) + (b, c)", ".NAN", "x:1", ":i", "prev:x", "- a", "a: b", "\t"])
)
KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6) | st.integers(0, 99)
DATA = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))


@given(st.dictionaries(KEYS | st.sampled_from(["true", "null", "1.5", "<<", "7"]), DATA, min_size=1, max_size=4))
def test_what_is_written_is_read_back(data: dict[Any, Any]) -> None:
    assert parse_yaml(to_yaml(data), "net.yaml").data == data
