"""Recomputation: what layers with the option `recompute` make in training is computed again when gradients are taken.

    a = f(x); b = g(a); c = h(b)    →    recompute { a = f(x); b = g(a) }; c = h(b)    # if a and b are marked

The marks are on the origins of nodes. Nodes of one mark form a group if each needs another, or is needed by one, with
nothing in between that is not in it: so a group is computed at one time, as one node. What cannot be done twice stays
outside, as do loops outside of loops, whose bodies have groups of their own: their states are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from returnn_lite.ir import Graph, Loop, Node, Origin, Value, node_operands, recompute_node, walk
from returnn_lite.ir.body import can_recur, producers, results_of_body
from returnn_lite.ir.reachability import reachable


def recompute(graph: Graph) -> Graph:
    """The graph with groups of what is marked."""
    if not any(node.origin.recompute for node in walk(graph.nodes)):
        return graph
    return replace(graph, nodes=tuple(_level(graph.nodes, set(graph.results()), in_loop=False)))


def _level(nodes: Iterable[Node], results: Collection[Value], in_loop: bool) -> Sequence[Node]:
    """The nodes of one level, of which the results are read elsewhere, in groups."""
    current: Sequence[Node] = [node if _takes_part(node, in_loop) else _with_inner_groups(node) for node in nodes]
    for mark in dict.fromkeys(node.origin.recompute for node in current if node.origin.recompute):
        chosen = {node for node in current if node.origin.recompute == mark and _takes_part(node, in_loop)}
        current = _grouped(current, chosen, results)
    return current


def _with_inner_groups(node: Node) -> Node:
    if not isinstance(node.op, Loop):
        return node
    body = tuple(_level(node.op.body, results_of_body(node.op), in_loop=True))
    return node if body == node.op.body else node.with_loop(replace(node.op, body=body))


def _takes_part(node: Node, in_loop: bool) -> bool:
    """True for what may be computed again as a whole. Loops only in others, and if all of their nodes are marked."""
    if not node.origin.recompute or not can_recur(node.op):
        return False
    if not isinstance(node.op, Loop):
        return True
    return in_loop and all(inner.origin.recompute and can_recur(inner.op) for inner in walk(node.op.body))


def _grouped(nodes: Sequence[Node], chosen: Collection[Node], results: Collection[Value]) -> Sequence[Node]:
    """The nodes, those that are chosen in groups, in an order of dependency."""
    stages = _stages(nodes, chosen)
    order: list[Node] = []
    for stage in range(max(stages.values(), default=0) + 1):
        here = [node for node in nodes if stages[node] == stage]
        order += [node for node in here if node not in chosen]
        for group in _connected([node for node in here if node in chosen]):
            order.append(_group(group, nodes, results))
    return order


def _stages(nodes: Iterable[Node], chosen: Collection[Node]) -> Mapping[Node, int]:
    """How often the way to each node has left what is chosen: those of one stage can be computed at once."""
    stages: dict[Node, int] = {}
    makers: dict[object, Node] = {}
    for node in nodes:
        before = [makers[key] for key in _read(node) if key in makers]
        left = [stages[maker] + (maker in chosen and node not in chosen) for maker in before]
        stages[node] = max(left, default=0)
        makers.update(dict.fromkeys((*node.outputs, *_lengths_made(node)), node))
    return stages


def _read(node: Node) -> Iterator[object]:
    """The values that a node needs, and the dims whose lengths it needs."""
    yield from node_operands(node)
    for dim in node.op.named_dims():
        yield from dim.leaves


def _lengths_made(node: Node) -> Iterator[object]:
    for inner in walk([node]):
        yield from inner.op.created_dims()
        yield from (new for new, _ in inner.op.renamed_dims())


def _connected(nodes: Sequence[Node]) -> Iterator[Sequence[Node]]:
    """The nodes in groups of which each node reads, or is read by, another one."""
    maker = producers(nodes)
    beside: dict[Node, list[Node]] = {node: [] for node in nodes}
    for node in nodes:
        for value in node_operands(node):
            if value in maker:
                beside[node].append(maker[value])
                beside[maker[value]].append(node)
    grouped: set[Node] = set()
    for node in nodes:
        if node not in grouped:
            group = set(reachable([node], lambda one: beside[one]))
            grouped |= group
            yield [one for one in nodes if one in group]


def _group(group: Sequence[Node], nodes: Iterable[Node], results: Collection[Value]) -> Node:
    """A group as one node, which gives what others read of it."""
    members = set(group)
    read = {value for node in nodes if node not in members for value in node_operands(node)}.union(results)
    mark = group[0].origin.recompute
    made = tuple(output for node in group for output in node.outputs if output in read)
    return recompute_node(tuple(group), made, Origin(mark, recompute=mark))
