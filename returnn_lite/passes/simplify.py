"""Work that need not be done: equal nodes once, and what the rules of `passes/rules` make simpler.

    a = exp(x); b = exp(x)                                    →    b is a
    a = neg(x); b = add(y, a)                                 →    b = sub(y, x)
    a = concat(x, y); b = slice(a), the part of x             →    b is x

Only primitives that are functions of their operands are shared (`Op.is_function`). Draws with one seed are one draw. A
loop's body sees the nodes around it, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from returnn_lite.dims import Dim
from returnn_lite.ir import Graph, InLoop, Loop, Node, Op, Value, loop_node
from returnn_lite.ir.ops.axes import Expand
from returnn_lite.ir.ops.elementwise import AsIndex
from returnn_lite.ir.substitution import Substitution
from returnn_lite.passes.rules.algebra import ALGEBRA
from returnn_lite.passes.rules.constants import CONSTANTS
from returnn_lite.passes.rules.rule import Expression, Rule
from returnn_lite.passes.rules.shapes import SHAPES

RULES: tuple[Rule, ...] = (*CONSTANTS, *ALGEBRA, *SHAPES)


def simplify(graph: Graph) -> Graph:
    """The graph with equal work done once, and with the rules applied until none does."""
    level = _Level(_by_op(RULES))
    substitution = level.simplified(graph.nodes)
    return substitution.finish(graph, level.nodes)


Index = Mapping[type[Op], Mapping[Op | None, list[Rule]]]
"""The rules by class of primitives: those of one primitive, and of all under None."""


def _by_op(rules: Iterable[Rule]) -> Index:
    found: dict[type[Op], dict[Op | None, list[Rule]]] = defaultdict(lambda: defaultdict(list))
    for rule in rules:
        if isinstance(rule.on, Op):
            found[type(rule.on)][rule.on].append(rule)
        else:
            found[rule.on][None].append(rule)
    return found


class _Level:
    """The nodes of the graph, or of a loop's body, as far as they are simplified."""

    def __init__(self, rules: Index, around: _Level | None = None) -> None:
        self.nodes: list[Node] = []
        self._rules = rules
        self._around = around
        self._producers: dict[Value, Node] = {}
        self._made: dict[tuple[object, ...], Node] = {}

    def simplified(self, nodes: Iterable[Node]) -> Substitution:
        """Adds the nodes, which come in dependency order; says what old values are now."""
        substitution = Substitution()
        for old in nodes:
            node = substitution.node(old)
            if isinstance(node.op, Loop):
                node = self._with_simplified_body(node, node.op)
            substitution.replace(dict(zip(old.outputs, self._add(node), strict=True)))
        return substitution

    def _add(self, node: Node) -> tuple[Value, ...]:
        """The results of the node: of the node itself, of an equal one, or of what a rule puts in its place."""
        simpler = self._by_rule(node) if len(node.outputs) == 1 else None
        if simpler is not None:
            return (simpler,)
        if node.op.is_function:
            equal = self._equal(node)
            if equal is not node:
                return equal.outputs
        self._producers.update(dict.fromkeys(node.outputs, node))
        self.nodes.append(node)
        return node.outputs

    def _equal(self, node: Node) -> Node:
        """A node that gives the same: of this level, or of one around if it is no matter of steps; itself if it is the
        first."""
        key = (node.op, node.inputs, node.clock)
        level = self
        while level._around is not None and node.op.in_loop is InLoop.PER_STEP and level._is_from_around(node):
            level = level._around
            if key in level._made:
                return level._made[key]
        return self._made.setdefault(key, node)

    def _is_from_around(self, node: Node) -> bool:
        """False for what reads a node of this level."""
        return self._producers.keys().isdisjoint(node.inputs)

    def _by_rule(self, node: Node) -> Value | None:
        rules = self._rules.get(type(node.op))
        for rule in (*rules.get(None, ()), *rules.get(node.op, ())) if rules is not None else ():
            found = rule.rewrite(node, self._producer)
            if found is not None:
                return self._fitted(self._value(found, node), node)
        return None

    def _producer(self, value: Value) -> Node | None:
        """What makes a value, on the clock of what reads it or the same at all steps: no edge crosses clocks."""
        if value in self._producers:
            return self._producers[value]
        return self._around._producer(value) if self._around is not None else None

    def _value(self, expression: Expression, node: Node) -> Value:
        """The value of what a rule gives, in the place of a node."""
        if isinstance(expression, Value):
            return expression
        operands = tuple(self._value(operand, node) for operand in expression.operands)
        return self._apply(expression.op, operands, node)

    def _apply(self, op: Op, operands: tuple[Value, ...], node: Node) -> Value:
        (type_,) = op.output_types(tuple(value.type for value in operands))
        (value,) = self._add(replace(node, op=op, inputs=operands, outputs=(node.output.of_type(type_),)))
        return value

    def _fitted(self, value: Value, node: Node) -> Value:
        """The value with the dims of the node's result, and as numbers of what that has."""
        wanted = node.output.type
        missing: tuple[Dim, ...] = tuple(dim for dim in wanted.dims if dim not in value.type)
        if missing:
            value = self._apply(Expand(missing), (value,), node)
        if value.type.sparse != wanted.sparse:
            value = self._apply(AsIndex(wanted.sparse), (value,), node)
        return value

    def _with_simplified_body(self, node: Node, loop: Loop) -> Node:
        body = _Level(self._rules, self)
        inner = body.simplified(loop.body)
        if tuple(body.nodes) == loop.body:
            return node
        return replace(loop_node(inner.loop(loop, body.nodes), node.origin), clock=node.clock, outputs=node.outputs)
