"""Inputs that nothing needs go; those that only say how long a dim is stay."""

from __future__ import annotations

import pytest

from returnn_lite.dims import DimKind, Symbol, TensorType
from returnn_lite.ir import Graph, Value
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.elementwise import Elementwise
from returnn_lite.ir.ops.sources import Constant, Iota, Length
from returnn_lite.ir.verify import verify
from returnn_lite.passes.dead_inputs import dead_inputs

B = Symbol("B", DimKind.BATCH)
T = Symbol("T", varies_over=(B,))
U = Symbol("U", varies_over=(B,))
F = Symbol("F", DimKind.FEATURE, 2)


def kept(b: Builder, *results: Value) -> list[str]:
    """The names of the inputs that are left; the graph stays legal."""
    graph = b.graph({value.name: value for value in results})
    smaller = verify(dead_inputs(graph), "dead_inputs")
    assert (smaller.nodes, smaller.outputs) == (graph.nodes, graph.outputs)
    return [value.name for value in smaller.inputs]


@pytest.fixture
def b() -> Builder:
    builder = Builder()
    builder.input("data", TensorType((B, T, F)))
    builder.input("classes", TensorType((B, U), "int32"))
    builder.input("speaker", TensorType((B,), "int32"))
    return builder


def test_what_is_read_and_what_is_a_result_stays(b: Builder) -> None:
    data, _, speaker = b.inputs
    assert kept(b, b.apply(Elementwise("tanh"), data), speaker) == ["data", "speaker"]


def test_an_input_whose_lengths_are_needed_stays(b: Builder) -> None:
    assert kept(b, b.apply(Length(U))) == ["classes"]


def test_an_input_whose_dim_another_is_computed_from_stays(b: Builder) -> None:
    assert kept(b, b.apply(Iota(T + 1)), b.inputs[2]) == ["data", "speaker"]


def test_an_input_over_whose_frames_a_loop_runs_stays(b: Builder) -> None:
    b.open_loop(U)
    state = b.delay("count", TensorType((B,), "int32"), b.inputs[2])
    state.next = state.now
    found = b.close_loop([("y", state.now)])
    assert kept(b, found["y"]) == ["classes", "speaker"]


def test_something_says_how_many_sequences_there_are(b: Builder) -> None:
    assert kept(b, b.apply(Constant(1.0, "float32", (B,)))) == ["data"]


def test_one_stays_even_if_none_is_needed(b: Builder) -> None:
    assert kept(b, b.apply(Constant(1.0))) == ["data"]
    without = Builder()
    assert kept(without, without.apply(Constant(1.0))) == []


def test_nothing_changes_where_all_are_needed() -> None:
    x = Value("x", TensorType((B, T)))
    graph = Graph((x,), (), {"x": x})
    assert dead_inputs(graph).inputs == graph.inputs
