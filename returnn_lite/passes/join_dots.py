"""Products of one value with several weights become one product.

    a = dot(x, W); b = dot(x, V)      →      z = dot(x, concat(W, V)); a = z[:A]; b = z[A:]

The four gates of a cell that is written out, or queries, keys and values, are then one matrix product, forwards and
backwards: in a loop that is a quarter of the operations of a step. Both must be in one cycle, or in none: what could
leave a loop isn't tied to what can't. Inside of a loop the weights are joined before it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from returnn_lite.dims import Dim, Symbol
from returnn_lite.ir import Clock, Graph, Loop, Node, Value
from returnn_lite.ir.body import BodyGraph, Vertex
from returnn_lite.ir.ops.contraction import Dot
from returnn_lite.ir.ops.indexing import Concat, Slice


def join_dots(graph: Graph) -> Graph:
    """The graph with such products joined, in loops and around them."""
    return replace(graph, nodes=_joined(graph.nodes, None))


@dataclass(frozen=True)
class _Kind:
    """What products have in common that can be one: the value, what is summed, and where they run."""

    value: Value
    over: tuple[Dim, ...]
    clock: Clock
    cycle: int | None


def _joined(nodes: Sequence[Node], loop: Loop | None) -> tuple[Node, ...]:
    """The nodes of a level: of the graph, or of the body of a loop."""
    groups = _groups(nodes, loop)
    first = {members[0]: members for members in groups}
    later = {node for members in groups for node in members[1:]}
    weights = {node.inputs[1] for members in groups for node in members}
    early = [node for node in nodes if not node.inputs and not weights.isdisjoint(node.outputs)]
    moved = set(early)
    result = early
    for node in nodes:
        if node in first:
            result += _one_product(first[node])
        elif isinstance(node.op, Loop):
            body = _joined(node.op.body, node.op)
            result.append(node if body == node.op.body else node.with_loop(replace(node.op, body=body)))
        elif node not in later and node not in moved:
            result.append(node)
    return tuple(result)


def _groups(nodes: Sequence[Node], loop: Loop | None) -> list[list[Node]]:
    """The products that can be one, in their order."""
    if loop is None:
        weights: Collection[Value] = {output for node in nodes if not node.inputs for output in node.outputs}
    else:
        weights = set(loop.free_values())
    candidates = [node for node in nodes if isinstance(node.op, Dot) and _is_by_weights(node, node.op, weights)]
    if len(candidates) < 2:
        return []
    cycles: dict[Vertex, int] = {} if loop is None else BodyGraph(loop).cycle
    groups: dict[_Kind, list[Node]] = defaultdict(list)
    for node in candidates:
        assert isinstance(node.op, Dot)
        groups[_Kind(node.inputs[0], node.op.over, node.clock, cycles.get(node))].append(node)
    return [members for members in groups.values() if len(members) > 1]


def _is_by_weights(node: Node, dot: Dot, weights: Collection[Value]) -> bool:
    """True for the product with what is there before: static, with one dim of its own behind what is summed."""
    value, weight = node.inputs
    if weight not in weights or any(dim.size is None for dim in weight.type.dims):
        return False
    own = set(weight.type.dims) - set(dot.over)
    return len(own) == 1 and own.isdisjoint(value.type.dims) and value is not weight


def _own_dim(node: Node) -> Dim:
    (dim,) = set(node.inputs[1].type.dims) - set(node.inputs[0].type.dims)
    return dim


def _one_product(members: Sequence[Node]) -> list[Node]:
    """The product of all, and the part of each under its old value."""
    first = members[0]
    dims = tuple(_own_dim(node) for node in members)
    # A name for all: a sum of the dims would be as long as the group in each of its parts.
    out = Symbol(f"{first.output.name}@joined", dims[0].kind, sum(dim.size or 0 for dim in dims))
    assert isinstance(first.op, Dot)
    join, product = Concat(dims, out), first.op
    columns = tuple(node.inputs[1] for node in members)
    weights = Value(f"{first.output.name}@weights", join.type_of(*(value.type for value in columns)))
    whole = Value(f"{first.output.name}@joined", product.type_of(first.inputs[0].type, weights.type))
    nodes = [
        Node(join, columns, (weights,), first.origin, first.clock),
        Node(product, (first.inputs[0], weights), (whole,), first.origin, first.clock),
    ]
    start = 0
    for node, dim in zip(members, dims, strict=True):
        nodes.append(Node(Slice(out, dim, start), (whole,), node.outputs, node.origin, node.clock))
        start += dim.size or 0
    return nodes
