"""Expressions in configs (`eval`, `max_seq_len`, initialisers, activations): a closed grammar, parsed and never
evaluated here.

The grammar is a subset of Python's: numbers, strings, arithmetic, comparisons, dotted names, calls, lists, and
attributes of a call's result. What a name or function means is up to who asks; nothing is looked up, imported or run.
Arithmetic on constants is `calculated` within the range of tensors, so that no config can keep its reader busy.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

LARGEST_INT = 2**63 - 1
"""The largest int of a tensor, and so of an expression."""
FROM_CONFIG = "config:"
"""How the name of what an expression reads from the config begins."""
Constant = bool | int | float


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


CALCULATED: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
    "&": operator.and_,
    "|": operator.or_,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def calculated(sign: str, left: Constant, right: Constant) -> Constant:
    """The result of an operator of the grammar on constants. Raises ExpressionError if there is none, or none that a
    tensor could hold: then it is not even begun to be calculated."""
    shown = f"{left!r} {sign} {right!r}"
    if sign == "**" and isinstance(left, int) and isinstance(right, int) and abs(left) > 1 and right > 63:
        raise ExpressionError(f"{shown} is too large for a tensor")
    try:
        result = CALCULATED[sign](left, right)
    except ZeroDivisionError:
        raise ExpressionError(f"{shown} divides by zero") from None
    except OverflowError:
        raise ExpressionError(f"{shown} is too large for a tensor") from None
    except TypeError:
        raise ExpressionError(f"{shown}: '{sign}' takes ints or booleans") from None
    if isinstance(result, complex):
        raise ExpressionError(f"{shown} is not a real number")
    if isinstance(result, int) and abs(result) > LARGEST_INT:
        raise ExpressionError(f"{shown} is too large for a tensor")
    assert isinstance(result, bool | int | float)
    return result
