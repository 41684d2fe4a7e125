"""Deciding first: what is computed behind a search for the best hypothesis alone is computed for that one alone.

    z = dot(x, W)       # [B, beam, T]                    x1 = decide(x, scores)    # [B, U]
    y = decide(z, scores)                           →     y = dot(x1, W)

A hypothesis's part of a value depends on no other hypothesis, as the beam is a batch dim of all that does not name it.
The scores of a second model for 12 hypotheses, of which one is decided for, take a twelfth of the time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace

from returnn_lite.ir import Graph, InLoop, Loop, Node, Value, node_operands
from returnn_lite.ir.ops.elementwise import CheckFinite, HostCall, PrintValue
from returnn_lite.ir.ops.search import Decide
from returnn_lite.ir.ops.sources import AssignParameter
from returnn_lite.ir.rewrite import Rewriter
from returnn_lite.passes.substitution import Substitution

FIXED = (AssignParameter, CheckFinite, HostCall, Loop, PrintValue)
"""What has effects, or results that are traced back over the hypotheses."""
BY_HYPOTHESIS = (InLoop.PER_STEP, InLoop.RECURRENCE, InLoop.STEP_INDEX, InLoop.WHOLE_AXIS)


def decide_first(graph: Graph) -> Graph:
    """The graph with each decision before what only it needs. Every node must be live."""
    producers = {output: node for node in graph.nodes for output in node.outputs}
    users: dict[Value, set[Node]] = defaultdict(set)
    for node in graph.nodes:
        for value in node_operands(node):
            users[value].add(node)
    results = set(graph.results())
    moved: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        if isinstance(node.op, Decide):
            before = _for_this_only(node, producers, users, results)
            if before:
                moved[node] = before
    if not moved:
        return graph
    gone = {node for before in moved.values() for node in before}
    substitution = Substitution()
    kept: list[Node] = []
    for node in graph.nodes:
        if node in moved:
            order = [other for other in graph.nodes if other in set(moved[node])]
            kept += _decided(node, order, substitution)
        elif node not in gone:
            kept.append(substitution.node(node))
    return substitution.finish(graph, kept)


def _for_this_only(
    decide: Node, producers: Mapping[Value, Node], users: Mapping[Value, set[Node]], results: Collection[Value]
) -> list[Node]:
    """The nodes that give the decision what it decides about, of which nothing else needs anything."""
    found: list[Node] = []
    known = {decide}
    work = [decide.inputs[0]]
    while work:
        node = producers.get(work.pop())
        if node is None or node in known or not _can_follow(node, decide.op):
            continue
        if any(output in results or not users[output] <= known for output in node.outputs):
            continue  # visited again from its last user, if all of them turn out to be needed for this only
        known.add(node)
        found.append(node)
        work += node.inputs
    return found


def _can_follow(node: Node, decide: object) -> bool:
    """True for what computes each hypothesis from itself."""
    assert isinstance(decide, Decide)
    if isinstance(node.op, FIXED) or node.op.in_loop not in BY_HYPOTHESIS or node.op.created_dims():
        return False
    renamed = {old for old, _ in decide.times}
    dims = {dim for value in (*node.inputs, *node.outputs) for dim in value.type.dims} | node.op.named_dims()
    varying = {dim for dim in dims if decide.beam in dim.over}
    reads_hypotheses = any(decide.beam in value.type or renamed & set(value.type.dims) for value in node.inputs)
    return reads_hypotheses and decide.beam not in node.op.named_dims() and varying <= renamed


def _decided(decide: Node, before: list[Node], substitution: Substitution) -> list[Node]:
    """The nodes in place of a decision: those that decide about what goes in, and those that follow for one
    hypothesis."""
    op = decide.op
    assert isinstance(op, Decide)
    mapping = dict(op.times)
    rewriter = Rewriter(mapping)
    scores = substitution.value(decide.inputs[1])
    made = {output for node in before for output in node.outputs}
    nodes: list[Node] = []
    for value in dict.fromkeys(value for node in before for value in node.inputs if value not in made):
        given = substitution.value(value)
        if op.beam in given.type or set(mapping) & set(given.type.dims):
            (type_,) = op.output_types((given.type, scores.type))
            first = rewriter.bind(value, type_)
            nodes.append(replace(decide, inputs=(given, scores), outputs=(first,)))
        else:
            rewriter.values[value] = given
    nodes += [rewriter.node(node) for node in before]
    substitution.replace({decide.output: rewriter.value(decide.inputs[0])})
    return nodes
