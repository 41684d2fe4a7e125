"""Recomputation: what layers with the option `recompute` make in training is computed again when gradients are taken.

    a = f(x); b = g(a); c = h(b)    →    recompute { a = f(x); b = g(a) }; c = h(b)    # if a and b are marked

The marks are on the origins of nodes. Nodes of one mark are a group if each needs another, or is needed by one, and no
way leads out of them and back: so a group is computed at one time, as one node. What cannot be done twice stays
outside, as do loops outside of loops, whose bodies have groups of their own: their states are kept.

Each node has a stage, which is one later where a way leaves a group: those of one stage need each other only within a
group. A node goes to the stage of those of its mark that need it, if nothing else needs it before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from returnn_lite.ir import Element, Graph, Loop, Node, Origin, Value, node_operands, recompute_node, walk
from returnn_lite.ir.body import can_recur, has_states_only, results_of_body
from returnn_lite.ir.reachability import reachable


def recompute(graph: Graph) -> Graph:
    """The graph with groups of what is marked."""
    if not any(node.origin.recompute for node in walk(graph.nodes)):
        return graph
    return replace(graph, nodes=tuple(_level(graph.nodes, set(graph.results()), in_loop=False)))


def _level(nodes: Sequence[Node], results: Collection[Value], in_loop: bool) -> Sequence[Node]:
    """The nodes of one level, of which the results are read elsewhere, in groups, in an order of dependency."""
    nodes = [_prepared(node, in_loop) for node in nodes]
    marks = {node: node.origin.recompute for node in nodes if _takes_part(node, in_loop)}
    if not marks:
        return nodes
    edges = _edges(nodes)
    stages = _stages(nodes, edges, marks)
    group_of = _groups(nodes, edges, marks, stages)
    read = _read_outside(nodes, group_of, results)
    stays: list[list[Node]] = [[] for _ in range(max(stages.values()) + 1)]
    grouped: list[dict[Node, list[Node]]] = [{} for _ in stays]
    for node in nodes:
        if node in marks:
            grouped[stages[node]].setdefault(group_of[node], []).append(node)
        else:
            stays[stages[node]].append(node)
    order: list[Node] = []
    for alone, groups in zip(stays, grouped, strict=True):
        order += alone
        for group in groups.values():
            order += _group(group, read)
    return order


def _prepared(node: Node, in_loop: bool) -> Node:
    """A loop in no other that takes part stacks its states; one that does not has groups in its body."""
    if not isinstance(node.op, Loop):
        return node
    if _takes_part(node, in_loop):
        return node if in_loop else node.with_loop(_with_state_stacks(node.op))
    body = tuple(_level(node.op.body, results_of_body(node.op), in_loop=True))
    return node if body == node.op.body else node.with_loop(replace(node.op, body=body))


def _with_state_stacks(loop: Loop) -> Loop:
    stacked = {stack.now for stack in loop.stacks}
    missing = dict.fromkeys(state.next for state in loop.states if state.next not in stacked)
    stacks = [Element(now, now.of_type(now.type.with_dims(loop.over))) for now in missing]
    return replace(loop, stacks=(*loop.stacks, *stacks)) if stacks else loop


def _takes_part(node: Node, in_loop: bool) -> bool:
    """True for what may be computed again as a whole. Of loops all nodes must be marked; one in no other goes on from
    its states."""
    if not node.origin.recompute or not can_recur(node.op):
        return False
    if not isinstance(node.op, Loop):
        return True
    if not all(inner.origin.recompute and can_recur(inner.op) for inner in walk(node.op.body)):
        return False
    return in_loop or has_states_only(node.op)


@dataclass(frozen=True)
class Edges:
    """What each node of a level needs of it, and what needs it."""

    needs: Mapping[Node, Sequence[Node]]
    needed_by: Mapping[Node, Sequence[Node]]


def _edges(nodes: Iterable[Node]) -> Edges:
    needs: dict[Node, Sequence[Node]] = {}
    needed_by: dict[Node, list[Node]] = {}
    makers: dict[object, Node] = {}
    for node in nodes:
        needs[node] = list(dict.fromkeys(makers[key] for key in _read(node) if key in makers))
        needed_by[node] = []
        for maker in needs[node]:
            needed_by[maker].append(node)
        makers.update(dict.fromkeys((*node.outputs, *_lengths_made(node)), node))
    return Edges(needs, needed_by)


def _stages(nodes: Sequence[Node], edges: Edges, marks: Mapping[Node, str]) -> Mapping[Node, int]:
    """The stage of each node."""

    def leaves(node: Node, other: Node) -> bool:
        return node in marks and marks[node] != marks.get(other)

    stages: dict[Node, int] = {}
    for node in nodes:
        stages[node] = max((stages[one] + leaves(one, node) for one in edges.needs[node]), default=0)
    for node in reversed(nodes):
        if node in marks and any(not leaves(node, one) for one in edges.needed_by[node]):
            stages[node] = min(stages[one] - leaves(node, one) for one in edges.needed_by[node])
    return stages


def _groups(
    nodes: Iterable[Node], edges: Edges, marks: Mapping[Node, str], stages: Mapping[Node, int]
) -> Mapping[Node, Node]:
    """The first node of the group of each node that is in one."""

    def beside(node: Node) -> Iterator[Node]:
        for one in (*edges.needs[node], *edges.needed_by[node]):
            if marks.get(one) == marks[node] and stages[one] == stages[node]:
                yield one

    first: dict[Node, Node] = {}
    for node in nodes:
        if node in marks and node not in first:
            first.update(dict.fromkeys(reachable([node], beside), node))
    return first


def _read_outside(nodes: Iterable[Node], group_of: Mapping[Node, Node], results: Collection[Value]) -> set[Value]:
    """The values that are read outside of the groups that make them."""
    made = {value: group_of[node] for node in group_of for value in node.outputs}
    read = {value for node in nodes for value in node_operands(node) if made.get(value) is not group_of.get(node)}
    return read.union(results)


def _read(node: Node) -> Iterator[object]:
    """The values that a node needs, and the dims whose lengths it needs."""
    yield from node_operands(node)
    for dim in node.op.named_dims():
        yield from dim.leaves


def _lengths_made(node: Node) -> Iterator[object]:
    for inner in walk([node]):
        yield from inner.op.created_dims()
        yield from (new for new, _ in inner.op.renamed_dims() if new.size is None)


def _group(group: Sequence[Node], read: Collection[Value]) -> Sequence[Node]:
    """A group as one node, which gives what others read of it; as it is if nothing of that has gradients."""
    mark = group[0].origin.recompute
    made = tuple(output for node in group for output in node.outputs if output in read)
    if not any(value.type.is_float for value in made):
        return group
    return [recompute_node(tuple(group), made, Origin(mark, recompute=mark))]
