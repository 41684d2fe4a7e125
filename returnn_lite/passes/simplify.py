"""Common subexpressions, and pairs that cancel.

    a = exp(x); b = exp(x)                                    →    b is a
    b = relabel(a, T, U); c = relabel(b, U, T)                →    c is a
    b = annotate(a, ..); c = annotate(b, ..)                  →    c = annotate(a, ..)

Only primitives that are functions of their operands take part (`Op.is_function`). Draws with one seed are one draw.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from returnn_lite.ir import Graph, Loop, Node, Value, loop_node
from returnn_lite.ir.ops.axes import Relabel
from returnn_lite.ir.ops.elementwise import Annotate
from returnn_lite.passes.substitution import Substitution


def simplify(graph: Graph) -> Graph:
    """The graph with equal work done once."""
    nodes, substitution = _simplified(graph.nodes)
    return substitution.finish(graph, nodes)


def _simplified(nodes: Iterable[Node]) -> tuple[list[Node], Substitution]:
    substitution = Substitution()
    made: dict[tuple[object, ...], Node] = {}
    producers: dict[Value, Node] = {}
    kept: list[Node] = []
    for old in nodes:
        node = _cancelled(substitution.node(old), producers)
        if isinstance(node.op, Loop):
            node = _with_simplified_body(node, node.op)
        if isinstance(node, Node) and isinstance(node.op, Relabel) and node.op.old == node.op.new:
            substitution.replace({old.output: node.inputs[0]})
            continue
        key = (node.op, node.inputs, node.clock)
        if node.op.is_function and key in made:
            substitution.replace(dict(zip(old.outputs, made[key].outputs, strict=True)))
            continue
        if node.op.is_function:
            made[key] = node
        producers.update(dict.fromkeys(node.outputs, node))
        kept.append(node)
    return kept, substitution


def _cancelled(node: Node, producers: dict[Value, Node]) -> Node:
    """The node seen through the one before it, where both together are one."""
    before = producers.get(node.inputs[0]) if len(node.inputs) == 1 else None
    if before is None or before.clock != node.clock:
        return node
    if isinstance(node.op, Annotate) and isinstance(before.op, Annotate):
        return replace(node, inputs=before.inputs)
    if isinstance(node.op, Relabel) and isinstance(before.op, Relabel) and node.op.old == before.op.new:
        return replace(node, op=Relabel(before.op.old, node.op.new, node.op.reason), inputs=before.inputs)
    return node


def _with_simplified_body(node: Node, loop: Loop) -> Node:
    body, inner = _simplified(loop.body)
    return replace(loop_node(inner.loop(loop, body), node.origin), clock=node.clock, outputs=node.outputs)
