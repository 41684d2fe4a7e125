"""What graphs over a small ragged batch mean, under the reference interpreter."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from returnn_lite.dims import DimKind, Symbol
from returnn_lite.ir import Graph, walk
from returnn_lite.ir.ops.sources import Initializer, Parameter, RandomDraw
from tests.reference.interpreter import interpret
from tests.reference.named import Array, Lengths, Named, without_padding

B = Symbol("B", DimKind.BATCH)
T = Symbol("T", varies_over=(B,))
S = Symbol("S", varies_over=(B,))
F = Symbol("F", DimKind.FEATURE, 2)
CONSTANT = Initializer("constant", (("value", 0.0),))
LENGTHS = {T: np.array([4, 1, 3]), S: np.array([2, 5, 3])}


def feeds(graph: Graph) -> dict[str, Array]:
    """Random arrays for the inputs of a graph, by their names and types."""
    found: dict[str, Array] = {}
    for value in graph.inputs:
        generator = np.random.default_rng(sum(map(ord, value.name)))
        shape = [
            3 if dim is B else int(LENGTHS[dim].max()) if dim in LENGTHS else dim.size or 0 for dim in value.type.dims
        ]
        if value.type.dtype == "bool":
            found[value.name] = generator.random(shape) < 0.5
        elif value.type.dtype == "int32":
            classes = value.type.sparse.size if value.type.sparse is not None else None
            found[value.name] = generator.integers(0, classes or 3, shape)
        else:
            found[value.name] = generator.normal(size=shape)
    return found


def meaning(graph: Graph) -> dict[str, Named]:
    """The outputs, padding set to zero. Parameters and draws are random, the same for each name."""
    known = Lengths({dim: Named(lengths, (B,)) for dim, lengths in LENGTHS.items()} | {B: Named(np.array(3), ())})
    parameters, draws = {}, {}
    for node in walk(graph.nodes):
        if isinstance(node.op, Parameter):
            generator = np.random.default_rng(sum(map(ord, node.op.name)))
            parameters[node.op.name] = generator.normal(0, 0.7, [dim.size or 0 for dim in node.op.dims])
        elif isinstance(node.op, RandomDraw) and node.op.seed not in draws:
            draws[node.op.seed] = _draw(node.op)
    outputs = interpret(graph, feeds(graph), known, parameters, draws)
    return {name: without_padding(value, known) for name, value in outputs.items()}


def _draw(op: RandomDraw) -> Named:
    """Numbers for all steps of T, of which each may take its own."""
    dims = tuple(dim for dim in op.dims if dim is not T)
    shape = [3 if dim is B else dim.size or 0 for dim in dims]
    generator = np.random.default_rng(sum(map(ord, op.seed)))
    if not op.fresh:
        return Named(generator.normal(size=shape), dims)
    return Named(generator.normal(size=[4, *shape]), (T, *dims))


def assert_same(found: Mapping[str, Named], expected: Mapping[str, Named]) -> None:
    """The same outputs with the same numbers."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        dims = tuple(dict.fromkeys((*value.dims, *found[name].dims)))
        np.testing.assert_allclose(
            *np.broadcast_arrays(found[name].over(dims), value.over(dims)), rtol=1e-9, atol=1e-9, err_msg=name
        )
