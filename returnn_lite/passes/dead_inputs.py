"""Dead inputs: data that nothing reads is not asked for, so that a layer can be computed without what others need.

    data = input; classes = input         data = input
    y = tanh(data)                   →    y = tanh(data)

An input whose array nothing reads stays if it alone says how long a dim is, or how many sequences there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from returnn_lite.dims import Dim, DimKind
from returnn_lite.ir import Graph, Loop, node_operands, walk
from returnn_lite.ir.reachability import reachable


def dead_inputs(graph: Graph) -> Graph:
    """The graph with only the inputs that it needs; the first one, if it needs none."""
    read = {value for node in graph.nodes for value in node_operands(node)}.union(graph.results())
    kept = {value for value in graph.inputs if value in read}
    measured = _measured(graph)
    frames = {dim for dim in measured if dim.kind is not DimKind.BATCH}
    for wanted in (frames, measured - frames):  # what says how long a dim is says how many sequences there are, too
        for value in graph.inputs:
            known = _parts(dim for other in kept for dim in other.type.dims)
            if wanted & _parts(value.type.dims) - known:
                kept.add(value)
    kept = kept or set(graph.inputs[:1])
    return replace(graph, inputs=tuple(value for value in graph.inputs if value in kept))


def _measured(graph: Graph) -> set[Dim]:
    """The dims of all values and those that nodes name, but for what nodes make themselves."""
    dims: set[Dim] = set()
    made: set[Dim] = set()
    for node in walk(graph.nodes):
        made.update(node.op.created_dims())
        dims.update(*(output.type.dims for output in node.outputs))
        dims |= {node.op.over} if isinstance(node.op, Loop) else node.op.measured_dims()
    return _parts(dims) - made


def _parts(dims: Iterable[Dim]) -> set[Dim]:
    """Dims whose lengths are known at run time only, and those that they are computed from."""
    return set(reachable((dim for dim in dims if dim.size is None), lambda dim: dim.operands()))
