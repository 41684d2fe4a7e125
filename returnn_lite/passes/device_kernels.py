"""Device kernels: on a GPU, what one kernel of cuDNN can run becomes one primitive, with its input products.

z = add(dot(x, W), b); h, c = lstm(z, W_re, h0, c0); last = last(c, c0)
→    h, last_h, last = stacked_recurrence(x, W, b, W_re, h0, c0)

Of both directions of a source, and the layers of a stack, all are one. No other device has such a kernel: there the
graph stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from returnn_lite.dims import TensorType
from returnn_lite.ir import Graph, Node, Value, node_operands
from returnn_lite.ir.body import producers
from returnn_lite.ir.ops.sources import Constant
from returnn_lite.ir.ops.stacked_recurrence import Member, StackedRecurrence
from returnn_lite.ir.reachability import postorder
from returnn_lite.ir.rewrite import Rewriter
from returnn_lite.passes.dead_nodes import dead_nodes
from returnn_lite.passes.kernels.candidates import Candidate
from returnn_lite.passes.kernels.choice import kernels
from returnn_lite.passes.kernels.groups import Group


def device_kernels(graph: Graph) -> Graph:
    """An optimised graph with what cuDNN runs as primitives of their own."""
    chosen = kernels(graph, "gpu").values()
    groups = list(dict.fromkeys(choice.group for choice in chosen if choice.group is not None))
    if not groups:
        return graph
    at = {group.members[-1].node: group for group in groups}
    removed = {node for group in groups for node in _replaced(group)}
    copies = Rewriter(in_place=True)
    nodes: list[Node] = []
    for node in graph.nodes:
        if node in at:
            nodes += _one_primitive(at[node], copies)
        if node not in removed:
            nodes.append(node)
    nodes = [copies.node(node) for node in _in_order(nodes, copies)]
    outputs = {name: copies.value(value) for name, value in graph.outputs.items()}
    checks = tuple(copies.value(value) for value in graph.checks)
    return dead_nodes(replace(graph, nodes=tuple(nodes), outputs=outputs, checks=checks))


def _replaced(group: Group) -> Iterator[Node]:
    """The nodes whose results the primitive gives."""
    for member in group.members:
        yield member.node
        yield from (final for finals in member.finals for final in finals)


def _one_primitive(group: Group, copies: Rewriter) -> Iterator[Node]:
    """The node of a group, and those that its operands need; `copies` learns what its results replace."""
    first = group.layers[0][0]
    operands: list[Value] = [first.product.x]
    for member in group.members:
        bias = member.product.bias
        if bias is None:
            zero = _zero(member)
            yield zero
            bias = zero.output
        operands += [member.product.weights, bias, *member.weights, *member.states]
    layers = tuple(tuple(Member(member.op.step, member.product.source) for member in layer) for layer in group.layers)
    reverse = len(group.layers[0]) == 1 and first.op.reverse
    op = StackedRecurrence(first.product.source, layers, first.op.over, reverse)
    types = op.output_types(tuple(value.type for value in operands))
    replacing: list[tuple[Value, ...]] = [(member.outputs[0],) for member in group.layers[-1]]
    replacing += [tuple(final.output for final in finals) for member in group.members for finals in member.finals]
    results = []
    for type_, olds in zip(types, replacing, strict=True):
        result = olds[0].of_type(type_) if olds else Value(f"{first.node.origin.layer}:final", type_)
        copies.values.update(dict.fromkeys(olds, result))
        results.append(result)
    yield Node(op, tuple(operands), tuple(results), first.node.origin)


def _zero(member: Candidate) -> Node:
    """A bias of 0."""
    z = member.node.inputs[0]
    zero = Value(f"{z.name}:bias", TensorType((), z.type.dtype))
    return Node(Constant(0.0, z.type.dtype), (), (zero,), member.node.origin)


def _in_order(nodes: list[Node], copies: Rewriter) -> list[Node]:
    """The nodes, each after what it reads: a reader of one direction may have come before the other one."""
    makers = producers(nodes)

    def needed(node: Node) -> Iterator[Node]:
        values = (copies.value(value) for value in node_operands(node))
        return (makers[value] for value in values if value in makers)

    return postorder(nodes, needed)
