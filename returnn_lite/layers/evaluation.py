"""Expressions of sources, expanded to primitives.

The grammar is `config.expression`'s: numbers, arithmetic, comparisons, `source(i)`, names of `eval_locals`, and the
functions of `layers.functions` by their dotted names.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from returnn_lite.config.expression import (
    FROM_CONFIG,
    Attribute,
    Binary,
    Call,
    Compare,
    ExpressionError,
    Name,
    Node,
    Nothing,
    Number,
    Text,
    Unary,
    calculated,
)
from returnn_lite.config.expression import Sequence as ListNode
from returnn_lite.ir.expressions import DTYPES_BY_RANGE as DTYPES
from returnn_lite.ir.views import View
from returnn_lite.layers.activations import PREFIXES
from returnn_lite.layers.align import align
from returnn_lite.layers.base import LayerBuilder, LayerError
from returnn_lite.layers.expression_items import AxisOf, Item, pair, tensor
from returnn_lite.layers.functions import FUNCTIONS
from returnn_lite.layers.host_calls import host_call

ARITHMETIC: Mapping[str, str] = {
    "+": "add",
    "-": "sub",
    "*": "mul",
    "/": "truediv",
    "//": "floordiv",
    "%": "mod",
    "**": "pow",
    "&": "logical_and",
    "|": "logical_or",
}
COMPARISON: Mapping[str, str] = {
    "==": "equal",
    "!=": "not_equal",
    "<": "less",
    "<=": "less_equal",
    ">": "greater",
    ">=": "greater_equal",
}
# Functions of TensorFlow that look at an array's layout, which a value here does not have.
LAYOUT = frozenset(
    {"reshape", "transpose", "tile", "matmul", "gather", "gather_nd", "concat", "stack", "pad", "reverse"}
)


@dataclass(frozen=True)
class SourceData:
    """source(i, as_data=True): what is known of a source."""

    value: View


@dataclass
class Evaluation:
    """One evaluation of an expression. `used` has the numbers of the sources that it refers to."""

    b: LayerBuilder
    sources: Sequence[View]
    names: Mapping[str, Any]
    option: str
    used: set[int] = field(default_factory=set)

    def item(self, node: Node) -> Item:
        """What a node of the expression means. Raises LayerError."""
        if isinstance(node, Number | Text):
            return node.value
        if isinstance(node, Nothing):
            return None
        if isinstance(node, ListNode):
            return [self.item(element) for element in node.elements]
        if isinstance(node, Name):
            return self._name(node.name)
        if isinstance(node, Unary):
            return self._unary(node)
        if isinstance(node, Binary):
            return self._binary(ARITHMETIC, node.operator, self.item(node.left), self.item(node.right))
        if isinstance(node, Compare):
            return self._binary(COMPARISON, node.operator, self.item(node.left), self.item(node.right))
        if isinstance(node, Attribute):
            return self._attribute(self.item(node.target), node.name)
        if isinstance(node, Call):
            return self._call(node)
        return self._fail(f"this can't be used in an expression: {node}")

    def _fail(self, message: str, hint: str = "") -> Any:
        self.b.fail(f"{self.option}: {message}", hint, self.option)

    def _name(self, name: str) -> Item:
        if name.startswith(FROM_CONFIG):
            return self._from_config(name.removeprefix(FROM_CONFIG))
        if name in self.names:
            return self.names[name]
        plain = plain_name(name)
        if plain in DTYPES:
            return plain
        known = [*self.names, "source"]
        near = difflib.get_close_matches(name, known, n=1)
        return self._fail(f"there is no '{name}'", f"did you mean '{near[0]}'?" if near else "give it in eval_locals")

    def _from_config(self, key: str) -> Item:
        """What an expression reads from the config by name: a function of a Python config, or of eval_locals."""
        if key in self.names:
            return self.names[key]
        return self._fail(
            f"there is no function '{key}'", "define it in a Python config, or give a number in eval_locals"
        )

    def _unary(self, node: Unary) -> Item:
        operand = self.item(node.operand)
        if node.operator == "+":
            return operand
        if isinstance(operand, View):
            kind = {"-": "neg", "not": "logical_not", "~": "logical_not"}[node.operator]
            return self.b.unary(kind, operand)
        if not isinstance(operand, bool | int | float):
            self._fail(f"{node.operator} takes a tensor or a number, not {operand!r}")
        if node.operator == "~" and not isinstance(operand, bool):
            self._fail(f"~ takes a tensor or a boolean, not {operand!r}")
        return -operand if node.operator == "-" else not operand

    def _binary(self, table: Mapping[str, str], sign: str, left: Item, right: Item) -> Item:
        if sign not in table:
            self._fail(f"there is no operator {sign} on tensors")
        if isinstance(left, View) or isinstance(right, View):
            return pair(self.b, table[sign], left, right)
        if not all(isinstance(item, bool | int | float) for item in (left, right)):
            self._fail(f"{sign} takes tensors and numbers, not {left!r} and {right!r}")
        try:
            return calculated(sign, left, right)
        except ExpressionError as error:
            return self._fail(str(error))

    # Sources

    def _source(self, arguments: Sequence[Item], keywords: Mapping[str, Item]) -> Item:
        for key in keywords:
            if key not in ("as_data", "auto_convert", "enforce_batch_major", "i"):
                self._fail(f"source() has no argument '{key}'", "it has as_data, auto_convert, enforce_batch_major")
        if len(arguments) + ("i" in keywords) != 1:
            self._fail("source() takes one number", "give all else by name, such as as_data=True")
        index = keywords.get("i", arguments[0] if arguments else None)
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(self.sources):
            self._fail(f"source({index}): there are {len(self.sources)} sources, counted from 0")
        self.used.add(index)
        value = self.sources[index]
        return SourceData(value) if keywords.get("as_data") else value

    def _attribute(self, target: Item, name: str) -> Item:
        """An attribute of source(i, as_data=True)."""
        if not isinstance(target, SourceData):
            self._fail(f"'{name}' is known of source(i, as_data=True) only")
        type_ = target.value.type
        dims = {
            "batch_dim_axis": type_.batch,
            "feature_dim_axis": type_.feature,
            "time_dim_axis": type_.default_time,
        }
        if name in dims:
            dim = dims[name]
            return AxisOf(dim) if dim is not None else self._fail(f"{type_} has no {name}")
        if name == "placeholder":
            return target.value
        if name == "dim":
            dim = type_.sparse if type_.sparse is not None else type_.feature
            return dim.size if dim is not None else self._fail(f"{type_} has no feature dim")
        return self._fail(f"source(i, as_data=True) has no '{name}'", f"it has {', '.join(dims)}, dim, placeholder")

    def _method(self, data: SourceData, name: str, arguments: Sequence[Item]) -> Item:
        """A method of source(i, as_data=True)."""
        if name == "get_axis_from_description" and len(arguments) == 1:
            return AxisOf(self.b.axis(arguments[0], data.value))
        if name == "get_sequence_lengths" and not arguments:
            time = data.value.type.default_time
            return self.b.length(time) if time is not None else self._fail(f"{data.value.type} has no time dim")
        known = "it has get_axis_from_description, get_sequence_lengths"
        return self._fail(f"source(i, as_data=True) has no '{name}()'", known)

    # Calls

    def _call(self, node: Call) -> Item:
        arguments = [self.item(argument) for argument in node.arguments]
        keywords = {key: self.item(argument) for key, argument in dict(node.keywords).items()}
        if isinstance(node.function, str):
            return self._function(node.function, arguments, keywords)
        target = self.item(node.function.target)
        if isinstance(target, SourceData):
            return self._method(target, node.function.name, arguments)
        return self._fail(f"'{node.function.name}' is no function of an expression")

    def _function(self, name: str, arguments: Sequence[Item], keywords: Mapping[str, Item]) -> Item:
        """What a function by its dotted name gives."""
        if name == "source":
            return self._source(arguments, keywords)
        if name.startswith(FROM_CONFIG):
            key = name.removeprefix(FROM_CONFIG)
            function = self._from_config(key)
            if not callable(function):
                self._fail(f"'{key}' is no function, but {function!r}")
            return self._host_call(key, function, arguments, keywords)
        if name.startswith("self."):
            self._fail(f"'{name}' reads the network at run time", "give numbers in eval_locals, or use a layer")
        if name in self.names and callable(self.names[name]):
            return self._host_call(name, self.names[name], arguments, keywords)
        plain = plain_name(name)
        if plain in LAYOUT:
            self._fail(f"'{name}' depends on the order of axes in memory", "use the layer for it, which names its axes")
        if plain not in FUNCTIONS:
            near = difflib.get_close_matches(plain, FUNCTIONS, n=1)
            self._fail(f"there is no function '{name}'", f"did you mean 'tf.{near[0]}'?" if near else "")
        try:
            bound = inspect.signature(FUNCTIONS[plain]).bind(self.b, *arguments, **keywords)
        except TypeError as error:
            self._fail(f"{name}: {error}")
        try:
            return FUNCTIONS[plain](*bound.args, **bound.kwargs)
        except LayerError as error:  # what it names is an option of the layer whose function this is
            raise LayerError(error.message, error.hint, self.option) from error

    def _host_call(
        self, name: str, function: Callable[..., object], arguments: Sequence[Item], keywords: Mapping[str, Item]
    ) -> View:
        if keywords:
            self._fail(f"{name}: tensors are given by place, not as {', '.join(keywords)}=")
        values = [tensor(self.b, argument) for argument in arguments]
        return host_call(self.b, function, name, align(self.b, values))


def plain_name(name: str) -> str:
    """A dotted name without `tf.`, `tf.math.` and the like."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name
