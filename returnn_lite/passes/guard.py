"""Guards: a body with slower clocks as one in which everything runs at every step.

A state of a slower clock keeps its value at steps at which its mask is false; `when` is the identity; `current` is a
state of its own. What is computed meanwhile on a slower clock is not used.

    h = f(e', h') when m;  h' = delay(h, 0) when m      →      h = f(e, h');  g = select(m, h, h');  h' = delay(g, 0)

This is how loops run without optimisation, and loops whose cycles go through several clocks.
"""

from __future__ import annotations

from dataclasses import replace

from returnn_lite.ir import Graph, Loop, Node
from returnn_lite.ir.body import BodyGraph, is_clocked, searches
from returnn_lite.ir.rewrite import retype
from returnn_lite.passes.loops.guarded_body import guarded_body


def guard(graph: Graph) -> Graph:
    """The graph with all clocked bodies guarded; unchanged if there is none. None of them may need all steps of a
    slower clock at once."""
    return _guarded(graph, searching_only=False)


def guard_search(graph: Graph) -> Graph:
    """The graph with clocked bodies guarded where hypotheses are ordered, as beams are kept in a loop that runs every
    step; in loops in loops, where the frames of a mask would differ in number from step to step; and where a mask picks
    among steps of which each has frames that it makes, which have one dim for all."""
    return _guarded(graph, searching_only=True)


def _guarded(graph: Graph, searching_only: bool) -> Graph:
    nodes = tuple(new for node in graph.nodes for new in _guarded_node(node, all_of_them=not searching_only))
    return graph if nodes == graph.nodes else retype(replace(graph, nodes=nodes))


def _guarded_node(node: Node, all_of_them: bool) -> list[Node]:
    """The node, and before it what it needs of the level around."""
    loop = node.op
    if not isinstance(loop, Loop):
        return [node]
    body = tuple(new for inner in loop.body for new in _guarded_node(inner, all_of_them=True))
    if body != loop.body:
        loop = replace(loop, body=body)
    if is_clocked(loop) and (all_of_them or searches(loop) or _picks_among_made(loop)):
        return _guarded_loop(node, loop)
    return [node if loop is node.op else node.with_loop(loop)]


def _picks_among_made(loop: Loop) -> bool:
    """True if a value goes to a slower clock with a dim that its own makes anew."""
    made = BodyGraph(loop).made_anew
    crossing = (node for node in loop.body if (c := node.op.crossing) is not None and not c.holds) if made else ()
    return any(not dim.leaves.isdisjoint(made) for node in crossing for dim in node.inputs[0].type.dims)


def _guarded_loop(node: Node, loop: Loop) -> list[Node]:
    body = guarded_body(loop.body, loop.states, node.origin)
    plain = replace(
        loop,
        body=body.nodes,
        states=body.states,
        stacks=tuple(replace(e, now=body.value(e.now)) for e in loop.stacks),
        finals=tuple(replace(e, now=body.value(e.now)) for e in loop.finals),
        ending=None if loop.ending is None else replace(loop.ending, ended=body.value(loop.ending.ended)),
    )
    return [*body.outside, node.with_loop(plain)]
