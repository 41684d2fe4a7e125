"""Search splitting: what neither a choice nor the end of the loop depends on leaves the loop of a search.

A search has to run step by step, as the hypotheses of a step extend those of the step before; but what only reads the
labels that were chosen is the same for the hypotheses that are left in the end. It goes into a loop of its own behind
the search, whose length is known then, and which `distribute_loops` takes apart further.

    label, end, y = loop T {                      label, end = loop T {
      p = softmax(s)                                p = softmax(s)
      label = choose(p)                             label = choose(p)
      e = dot(one_hot(label), W)            →       ...
      h = lstm_step(e, h')                        }
      y = stack(h)                                y = loop T { e = dot(one_hot(label[T]), W); h = lstm_step(e, h') }
    }

A hypothesis's own frames are what its ancestors computed, so that a recurrence over the traced labels gives what the
same recurrence gave in the search, hypotheses reordered in each step.

A loop that searches runs all that is masked at every step (`guard_search`), and can't do what is left of it on the
masked frames alone. So what is masked and depends on no choice goes into a loop before the search, where the number of
steps is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from returnn_lite.dims import Dim
from returnn_lite.ir import Graph, InLoop, Loop, Node, State, Value, loop_node
from returnn_lite.ir.body import Vertex, operands_of
from returnn_lite.ir.reachability import reachable
from returnn_lite.passes.loop_parts import in_two


def split_searches(graph: Graph, only_required: bool = False) -> Graph:
    """The graph with every loop that searches split, with `only_required` those of which a part needs all steps at
    once; unchanged if there is none. What is masked must be as built: one loop keeps frames of every step for another.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        searches = isinstance(node.op, Loop) and any(inner.op.in_loop is InLoop.BEAM for inner in node.op.body)
        if isinstance(node.op, Loop) and searches:
            parts = _parts(node.op, only_required)
            nodes += [replace(loop_node(part, node.origin), clock=node.clock) for part in parts]
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes)) if len(nodes) > len(graph.nodes) else graph


def _parts(loop: Loop, only_required: bool) -> list[Loop]:
    """The search; behind it the loop of what it does not depend on; before it that of what is masked and depends on no
    choice."""
    behind: list[Loop] = []
    search = needed_by_search(loop)
    vertices: tuple[Vertex, ...] = (*loop.body, *loop.states)
    rest = [vertex for vertex in vertices if vertex not in search]
    if rest and (not only_required or any(_looks_ahead(vertex) for vertex in rest)):
        loop, *behind = in_two(loop, search)
    if only_required or loop.ending is not None:
        return [loop, *behind]
    known = _known_before(loop)
    if any(vertex.clock for vertex in known):
        return [*in_two(loop, known), *behind]
    return [loop, *behind]


def _looks_ahead(vertex: Vertex) -> bool:
    return isinstance(vertex, Node) and vertex.op.in_loop is InLoop.WHOLE_AXIS


def needed_by_search(loop: Loop) -> set[Vertex]:
    """The nodes and states of a body that its choices, its end and its results after the last step depend on.

    So are random numbers, which are drawn anew in each step, and what reads dims that a step of the search makes, whose
    frames are not kept.
    """
    producer: dict[Value, Vertex] = {output: node for node in loop.body for output in node.outputs}
    producer |= {state.now: state for state in loop.states}
    made = {dim for node in loop.body for dim in node.op.created_dims()}
    wanted = [final.now for final in loop.finals]
    wanted += [loop.ending.ended] if loop.ending is not None else []
    for node in loop.body:
        if node.op.in_loop in (InLoop.BEAM, InLoop.RANDOM):
            wanted += node.outputs
    search = _with_operands(wanted, producer)
    while True:
        frames = {value for value, vertex in producer.items() if vertex in search and made & set(value.type.dims)}
        readers = [node for node in loop.body if node not in search and frames & set(node.inputs)]
        if not readers:
            return search
        search |= _with_operands([output for node in readers for output in node.outputs], producer)


def _with_operands(values: Iterable[Value], producer: dict[Value, Vertex]) -> set[Vertex]:
    """What makes the values, and all that this needs."""

    def made(values: Iterable[Value]) -> list[Vertex]:
        return [producer[value] for value in values if value in producer]

    return set(reachable(made(values), lambda vertex: made(operands_of(vertex))))


def _known_before(loop: Loop) -> set[Vertex]:
    """The nodes and states of a body that depend on no choice, but for those that make dims of what others read: a loop
    keeps no frames of such."""
    vertices: tuple[Vertex, ...] = (*loop.body, *loop.states)
    readers: dict[Value, list[Vertex]] = {}
    for vertex in vertices:
        for value in operands_of(vertex):
            readers.setdefault(value, []).append(vertex)

    def reading(vertex: Vertex) -> list[Vertex]:
        made = (vertex.now,) if isinstance(vertex, State) else vertex.outputs
        return [reader for value in made for reader in readers.get(value, ())]

    starts: set[Vertex] = {node for node in loop.body if node.op.in_loop is InLoop.BEAM}
    while True:
        follows = set(reachable(starts, reading))
        read = {dim for vertex in follows for dim in _dims_read(vertex)}
        makers = {node for node in loop.body if node not in follows and read.intersection(node.op.created_dims())}
        if not makers:
            return set(vertices) - follows
        starts |= makers


def _dims_read(vertex: Vertex) -> set[Dim]:
    named = vertex.op.named_dims() if isinstance(vertex, Node) else set()
    return named.union(*(value.type.dims for value in operands_of(vertex)))
