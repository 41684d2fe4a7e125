"""Which lengths differ from hypothesis to hypothesis: those of a search that ends itself, and of what is made of
hypotheses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from returnn_lite.dims import Dim, DimKind
from returnn_lite.ir import Graph, Loop, Node, Value, walk

Beams = Mapping[Dim, tuple[Dim, ...]]


def beams_of_lengths(graph: Graph) -> Beams:
    """The beams that the length of each dim which the graph creates varies over; beams are explicit."""
    found: dict[Dim, tuple[Dim, ...]] = {dim: () for value in graph.inputs for dim in value.type.dims}
    for node in walk(graph.nodes):
        if isinstance(node.op, Loop):
            if node.op.ending is not None:
                found[node.op.over] = _beams_in(node.op.ending.ended.type.dims)
        elif created := node.op.created_dims():
            found |= dict.fromkeys(created, _beams_of_created(node))
        for new, old in node.op.renamed_dims():
            found.setdefault(new, beams_of_length(old, found))
    return found


def beams_of_length(dim: Dim, beams: Beams) -> tuple[Dim, ...]:
    """The beams that a dim's length varies over, also one that is computed from others."""
    found = dict.fromkeys(beams.get(dim, ()))
    for operand in dim.operands():
        found |= dict.fromkeys(beams_of_length(operand, beams))
    return tuple(found)


def _beams_of_created(node: Node) -> tuple[Dim, ...]:
    """Those of the operand or result that tells the length; if none does, those that are read and still there."""
    if node.op.length_at is not None:
        told: Value = (*node.inputs, *node.outputs)[node.op.length_at]
        return _beams_in(told.type.dims)
    of_inputs = {dim for value in node.inputs for dim in value.type.dims}
    return _beams_in(dim for value in node.outputs for dim in value.type.dims if dim in of_inputs)


def _beams_in(dims: Iterable[Dim]) -> tuple[Dim, ...]:
    return tuple(dim for dim in dict.fromkeys(dims) if dim.kind is DimKind.BEAM)
