"""`max_seq_len`: the most steps of a loop whose `end` decides, from an int or an expression such as
`max_len_from('base:encoder') * 2`.

It is evaluated for each sequence, so that what else is in the batch has no influence.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from returnn_lite.config.expression import Binary, Call, ExpressionError, Node, Number, Text, Unary
from returnn_lite.config.expression_parser import parse_expression
from returnn_lite.dims import Dim
from returnn_lite.dims.axes import time_to_run_over
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerError
from returnn_lite.net.resolution import outputs_of
from returnn_lite.net.scope import Scope

OPERATORS = {"+": "add", "-": "sub", "*": "mul", "/": "truediv", "//": "floordiv", "%": "mod", "**": "pow"}
FUNCTIONS = {"min": "minimum", "max": "maximum", "tf.minimum": "minimum", "tf.maximum": "maximum"}


def max_length(scope: Scope, given: int | str | View | None, frames: Sequence[Dim] = ()) -> View:
    """The most steps, as an int value [] or [B]: as many as there are frames at most. Raises LayerError if nothing says
    it."""
    builder = scope.context.builder
    limits = [builder.length(dim) for dim in frames]
    limits += [_given_length(scope, given)] if given is not None or not limits else []
    return reduce(lambda most, other: builder.binary("minimum", most, other), limits)


def _given_length(scope: Scope, given: int | str | View | None) -> View:
    builder = scope.context.builder
    if isinstance(given, View):
        return builder.cast(given, "int32")
    if given is None:
        raise LayerError(
            "nothing bounds the number of steps",
            "Give max_seq_len, an int or an expression such as \"max_len_from('base:encoder')\".",
            "max_seq_len",
        )
    if isinstance(given, int):
        return builder.constant(given, "int32")
    try:
        return builder.cast(_value(scope, parse_expression(given)), "int32")
    except ExpressionError as error:
        raise LayerError(f"max_seq_len: {error}", "", "max_seq_len") from error


def _value(scope: Scope, node: Node) -> View:
    builder = scope.context.builder
    if isinstance(node, Number):
        dtype = "int32" if isinstance(node.value, int) else "float32"
        return builder.constant(node.value, dtype)
    if isinstance(node, Unary) and node.operator == "-":
        return builder.unary("neg", _value(scope, node.operand))
    if isinstance(node, Binary) and node.operator in OPERATORS:
        left, right = _value(scope, node.left), _value(scope, node.right)
        if node.operator == "/":
            left, right = builder.cast(left, "float32"), builder.cast(right, "float32")
        return builder.binary(OPERATORS[node.operator], left, right)
    if isinstance(node, Call) and node.function == "max_len_from" and len(node.arguments) == 1:
        return _length_of(scope, node.arguments[0])
    if isinstance(node, Call) and node.function in FUNCTIONS and len(node.arguments) == 2:
        return builder.binary(FUNCTIONS[node.function], *(_value(scope, argument) for argument in node.arguments))
    raise LayerError(
        "max_seq_len may hold numbers, + - * / // %, min, max and max_len_from('base:layer')", "", "max_seq_len"
    )


def _length_of(scope: Scope, argument: Node) -> View:
    if not isinstance(argument, Text):
        raise LayerError("max_len_from takes the name of a layer in quotes", "", "max_seq_len")
    try:
        value = outputs_of(scope, argument.value.removeprefix("base:")).value
    except LayerError as error:
        raise LayerError(f"max_len_from: {error.message}", error.hint, "max_seq_len") from error
    time = time_to_run_over(value.type)
    if time is None:
        raise LayerError(f"max_len_from: '{argument.value}' has no time dim: {value.type}", "", "max_seq_len")
    return scope.context.builder.length(time)
