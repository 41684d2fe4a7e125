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

from dataclasses import replace

from returnn_lite.dims import Dim
from returnn_lite.ir import Graph, InLoop, Loop, Node, walk
from returnn_lite.ir.body import (
    BodyGraph,
    Vertex,
    is_over_batch,
    needs_all_steps,
    operands_of,
    results_of,
    searches,
)
from returnn_lite.ir.reachability import reachable
from returnn_lite.passes.loops.loop_parts import in_two


def split_searches(graph: Graph, only_required: bool = False) -> Graph:
    """The graph with every loop that searches split, with `only_required` those of which a part needs all steps at
    once; unchanged if there is none. What is masked must be as built: one loop keeps frames of every step for another.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        if isinstance(node.op, Loop) and searches(node.op):
            nodes += map(node.with_loop, _parts(node.op, only_required))
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
    if rest and (not only_required or any(map(needs_all_steps, rest))):
        loop, *behind = in_two(loop, search)
    if only_required or loop.ending is not None:
        return [loop, *behind]
    known = _known_before(loop)
    return [*(in_two(loop, known) if any(vertex.clock for vertex in known) else [loop]), *behind]


def needed_by_search(loop: Loop) -> set[Vertex]:
    """The nodes and states of a body that its choices, its end and its results after the last step depend on.

    So is what hypotheses of several sequences meet in, which do so by their ranks in each step, and what reads dims
    that a step of the search makes, whose frames are not kept.
    """
    body = BodyGraph(loop)
    wanted = [final.now for final in loop.finals]
    wanted += [loop.ending.ended] if loop.ending is not None else []
    meeting = _meeting(body)
    for node in loop.body:
        if node.op.in_loop is InLoop.BEAM or node in meeting:
            wanted += node.outputs

    def following(vertex: Vertex) -> list[Vertex]:
        frames = [value for value in results_of(vertex) if any(dim in body.maker for dim in value.type.dims)]
        reading = (reader for value in frames for reader in body.readers.get(value, ()))
        return [*body.needs(vertex), *(reader for reader in reading if isinstance(reader, Node))]

    return set(reachable(body.makers_of(wanted), following))


def _meeting(body: BodyGraph) -> set[Vertex]:
    """The nodes over the batch that depend on a choice; not those of what needs all steps, which are there in the end
    only."""
    over_batch = [node for node in body.loop.body if any(map(is_over_batch, walk([node])))]
    if not over_batch:
        return set()
    ahead = [node for node in body.loop.body if needs_all_steps(node)]
    return body.downstream(_choices(body.loop)).intersection(over_batch) - body.downstream(ahead)


def _choices(loop: Loop) -> list[Vertex]:
    return [node for node in loop.body if node.op.in_loop is InLoop.BEAM]


def _known_before(loop: Loop) -> set[Vertex]:
    """The nodes and states of a body that depend on no choice, but for those that share dims which a step makes with
    what does: a loop keeps no frames of such, and only their maker says how many there are."""
    body = BodyGraph(loop)
    sharing: dict[Dim, list[Vertex]] = {dim: [] for dim in body.maker}
    for vertex in body.vertices:
        for dim in _dims_read(vertex) & sharing.keys():
            sharing[dim].append(vertex)

    def following(vertex: Vertex) -> list[Vertex]:
        reading = [reader for value in results_of(vertex) for reader in body.readers.get(value, ())]
        made = [dim for dim in _dims_read(vertex) if dim in sharing]
        return [*reading, *(other for dim in made for other in (body.maker[dim], *sharing[dim]))]

    follows = set(reachable(_choices(loop), following))
    return {vertex for vertex in body.vertices if vertex not in follows}


def _dims_read(vertex: Vertex) -> frozenset[Dim]:
    named = vertex.op.named_dims() if isinstance(vertex, Node) else frozenset()
    return named.union(*(value.type.dims for value in operands_of(vertex)))
