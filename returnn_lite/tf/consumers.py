"""What the consumers of a value want of it: whether there are any, which dim last, and into which parts it is cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from returnn_lite.dims import Dim
from returnn_lite.ir import Graph, Loop, Node, Value, walk
from returnn_lite.ir.ops.axes import Relabel
from returnn_lite.ir.ops.elementwise import AsIndex, Elementwise, Select
from returnn_lite.ir.ops.indexing import Slice
from returnn_lite.ir.ops.reduction import ArgReduce, Normalize, Softmax, TopK

Cuts = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Consumers:
    """Of a whole graph, its loops included.

    `used`: the values that something reads. `last`: the dim that a value should have as its last axis, because a
    consumer works along it. `cuts`: for a value and one of its static dims, the parts [start, end) that slices take.
    """

    used: frozenset[Value] = frozenset()
    last: dict[Value, Dim] = field(default_factory=dict)
    cuts: dict[tuple[Value, Dim], Cuts] = field(default_factory=dict)


def consumers_of(graph: Graph) -> Consumers:
    """Looks at every node once."""
    nodes = list(walk(graph.nodes))
    return Consumers(used_values(graph, nodes), wanted_last(nodes), cuts_of(nodes))


def used_values(graph: Graph, nodes: Iterable[Node]) -> frozenset[Value]:
    """All values that nodes, loops or the graph's results read."""
    used = set(graph.results())
    for node in nodes:
        used.update(node.inputs)
        if isinstance(node.op, Loop):
            used.update(state.next for state in node.op.states)
            used.update(element.now for element in (*node.op.stacks, *node.op.finals))
            used.update([node.op.ending.ended] if node.op.ending is not None else [])
            used.update([node.op.search.pointers, node.op.search.ended] if node.op.search is not None else [])
    return frozenset(used)


def wanted_last(nodes: Sequence[Node]) -> dict[Value, Dim]:
    """From the consumers backwards; what works element by element passes the wish on."""
    wanted: dict[Value, Dim] = {}
    for node in reversed(nodes):
        op = node.op
        if isinstance(op, Softmax | ArgReduce | TopK):
            wanted.setdefault(node.inputs[0], op.over)
        elif isinstance(op, Normalize):
            wanted.setdefault(node.inputs[0], op.over[-1])
        elif isinstance(op, Elementwise | Select | AsIndex | Relabel):
            dim = wanted.get(node.output)
            if isinstance(op, Relabel) and dim is op.new:
                dim = op.old
            for value in node.inputs:
                if dim is not None and dim in value.type.dims:
                    wanted.setdefault(value, dim)
    return wanted


def cuts_of(nodes: Iterable[Node]) -> dict[tuple[Value, Dim], Cuts]:
    """Where several slices take parts of one static dim that do not overlap, these parts and what is between them.

    Cut at once, their gradients are put side by side. Each slice on its own would have a gradient of the whole size.
    """
    slices: dict[tuple[Value, Dim], set[tuple[int, int]]] = {}
    for node in nodes:
        op = node.op
        if isinstance(op, Slice) and op.step == 1 and op.first >= 0 and op.over.size is not None:
            end = op.first + (op.out.size or 0)
            slices.setdefault((node.inputs[0], op.over), set()).add((op.first, end))
    return {key: cuts for key, parts in slices.items() if len(cuts := _cuts(key[1].size or 0, sorted(parts))) > 1}


def _cuts(size: int, parts: list[tuple[int, int]]) -> Cuts:
    """All parts with those between them; none if parts overlap."""
    cuts: list[tuple[int, int]] = []
    position = 0
    for start, end in parts:
        if start < position or end > size or start == end:
            return ()
        cuts += [(position, start)] if start > position else []
        cuts.append((start, end))
        position = end
    return (*cuts, (position, size)) if position < size else tuple(cuts)
