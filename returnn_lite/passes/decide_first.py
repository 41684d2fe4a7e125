"""Deciding first: what is computed behind a search for the best hypothesis alone is computed for that one alone.

    z = dot(x, W)       # [B, beam, T]                    x1 = decide(x, scores)    # [B, U]
    y = decide(z, scores)                           →     y = dot(x1, W)

A hypothesis's part of a value depends on no other hypothesis, as the beam is a batch dim of all that does not name it.
The scores of a second model for 12 hypotheses, of which one is decided for, take a twelfth of the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

from returnn_lite.ir import Graph, Node, Value
from returnn_lite.ir.body import Vertex, is_over_batch, producers, readers
from returnn_lite.ir.ops.search import Decide
from returnn_lite.ir.rewrite import Rewriter
from returnn_lite.ir.substitution import Substitution
from returnn_lite.passes.hypotheses.lengths import Beams, beams_of_length, beams_of_lengths


def decide_first(graph: Graph) -> Graph:
    """The graph with each decision before what only it needs. Every node must be live."""
    decisions = [(node, node.op) for node in graph.nodes if isinstance(node.op, Decide)]
    if not decisions:
        return graph
    makers, readers_of, results = producers(graph.nodes), readers(graph.nodes), set(graph.results())
    beams = beams_of_lengths(graph)
    found = {node: _for_this_only(node, op, makers, readers_of, results, beams) for node, op in decisions}
    moved = {node: before for node, before in found.items() if before}
    if not moved:
        return graph
    place = {node: i for i, node in enumerate(graph.nodes)}
    gone = set().union(*moved.values())
    substitution = Substitution()
    kept: list[Node] = []
    for node in graph.nodes:
        if isinstance(node.op, Decide) and node in moved:
            kept += _decided(node, node.op, sorted(moved[node], key=place.__getitem__), substitution)
        elif node not in gone:
            kept.append(substitution.node(node))
    return substitution.finish(graph, kept)


def _for_this_only(
    node: Node,
    decide: Decide,
    makers: Mapping[Value, Node],
    readers_of: Mapping[Value, Sequence[Vertex]],
    results: Set[Value],
    beams: Beams,
) -> list[Node]:
    """The nodes that give the decision what it decides about, of which nothing else needs anything."""
    found: dict[Node, None] = {}
    waiting: dict[Node, int] = {}
    work = [node.inputs[0]]
    while work:
        maker = makers.get(work.pop())
        if maker is None or maker in found:
            continue
        if maker not in waiting:
            others = sum(len(readers_of.get(output, ())) for output in maker.outputs)
            is_free = _can_follow(maker, decide, beams) and results.isdisjoint(maker.outputs)
            waiting[maker] = others if is_free else -1
        waiting[maker] -= 1
        if waiting[maker] == 0:  # this was its last reader, and all of them are needed for this only
            found[maker] = None
            work += dict.fromkeys(maker.inputs)
    return list(found)


def _can_follow(node: Node, decide: Decide, beams: Beams) -> bool:
    """True for what computes each hypothesis from itself; over the batch those of the same rank meet."""
    if not node.op.is_function or node.op.created_dims() or is_over_batch(node):
        return False
    renamed = {old for old, _ in decide.times}
    dims = {dim for value in (*node.inputs, *node.outputs) for dim in value.type.dims} | node.op.named_dims()
    varying = {dim for dim in dims if decide.beam in beams_of_length(dim, beams)}
    reads_hypotheses = any(decide.beam in value.type or renamed & set(value.type.dims) for value in node.inputs)
    return reads_hypotheses and decide.beam not in node.op.named_dims() and varying <= renamed


def _decided(node: Node, decide: Decide, before: list[Node], substitution: Substitution) -> list[Node]:
    """The nodes in place of a decision: those that decide about what goes in, and those that follow for one
    hypothesis."""
    mapping = dict(decide.times)
    scores = substitution.value(node.inputs[1])
    made = {output for follower in before for output in follower.outputs}
    read = list(dict.fromkeys(value for follower in before for value in follower.inputs if value not in made))
    rewriter = Rewriter(mapping, {value: f"{value.name}@best" for value in read})
    nodes: list[Node] = []
    for value in read:
        given = substitution.value(value)
        if decide.beam in given.type or set(mapping) & set(given.type.dims):
            (type_,) = decide.output_types((given.type, scores.type))
            nodes.append(replace(node, inputs=(given, scores), outputs=(rewriter.bind(value, type_),)))
        else:
            rewriter.values[value] = given
    nodes += map(rewriter.node, before)
    substitution.replace({node.output: rewriter.value(node.inputs[0])})
    return nodes
