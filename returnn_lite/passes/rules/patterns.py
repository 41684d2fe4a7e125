"""Rules of functions element by element, written as equations: `add(x, 0) = x`.

A name of one letter stands for any value, the same letter twice for one value; a number, True or False for a constant
of that value; anything else is the kind of an `Elementwise`, or `select`. Kinds that commute match in both orders.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from returnn_lite.ir import Node, Op, Value
from returnn_lite.ir.ops.elementwise import COMMUTATIVE, Elementwise, Select
from returnn_lite.ir.ops.sources import Constant
from returnn_lite.passes.rules.rule import Application, Expression, ProducerOf, Rule

Bindings = dict[str, Value]


@dataclass(frozen=True)
class Anything:
    """Any value; the same one wherever the name stands."""

    name: str


@dataclass(frozen=True)
class Number:
    """A constant."""

    value: float | int | bool


@dataclass(frozen=True)
class Function:
    """A primitive with its operands."""

    op: Op
    operands: tuple[Pattern, ...]


Pattern = Anything | Number | Function


def equation(text: str) -> Rule:
    """The rule that an equation says."""
    left, right = (_pattern(ast.parse(side.strip(), mode="eval").body) for side in text.split("="))
    assert isinstance(left, Function), text

    def rewrite(node: Node, producer_of: ProducerOf) -> Expression | None:
        for bindings in _operand_matches(left, node, producer_of, {}):
            return _built(right, bindings, node)
        return None

    return Rule(text, left.op, rewrite)


def _pattern(tree: ast.expr) -> Pattern:
    if isinstance(tree, ast.Call):
        assert isinstance(tree.func, ast.Name)
        op = Select() if tree.func.id == "select" else Elementwise(tree.func.id)
        return Function(op, tuple(map(_pattern, tree.args)))
    if isinstance(tree, ast.Name):
        return Anything(tree.id)
    value = ast.literal_eval(tree)
    assert isinstance(value, (int, float))
    return Number(value)


def _matches(pattern: Pattern, value: Value, producer_of: ProducerOf, bound: Bindings) -> Iterator[Bindings]:
    """The ways in which a value fits."""
    if isinstance(pattern, Anything):
        if bound.get(pattern.name, value) is value:
            yield {**bound, pattern.name: value}
        return
    node = producer_of(value)
    if node is None:
        return
    if isinstance(pattern, Function):
        if node.op == pattern.op:
            yield from _operand_matches(pattern, node, producer_of, bound)
    elif isinstance(node.op, Constant) and _is(node.op.value, pattern.value):
        yield bound


def _operand_matches(pattern: Function, node: Node, producer_of: ProducerOf, bound: Bindings) -> Iterator[Bindings]:
    """The ways in which the operands of a node of the pattern's primitive fit."""
    yield from _all_match(pattern.operands, node.inputs, producer_of, bound)
    if isinstance(node.op, Elementwise) and node.op.kind in COMMUTATIVE:
        yield from _all_match(pattern.operands, node.inputs[::-1], producer_of, bound)


def _all_match(
    patterns: tuple[Pattern, ...], values: tuple[Value, ...], producer_of: ProducerOf, bound: Bindings
) -> Iterator[Bindings]:
    if not patterns:
        yield bound
        return
    for bindings in _matches(patterns[0], values[0], producer_of, bound):
        yield from _all_match(patterns[1:], values[1:], producer_of, bindings)


def _is(value: float | int | bool, wanted: float | int | bool) -> bool:
    """True is no 1."""
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)


def _built(pattern: Pattern, bindings: Bindings, node: Node) -> Expression:
    if isinstance(pattern, Anything):
        return bindings[pattern.name]
    if isinstance(pattern, Number):
        return Application(Constant(pattern.value, node.output.type.dtype))
    return Application(pattern.op, tuple(_built(operand, bindings, node) for operand in pattern.operands))
