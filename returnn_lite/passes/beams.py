"""Beams: in search, hypotheses become a dim.

As built, a value belongs to one hypothesis. This pass makes `Choose` explicit, so that its results have the beam dim,
which then flows through the types. A choice reorders the hypotheses: a value computed before it and one computed after
it do not belong together until the older one is gathered by the choice's back-pointers. A value's *stage* is the number
of choices of its step whose order it has (`hypotheses/stages`); states begin at stage 0 and must end at the last. Each
choice has a beam of its own; a step begins on that of the last choice of the step before.

    label, back, score = choose(p, score', ended')          label, back, score = choose(.., beam=K)     # [B, K]
    s'' = delay(s)                                      →    s.K = beam_gather(s, back); s'' = delay(s.K)
"""

from __future__ import annotations

from dataclasses import replace

from returnn_lite.dims import DimKind
from returnn_lite.ir import Graph, Loop, Node, Origin, Value, walk
from returnn_lite.ir.body import is_choice
from returnn_lite.ir.frames import lacking_lengths
from returnn_lite.ir.ops.axes import Expand
from returnn_lite.ir.rewrite import retype
from returnn_lite.passes.hypotheses.lengths import Beams, beams_of_length, beams_of_lengths
from returnn_lite.passes.hypotheses.ordered_body import ordered_body


def beams(graph: Graph) -> Graph:
    """The graph with explicit beams; unchanged if nothing searches."""
    if not any(is_choice(node) for node in walk(graph.nodes)):
        return graph
    nodes = tuple(_ordered(node) for node in graph.nodes)
    return _with_lengths_of_hypotheses(retype(replace(graph, nodes=nodes)))


def _with_lengths_of_hypotheses(graph: Graph) -> Graph:
    """Lengths that differ from hypothesis to hypothesis get the beam in their types, which makes others differ."""
    beams_of = beams_of_lengths(graph)
    nodes = tuple(new for node in graph.nodes for new in _with_beams(node, beams_of))
    return graph if nodes == graph.nodes else _with_lengths_of_hypotheses(retype(replace(graph, nodes=nodes)))


def _with_beams(node: Node, beams_of: Beams) -> list[Node]:
    """The node with the beams of lengths that it computes, or that it needs of its operands; in bodies too."""
    op = node.op
    if isinstance(op, Loop):
        body = tuple(new for inner in op.body for new in _with_beams(inner, beams_of))
        loop = _traced(op if body == op.body else replace(op, body=body), node.origin)
        return [node if loop is op else node.with_loop(loop)]
    found = op.with_lengths(lambda dim: beams_of_length(dim, beams_of))
    return _of_each_hypothesis(node if found is op else replace(node, op=found), beams_of)


def _traced(loop: Loop, origin: Origin) -> Loop:
    """A search whose stacks of hypotheses have a frame for each sequence: which ones those in the end go back to
    differs from sequence to sequence."""
    dims = loop.search.pointers.type.dims if loop.search is not None else ()
    beams = [dim for dim in dims if dim.kind is DimKind.BEAM]
    stacks, nodes = [], []
    for stack in loop.stacks:
        now = stack.now
        expand = Expand(tuple(dim for dim in dims if dim not in now.type))
        if expand.dims and any(beam in now.type for beam in beams):
            now = Value(f"{now.name}@sequences", expand.type_of(now.type))
            nodes.append(Node(expand, (stack.now,), (now,), origin))
        stacks.append(replace(stack, now=now))
    return replace(loop, stacks=tuple(stacks), body=(*loop.body, *nodes)) if nodes else loop


def _of_each_hypothesis(node: Node, beams_of: Beams) -> list[Node]:
    """The node, before it the operands that it needs for each hypothesis: where these end differs, and it works along
    that."""
    lacking = lacking_lengths(node.op, [x.type for x in node.inputs], lambda dim: beams_of_length(dim, beams_of))
    nodes: list[Node] = []
    inputs = list(node.inputs)
    for i, (value, dims) in enumerate(zip(node.inputs, lacking, strict=True)):
        if dims:
            expand = Expand(dims)
            inputs[i] = Value(f"{value.name}@hypotheses", expand.type_of(value.type))
            nodes.append(Node(expand, (value,), (inputs[i],), node.origin, node.clock))
    return [*nodes, replace(node, inputs=tuple(inputs))] if nodes else [node]


def _ordered(node: Node) -> Node:
    """The node with explicit beams. Types are those without a beam still."""
    if node.op.lacks_beam:
        return replace(node, op=node.op.with_beam(None))
    if isinstance(node.op, Loop) and any(map(is_choice, node.op.body)):
        return node.with_loop(ordered_body(node.op, node.origin))
    return node
