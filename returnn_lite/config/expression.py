"""Expressions in configs (`eval`, `max_seq_len`, initialisers, activations): a closed grammar, parsed and never
evaluated here.

The grammar is a subset of Python's: numbers, strings, arithmetic, comparisons, dotted names, calls, lists, and
attributes of a call's
result. What a name or function means is up to who asks; nothing is looked up, imported or run.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

LONGEST = 5000
"""Characters that an expression may have."""
DEEPEST = 60
"""How deep it may be nested."""


class ExpressionError(ValueError):
    """An expression that is not of the grammar. `column` counts from 0 in the expression's text."""

    def __init__(self, message: str, column: int = 0) -> None:
        super().__init__(message)
        self.column = column


@dataclass(frozen=True)
class Node:
    """A part of an expression; `column` is where it starts."""

    column: int


@dataclass(frozen=True)
class Number(Node):
    """An int, float or bool."""

    value: int | float | bool


@dataclass(frozen=True)
class Text(Node):
    """A string."""

    value: str


@dataclass(frozen=True)
class Nothing(Node):
    """`None`."""


@dataclass(frozen=True)
class Name(Node):
    """A name, with dots: `tf.float32`, `am_scale`."""

    name: str


@dataclass(frozen=True)
class Attribute(Node):
    """An attribute of a call's result: `source(0, as_data=True).feature_dim_axis`."""

    target: Node
    name: str


@dataclass(frozen=True)
class Call(Node):
    """A call of a function by its dotted name, or of a method of a call's result."""

    function: str | Attribute
    arguments: tuple[Node, ...]
    keywords: tuple[tuple[str, Node], ...]


@dataclass(frozen=True)
class Unary(Node):
    """`-x`, `+x`, `~x`, `not x`."""

    operator: str
    operand: Node


@dataclass(frozen=True)
class Binary(Node):
    """Arithmetic: + - * / // % ** & |, and the words `and`, `or` as & and |."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Compare(Node):
    """One comparison: == != < <= > >=."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Sequence(Node):
    """A list or tuple."""

    elements: tuple[Node, ...]


BINARY = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.BitAnd: "&",
    ast.BitOr: "|",
}
UNARY = {ast.USub: "-", ast.UAdd: "+", ast.Invert: "~", ast.Not: "not"}
COMPARE = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
ALLOWED = "numbers, strings, + - * / // % **, comparisons, names, calls and lists"


def parse_expression(text: str) -> Node:
    """The expression in a string. Raises ExpressionError with the column of what does not belong."""
    if len(text) > LONGEST:
        raise ExpressionError(f"the expression has {len(text)} characters; {LONGEST} are allowed")
    try:
        parsed = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        column = error.offset - 1 if isinstance(error, SyntaxError) and error.offset else 0
        raise ExpressionError(f"{text!r} is not an expression (column {column + 1})", column) from None
    return _node(parsed.body, 0)


def _node(node: ast.expr, depth: int) -> Node:
    if depth > DEEPEST:
        raise ExpressionError(f"the expression is nested deeper than {DEEPEST}", node.col_offset)
    column, below = node.col_offset, depth + 1
    if isinstance(node, ast.Constant):
        return _constant(node)
    if isinstance(node, ast.Name):
        return Name(column, node.id)
    if isinstance(node, ast.Attribute):
        return _attribute(node, below)
    if isinstance(node, ast.Call):
        return _call(node, below)
    if isinstance(node, ast.UnaryOp):
        return Unary(column, UNARY[type(node.op)], _node(node.operand, below))
    if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        return Binary(column, BINARY[type(node.op)], _node(node.left, below), _node(node.right, below))
    if isinstance(node, ast.BoolOp):
        return _bool(node, below)
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARE:
        operator = COMPARE[type(node.ops[0])]
        return Compare(column, operator, _node(node.left, below), _node(node.comparators[0], below))
    if isinstance(node, ast.List | ast.Tuple):
        return Sequence(column, tuple(_node(element, below) for element in node.elts))
    raise ExpressionError(f"'{ast.unparse(node)}' can't be in an expression; allowed are {ALLOWED}", column)


def _constant(node: ast.Constant) -> Node:
    value = node.value
    if isinstance(value, bool | int | float):
        return Number(node.col_offset, value)
    if isinstance(value, str):
        return Text(node.col_offset, value)
    if value is None:
        return Nothing(node.col_offset)
    raise ExpressionError(f"{value!r} can't be in an expression; allowed are {ALLOWED}", node.col_offset)


def _attribute(node: ast.Attribute, depth: int) -> Node:
    if node.attr.startswith("_"):
        raise ExpressionError(f"'{node.attr}': names with a leading underscore are private", node.col_offset)
    dotted = _dotted(node)
    if dotted is not None:
        return Name(node.col_offset, dotted)
    return Attribute(node.col_offset, _node(node.value, depth), node.attr)


def _dotted(node: ast.expr) -> str | None:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([node.id, *reversed(parts)])


def _call(node: ast.Call, depth: int) -> Node:
    function = _node(node.func, depth)
    if not isinstance(function, Name | Attribute):
        raise ExpressionError("only a function by its name can be called", node.col_offset)
    keywords = []
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ExpressionError("'**' can't be in an expression", node.col_offset)
        keywords.append((keyword.arg, _node(keyword.value, depth)))
    arguments = tuple(_node(argument, depth) for argument in node.args)
    name = function.name if isinstance(function, Name) else function
    return Call(node.col_offset, name, arguments, tuple(keywords))


def _bool(node: ast.BoolOp, depth: int) -> Node:
    operator = "&" if isinstance(node.op, ast.And) else "|"
    result = _node(node.values[0], depth)
    for value in node.values[1:]:
        result = Binary(node.col_offset, operator, result, _node(value, depth))
    return result
