"""Dicts as option classes: values accepted, and the message of each that is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from returnn_lite.config.decode import decode, describe, members_of
from returnn_lite.config.kinds import values_of_kind
from returnn_lite.config.options import Callback, LayerRef, Unspecified, UnspecifiedType, option


@dataclass(frozen=True)
class Options:
    """One option of each sort."""

    size: int = option("size of the output", least=1)
    rate: float = option("a rate", default=0.0)
    flag: bool = option("a flag", default=False)
    kind: Literal["add", "mul", 1] = option("what to do", default="add")
    source: LayerRef | float | None = option("a layer or a number", default=None)
    sources: list[LayerRef] = option("layers", default=[])
    pair: tuple[int, int] = option("two ints", default=(1, 1))
    table: dict[str, int] | None = option("a table", default=None)
    function: Callback | None = option("a function", default=None)
    later: str | None = option("not there yet", default=None, unsupported="use kind")
    n_out: int | UnspecifiedType | None = option("size or null", default=Unspecified)


def decoded(values: dict[str, Any]) -> tuple[Options | None, list[str]]:
    found: list[str] = []
    result = decode(Options, values, lambda name, message, hint: found.append(f"{name}: {message}. {hint}".strip()))
    return result, found


@pytest.mark.parametrize(
    ("values", "name", "value"),
    [
        ({"size": 3}, "size", 3),
        ({"size": 3, "rate": 1}, "rate", 1),
        ({"size": 3, "kind": 1}, "kind", 1),
        ({"size": 3, "source": "prev:x"}, "source", "prev:x"),
        ({"size": 3, "source": 2}, "source", 2),
        ({"size": 3, "sources": ("a", "b")}, "sources", ["a", "b"]),
        ({"size": 3, "pair": [1, 2]}, "pair", (1, 2)),
        ({"size": 3, "function": len}, "function", len),
        ({"size": 3, "later": None}, "later", None),
        ({"size": 3}, "n_out", Unspecified),
        ({"size": 3, "n_out": None}, "n_out", None),
        ({"size": 3, "of another class": 1}, "size", 3),
    ],
)
def test_accepted(values: dict[str, Any], name: str, value: object) -> None:
    result, found = decoded(values)
    assert found == []
    assert getattr(result, name) == value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "size: 'size' is missing. Add it: size of the output."),
        ({"size": True}, "size: expected an int, got True."),
        ({"size": 2.0}, "size: expected an int, got 2.0."),
        ({"size": 0}, "size: expected a number of at least 1, got 0."),
        ({"size": 3, "rate": "1e-3"}, "rate: expected a number, got '1e-3'."),
        ({"size": 3, "flag": "no"}, "flag: expected true or false, got 'no'."),
        ({"size": 3, "kind": "ad"}, "kind: expected one of 'add', 'mul', 1, got 'ad'. Did you mean 'add'?"),
        ({"size": 3, "kind": True}, "kind: expected one of 'add', 'mul', 1, got True."),
        ({"size": 3, "source": []}, "source: expected the name of a layer or a number or null, got []."),
        ({"size": 3, "sources": "a"}, "sources: expected a list of the name of a layer, got 'a'."),
        ({"size": 3, "pair": [1]}, "pair: expected a list of an int, got [1]."),
        ({"size": 3, "table": {"a": "b"}}, "table: expected a dict or null, got {'a': 'b'}."),
        ({"size": 3, "function": "len"}, "function: expected a function or null, got 'len'. A function can only be "),
        ({"size": 3, "later": "x"}, "later: later: 'x' is not supported. Use kind."),
    ],
)
def test_refused(values: dict[str, Any], message: str) -> None:
    result, found = decoded(values)
    assert result is None
    assert len(found) == 1
    assert found[0].startswith(message)


def test_all_mistakes_of_a_dict_at_once() -> None:
    assert len(decoded({"rate": "x", "flag": 1, "pair": 2})[1]) == 4


def test_references_in_options() -> None:
    assert list(values_of_kind(Options(size=1, source="a", sources=["b", "c"]), "layer")) == ["a", "b", "c"]
    assert list(values_of_kind(Options(size=1, source=2.0), "layer")) == []


def test_a_union_reads_the_same_whichever_equal_one_was_seen_first() -> None:
    """Python keeps the first one for all that are equal."""
    orders = [(int | str) | None, (str | int) | None, None | str | int]
    assert {describe(union) for union in orders} == {"a string or an int or null"}
    assert len({members_of(union) for union in orders}) == 1
