"""Products of joined inputs are split where a part can leave its loop, and where the parts are at fixed places."""

from __future__ import annotations

import numpy as np
import pytest

from returnn_lite.dims import Dim, DimKind, Symbol, TensorType, linear_dim
from returnn_lite.ir import Graph
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.verify import verify
from returnn_lite.passes.pipeline import optimize
from returnn_lite.passes.split_dots import split_dots
from returnn_lite.tf.executable import Executable

B = Symbol("B", DimKind.BATCH)
T = Symbol("T", DimKind.SPATIAL, None, (B,))
STATIC = (Symbol("P", DimKind.SPATIAL, 2), Symbol("Q", DimKind.SPATIAL, 3))
DYNAMIC = tuple(Symbol(dim.name, DimKind.SPATIAL, None, (B,)) for dim in STATIC)
LENGTHS = {T: [4, 3], DYNAMIC[0]: [2, 1], DYNAMIC[1]: [1, 3]}


def graph_of(first: Dim, second: Dim) -> Graph:
    """h = tanh(dot(concat(x[t], y * h'), memory)): x can leave the loop, what is joined to it can't."""
    b = Builder()
    x = b.input("x", TensorType((B, T, first)))
    y, memories = b.input("y", TensorType((B, second))), [b.input(d.name, TensorType((B, d))) for d in (first, second)]
    joined = linear_dim([(first, 1), (second, 1)], 0)
    memory = b.concat(list(zip(memories, (first, second), strict=True)), joined)
    zero = b.constant(0.5)
    b.open_loop(T)
    before = b.delay("h", TensorType((B,)), zero)
    parts = [(b.element(x), first), (b.mul(y, before.now), second)]
    before.next = b.unary("tanh", b.dot(b.concat(parts, joined), memory, joined))
    outer = b.close_loop([("result", before.next)])
    return b.graph({"result": outer["result"]})


def test_parts_at_fixed_places_are_split() -> None:
    graph = graph_of(*STATIC)
    assert str(verify(split_dots(graph), "split_dots")) != str(graph)


def test_parts_that_begin_elsewhere_in_each_sequence_are_not_split() -> None:
    graph = graph_of(*DYNAMIC)
    assert str(split_dots(graph)) == str(graph)


@pytest.mark.parametrize("dims", [STATIC, DYNAMIC])
def test_numbers_are_those_of_the_graph_as_built(dims: tuple[Dim, Dim]) -> None:
    graph = graph_of(*dims)
    random = np.random.default_rng(3)
    feed = {
        name: random.normal(size=shape).astype("float32")
        for name, shape in (("x", (2, 4, 2)), ("y", (2, 3)), ("P", (2, 2)), ("Q", (2, 3)))
    }
    lengths = {dim: length for dim, length in LENGTHS.items() if dim is T or dim in dims}
    built, optimized = (
        Executable(optimize(graph, enabled=enabled), B).run(feed, lengths)["result"].value for enabled in (False, True)
    )
    np.testing.assert_allclose(optimized, built, rtol=1e-5, atol=1e-6)
