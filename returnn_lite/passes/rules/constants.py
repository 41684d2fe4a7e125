"""What is computed from constants alone is a constant, rounded as the run would round it.

Only functions whose result IEEE 754 determines to the last bit: the others are left to the machine that runs them.
"""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

from returnn_lite.ir import Node
from returnn_lite.ir.ops.axes import Expand, Relabel
from returnn_lite.ir.ops.elementwise import Cast, Elementwise, Select
from returnn_lite.ir.ops.sources import Constant
from returnn_lite.passes.rules.rule import Application, Expression, ProducerOf, Rule

Number = float | int | bool

FUNCTIONS: Mapping[str, Callable[..., Number]] = MappingProxyType(
    {
        "neg": operator.neg,
        "abs": abs,
        "square": lambda x: x * x,
        "sqrt": math.sqrt,
        "ceil": math.ceil,
        "floor": math.floor,
        "logical_not": operator.not_,
        "add": operator.add,
        "sub": operator.sub,
        "mul": operator.mul,
        "truediv": operator.truediv,
        "floordiv": operator.floordiv,
        "mod": operator.mod,
        "maximum": max,
        "minimum": min,
        "equal": operator.eq,
        "not_equal": operator.ne,
        "less": operator.lt,
        "less_equal": operator.le,
        "greater": operator.gt,
        "greater_equal": operator.ge,
        "logical_and": operator.and_,
        "logical_or": operator.or_,
        "logical_xor": operator.xor,
    }
)
FLOATS = MappingProxyType({"float16": "e", "float32": "f", "float64": "d"})


def rounded(value: Number, dtype: str) -> Number:
    """A number as a value of a dtype. Raises OverflowError for one that an int dtype does not hold."""
    if dtype == "bool":
        return bool(value)
    if dtype in FLOATS:
        code = FLOATS[dtype]
        number: float = struct.unpack(code, struct.pack(code, value))[0]
        return number
    bits = int(dtype.removeprefix("u").removeprefix("int"))
    low, high = (0, 2**bits) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    if not low <= int(value) < high:
        raise OverflowError(f"{value} is no {dtype}")
    return int(value)


def _folded(node: Node, producer_of: ProducerOf) -> Expression | None:
    numbers = []
    for value in node.inputs:
        maker = producer_of(value)
        if maker is None or not isinstance(maker.op, Constant):
            return None
        numbers.append(rounded(maker.op.value, value.type.dtype))
    type_ = node.output.type
    try:
        result = rounded(_result(node, numbers), type_.dtype)
    except (ArithmeticError, ValueError):  # what has no value here is left to the run
        return None
    if isinstance(result, float) and not math.isfinite(result):
        return None
    return Application(Constant(result, type_.dtype, type_.dims, type_.sparse))


def _result(node: Node, numbers: list[Number]) -> Number:
    op = node.op
    if isinstance(op, Elementwise):
        if op.kind not in FUNCTIONS:
            raise ValueError(f"{op.kind} is left to the run")
        return FUNCTIONS[op.kind](*numbers)
    if isinstance(op, Select):
        condition, if_true, if_false = numbers
        return if_true if condition else if_false
    (number,) = numbers
    return number


CONSTANTS = (
    Rule("f(constant, ..) = constant", Elementwise, _folded),
    Rule("select(constant, ..) = constant", Select, _folded),
    Rule("cast(constant) = constant", Cast, _folded),
    Rule("expand(constant) = constant", Expand, _folded),
    Rule("relabel(constant) = constant", Relabel, _folded),
)
