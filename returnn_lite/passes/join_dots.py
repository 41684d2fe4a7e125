"""Products of one value with several weights become one product, where they run step by step.

    a = dot(x, W); b = dot(x, V)      →      z = dot(x, concat(W, V)); a = z[:A]; b = z[A:]

The four gates of a cell that is written out, or queries, keys and values in a search, are then one matrix product,
forwards and backwards: a quarter of the operations of a step. They are in a cycle, which is one for all products of one
value, or in a loop that keeps its steps together: what could leave a loop isn't tied to what can't. On whole sequences
it would cost more than it saves (docs/decisions/0010). The weights are joined before the loop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from returnn_lite.dims import Dim, Symbol
from returnn_lite.ir import Clock, Graph, Loop, Node, Value
from returnn_lite.ir.body import BodyGraph, searches
from returnn_lite.ir.ops.contraction import Dot
from returnn_lite.ir.ops.indexing import Concat, Slice


def join_dots(graph: Graph) -> Graph:
    """The graph with such products joined in its loops."""
    return replace(graph, nodes=tuple(_with_joined_body(node) for node in graph.nodes))


@dataclass(frozen=True)
class _Kind:
    """What products have in common that can be one: the value, what is summed, and where they run."""

    value: Value
    over: tuple[Dim, ...]
    clock: Clock


def _with_joined_body(node: Node) -> Node:
    loop = node.op
    if not isinstance(loop, Loop):
        return node
    groups = _groups(loop)
    first = {members[0]: members for members in groups}
    later = {inner for members in groups for inner in members[1:]}
    body: list[Node] = []
    for inner in loop.body:
        if inner in first:
            body += _one_product(first[inner])
        elif inner not in later:
            body.append(_with_joined_body(inner))
    return node if tuple(body) == loop.body else node.with_loop(replace(loop, body=tuple(body)))


def _groups(loop: Loop) -> list[list[Node]]:
    """The products of a body that can be one, in their order."""
    weights = set(loop.free_values())
    candidates = [node for node in loop.body if isinstance(node.op, Dot) and _is_by_weights(node, node.op, weights)]
    groups: dict[_Kind, list[Node]] = defaultdict(list)
    for node in candidates:
        assert isinstance(node.op, Dot)
        groups[_Kind(node.inputs[0], node.op.over, node.clock)].append(node)
    found = [members for members in groups.values() if len(members) > 1]
    if found and loop.ending is None and not searches(loop):
        cycles = BodyGraph(loop).cycle
        found = [[node for node in members if node in cycles] for members in found]
    return [members for members in found if len(members) > 1]


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
