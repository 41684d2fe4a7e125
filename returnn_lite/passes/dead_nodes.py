"""Dead nodes: what neither outputs nor checks need is dropped, in loop bodies too.

y = loop T { a = f(x); b = g(x); stack(a); stack(b) }    →    y = loop T { a = f(x); stack(a) }    # if only a is used
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from returnn_lite.dims import Dim
from returnn_lite.ir import Graph, Loop, Node, Recompute, Value, node_operands, recompute_node, walk
from returnn_lite.ir.attributes import NO_DIMS
from returnn_lite.ir.body import BodyGraph, operands_of


def dead_nodes(graph: Graph) -> Graph:
    """The graph with only what its results need. Inputs stay."""
    given = {dim for value in graph.inputs for dim in value.type.dims}
    given |= {dim for node in walk(graph.nodes) for dim in node.op.created_dims()}
    return replace(graph, nodes=tuple(_live(graph.nodes, graph.results(), given)))


def _live(nodes: Iterable[Node], results: Iterable[Value], given: set[Dim]) -> list[Node]:
    """`given`: the dims whose length needs no relabelling to be known."""
    needed = set(results)
    lengths: set[Dim] = set()
    kept: list[Node] = []
    for node in reversed(tuple(nodes)):
        if needed.isdisjoint(node.outputs) and lengths.isdisjoint(_made(node, given)):
            continue
        current = node
        if isinstance(node.op, Loop):
            current = _smaller_loop(node, node.op, needed, given)
        elif isinstance(node.op, Recompute):
            read = tuple(value for value in node.op.results if value in needed)
            current = recompute_node(tuple(_live(node.op.body, read, given)), read, node.origin)
        lengths.update(*map(_lengths_read, walk([current])))
        needed.update(node_operands(current))
        kept.append(current)
    kept.reverse()
    return kept


def _lengths_read(node: Node) -> frozenset[Dim]:
    """The dims whose lengths a node needs although it reads nothing that has them: what makes them has to be there."""
    measured = NO_DIMS if isinstance(node.op, Loop) else node.op.measured_dims()
    return measured.difference(*(value.type.dims for value in node.inputs)) if measured else measured


def _made(node: Node, given: set[Dim]) -> tuple[Dim, ...]:
    """The dims that have a length only where the node is."""
    return (*node.op.created_dims(), *(new for new, _ in node.op.renamed_dims() if new not in given))


def _smaller_loop(node: Node, loop: Loop, needed: set[Value], given: set[Dim]) -> Node:
    """The loop with only the stacks and finals that are needed, and what these need.

    One element stays in any case: it may be what says how many steps there are.
    """
    stacks = tuple(stack for stack in loop.stacks if stack.whole in needed)
    finals = tuple(final for final in loop.finals if final.whole in needed)
    results = {element.now for element in (*stacks, *finals)}
    results |= {mask.value for stack in stacks for mask in stack.clock}
    if loop.ending is not None:
        results.add(loop.ending.ended)
    if loop.search is not None:
        results |= {loop.search.pointers, loop.search.ended}
    live, body = _live_in_body(loop, results, given)
    smaller = replace(
        loop,
        elements=tuple(e for e in loop.elements if e.now in live) or loop.elements[:1],
        states=tuple(state for state in loop.states if state.now in live),
        stacks=stacks,
        finals=finals,
        body=tuple(body),
        holds=tuple((value, init) for value, init in loop.holds if value in live),
    )
    return node.with_loop(smaller)


def _live_in_body(loop: Loop, results: set[Value], given: set[Dim]) -> tuple[set[Value], list[Node]]:
    """Every value that the results need in the body, through states too, and what is left of its nodes: one that is
    there for a length has needs of its own."""
    graph, read = BodyGraph(loop), results
    while True:
        live = read.union(*map(operands_of, graph.upstream(read)))
        body = _live(loop.body, live, given)
        read = live.union(*map(operands_of, body))
        if read == live:
            return live, body
