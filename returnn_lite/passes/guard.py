"""Guards: a body with slower clocks as one in which everything runs at every step.

A state of a slower clock keeps its value at steps at which its mask is false; `when` is the identity; `current` is a
state of its own. What is computed meanwhile on a slower clock is not used.

    h = f(e', h') when m;  h' = delay(h, 0) when m      →      h = f(e, h');  g = select(m, h, h');  h' = delay(g, 0)

This is how loops run without optimisation, and loops whose cycles go through several clocks.
"""

from __future__ import annotations

from dataclasses import replace

from returnn_lite.ir import Graph, Loop, Node
from returnn_lite.ir.body import searches
from returnn_lite.ir.rewrite import retype
from returnn_lite.passes.loops.guarded_body import guarded_body


def guard(graph: Graph) -> Graph:
    """The graph with all clocked bodies guarded; unchanged if there is none. None of them may need all steps of a
    slower clock at once."""
    return _guarded(graph, searching_only=False)


def guard_search(graph: Graph) -> Graph:
    """The graph with clocked bodies guarded where hypotheses are ordered: beams are kept in a loop that runs every
    step."""
    return _guarded(graph, searching_only=True)


def _guarded(graph: Graph, searching_only: bool) -> Graph:
    nodes: list[Node] = []
    changed = False
    for node in graph.nodes:
        clocked = isinstance(node.op, Loop) and any(inner.clock for inner in node.op.body)
        if isinstance(node.op, Loop) and clocked and (not searching_only or searches(node.op)):
            guarded = _guarded_loop(node, node.op)
            nodes += guarded
            changed = True
        else:
            nodes.append(node)
    return retype(replace(graph, nodes=tuple(nodes))) if changed else graph


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
