"""Data keys: their dims and markers, and mistakes in them."""

from __future__ import annotations

from typing import Any

import pytest

from returnn_lite.config.diagnostics import Diagnostic
from returnn_lite.dims import DimKind, Symbol, TensorType
from returnn_lite.net.extern_data import ExternData, read_extern_data


def read(entries: dict[str, Any]) -> tuple[ExternData, list[str]]:
    found: list[Diagnostic] = []
    data = read_extern_data({"extern_data": entries}, lambda path: None, found, Symbol("B", DimKind.BATCH))
    return data, [str(diagnostic) for diagnostic in found]


def type_of(entry: dict[str, Any]) -> TensorType:
    data, mistakes = read({"data": entry})
    assert mistakes == []
    return data.entries["data"].type


def markers(entry: dict[str, Any]) -> tuple[str, str]:
    type_ = type_of(entry)
    return str(type_.time), str(type_.feature)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"dim": 4}, ("data:time", "data:feature(4)")),
        ({"dim": 4, "batch_dim_axis": 1, "time_dim_axis": 0}, ("data:time", "data:feature(4)")),
        ({"shape": [None, None, 4]}, ("data:time", "data:feature(4)")),
        ({"shape": [None, None, 4], "time_dim_axis": 2}, ("data:time1", "data:feature(4)")),
        ({"shape": [7, 4], "time_dim_axis": 1}, ("data:static0(7)", "data:feature(4)")),
        ({"shape": [7, 4], "feature_dim_axis": 1}, ("None", "data:static0(7)")),
        ({"shape": [None, 4], "feature_dim_axis": None, "time_dim_axis": None}, ("None", "None")),
    ],
)
def test_axes_that_an_entry_names(entry: dict[str, Any], expected: tuple[str, str]) -> None:
    """They count with the batch at its own place, the first one by default."""
    assert markers(entry) == expected


@pytest.mark.parametrize(
    ("entry", "option"),
    [
        ({"dim": 4, "time_dim_axis": 0}, "time_dim_axis"),
        ({"dim": 4, "time_dim_axis": 3}, "time_dim_axis"),
        ({"dim": 4, "feature_dim_axis": "F"}, "feature_dim_axis"),
        ({"dim": 4, "batch_dim_axis": 3}, "batch_dim_axis"),
    ],
)
def test_axes_that_do_not_exist(entry: dict[str, Any], option: str) -> None:
    (mistake,) = read({"data": entry})[1]
    assert mistake.startswith(f"extern_data.data.{option}: {option} is ")


def test_a_dtype_that_does_not_exist() -> None:
    (mistake,) = read({"data": {"dim": 4, "dtype": "foo"}})[1]
    assert mistake.startswith("extern_data.data.dtype: there is no dtype 'foo'. Give one of bool")


def test_dims_are_shared_along_a_chain_in_any_order() -> None:
    entries = {
        "c": {"dim": 3, "same_dim_tags_as": {"t": "b"}},
        "b": {"dim": 2, "same_dim_tags_as": {"t": "a"}},
        "a": {"dim": 4},
    }
    data, mistakes = read(entries)
    assert mistakes == []
    times = {data.entries[key].type.time for key in entries}
    assert [str(time) for time in times] == ["a:time"]


def test_dims_shared_in_a_circle_are_a_mistake() -> None:
    circle = {key: {"dim": 2, "same_dim_tags_as": {"t": other}} for key, other in (("a", "b"), ("b", "a"))}
    assert all("there is no data key" in mistake for mistake in read(circle)[1])
    assert "there is no data key 'a'" in read({"a": {"dim": 2, "same_dim_tags_as": {"t": "a"}}})[1][0]
