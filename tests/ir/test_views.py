"""What layers see of values: markers and order that no graph has."""

from __future__ import annotations

import pytest

from returnn_lite.dims import Dim, MarkedType, TensorType, product_dim
from returnn_lite.ir import Value, walk
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.elementwise import AsIndex
from returnn_lite.ir.views import View, in_graph, view_of
from tests.ir.dims import FOUR, TWO, B, F, G, S, T, V, X, floats, ints


@pytest.fixture
def b() -> Builder:
    return Builder()


@pytest.fixture
def x(b: Builder) -> View:
    return b.input("x", X)


def seen(x: View) -> tuple[tuple[Dim, ...], Dim | None, Dim | None]:
    return x.type.dims, x.type.feature, x.type.time


def test_other_markers_are_another_view_of_the_same_value(b: Builder, x: View) -> None:
    views = [b.with_feature(x, None), b.with_time(x, None), b.reorder(x, (F, B)), b.marked(x, T, F)]
    assert [seen(y) for y in views] == [
        ((B, T, F), None, T),
        ((B, T, F), F, None),
        ((T, F, B), F, T),
        ((B, T, F), T, F),
    ]
    assert all(y.of is x.of and y == x and y == x.of and x.of == y and hash(y) == hash(x.of) for y in views)
    assert not b.outermost_nodes


def test_a_view_is_no_other_value(b: Builder, x: View) -> None:
    assert x != b.unary("tanh", x) and x != Value("x", X.plain) and x != "x"


def test_markers_that_a_value_has_already_make_no_view(b: Builder, x: View) -> None:
    assert b.with_feature(x, F) is x and b.as_index(x, None) is x


def test_other_classes_are_another_value(b: Builder) -> None:
    label = b.input("label", ints(B, of=V))
    number = b.as_index(label, None)
    assert number != label and number.type.sparse is None
    assert [type(node.op) for node in b.outermost_nodes] == [AsIndex]


def test_a_value_of_the_graph_has_no_markers(x: View) -> None:
    assert view_of(x) is x and in_graph(x) is x.of and in_graph(x.of) is x.of
    assert seen(view_of(x.of)) == ((B, T, F), None, None)
    assert type(x.of.type) is TensorType


def test_a_graph_has_no_views(b: Builder, x: View) -> None:
    """Neither operands nor results, states, elements, masks, held values, stacks, checks and outputs."""
    start = b.input("start", floats(B, F))
    b.open_loop(T)
    frame = b.reorder(b.element(x), (B,))
    before = b.delay("h", floats(B, F), b.with_feature(start, None))
    mask = b.with_time(b.binary("greater", b.reduce("sum", frame, F), 0.0), None)
    with b.masked(mask, S):
        y = b.with_feature(b.add(frame, before.now), None)
    b.hold(y, start)
    before.next = b.with_feature(y, F)
    b.require_computed(b.with_feature(frame, None))
    outer = b.close_loop([("y", y)], [("last", y)])
    graph = b.graph({"y": b.reorder(outer["y"], (F, T)), "last": outer["last"]})
    loop = graph.nodes[-1].op
    found = [*graph.inputs, *graph.results(), *(value for pair in loop.holds for value in pair)]
    found += [value for state in loop.states for value in (state.now, state.init, state.next)]
    found += [value for e in (*loop.elements, *loop.stacks, *loop.finals) for value in (e.now, e.whole)]
    for node in walk(graph.nodes):
        found += [*node.inputs, *node.outputs, *(mask.value for mask in node.clock)]
    assert {type(value) for value in found} == {Value}
    assert {type(value.type) for value in found} == {TensorType}
    assert graph.axes("y") == (B, F, T)


def test_each_view_of_a_sequence_has_frames_with_its_markers(b: Builder, x: View) -> None:
    b.open_loop(T)
    frame, other = b.element(x), b.element(b.with_feature(b.reorder(x, (F, B)), None))
    assert frame == other
    assert [seen(y) for y in (frame, other)] == [((B, F), F, None), ((F, B), None, None)]


def test_what_a_loop_makes_has_the_markers_of_its_steps(b: Builder, x: View) -> None:
    b.open_loop(T)
    assert seen(b.close_loop([("y", b.element(x))])["y"]) == ((B, T, F), F, None)


def test_products_have_the_features_last(b: Builder, x: View) -> None:
    weights = b.input("w", MarkedType((G, F), feature=G))
    assert seen(b.dot(x, weights, F)) == ((B, T, G), G, T)
    assert seen(b.dot(weights, b.input("y", floats(B, F, T)), F)) == ((B, T, G), G, T)


def test_frames_that_are_gathered_keep_their_features(b: Builder, x: View) -> None:
    assert seen(b.gather(x, b.input("i", MarkedType((B, S, G), "int32", T, G, S)), T)) == ((B, S, G, F), F, S)
    assert seen(b.gather(x, b.input("j", MarkedType((B, G), "int32", F, G)), F)) == ((B, T, G), None, T)


def test_merged_and_split_dims_mean_what_they_meant(b: Builder, x: View) -> None:
    merged = product_dim((T, F))
    assert seen(b.merge_dims(x, (T, F), merged)) == ((B, merged), merged, merged)
    assert seen(b.split_dim(x, T, (T.ceildiv(2), TWO))) == ((B, T.ceildiv(2), TWO, F), F, T.ceildiv(2))
    halves = FOUR.ceildiv(2)
    assert seen(b.split_dim(b.relabel(x, F, FOUR), FOUR, (TWO, halves))) == ((B, T, TWO, halves), halves, T)
