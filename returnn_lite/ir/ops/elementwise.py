"""Primitives that work on each element; operands are broadcast over the dims they lack."""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import ClassVar

from returnn_lite.dims import Dim, DimError, TensorType, require_one_dtype, union_of_dims
from returnn_lite.ir.kept import Kept, has_padding
from returnn_lite.ir.op import Effect, Op

UNARY = frozenset(
    [
        "neg",
        "abs",
        "sign",
        "exp",
        "expm1",
        "log",
        "log1p",
        "safe_log",
        "sqrt",
        "rsqrt",
        "square",
        "reciprocal",
        "sin",
        "cos",
        "sinh",
        "cosh",
        "tanh",
        "sigmoid",
        "log_sigmoid",
        "relu",
        "relu6",
        "elu",
        "selu",
        "gelu",
        "softplus",
        "softsign",
        "swish",
        "erf",
        "erfc",
        "ceil",
        "floor",
        "round",
        "stop_gradient",
    ]
)
UNARY_BOOL = frozenset(["logical_not"])
UNARY_TEST = frozenset(["is_finite", "is_nan", "is_inf"])
BINARY = frozenset(
    [
        "add",
        "sub",
        "mul",
        "truediv",
        "floordiv",
        "mod",
        "pow",
        "maximum",
        "minimum",
        "squared_difference",
        "logaddexp",
        "divide_no_nan",
    ]
)
BINARY_COMPARE = frozenset(["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"])
BINARY_BOOL = frozenset(["logical_and", "logical_or", "logical_xor"])
FLOAT_ONLY = frozenset(
    [
        *("exp", "expm1", "log", "log1p", "safe_log", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "tanh", "sigmoid"),
        *("log_sigmoid", "elu", "selu", "gelu", "softplus", "softsign", "swish", "erf", "ceil", "floor", "round"),
        *("sinh", "cosh", "erfc"),
        *("truediv", "logaddexp", "divide_no_nan", "is_finite", "is_nan", "is_inf"),
    ]
)
COMMUTATIVE = frozenset(
    [
        *("add", "mul", "maximum", "minimum", "squared_difference", "logaddexp", "equal", "not_equal"),
        *("logical_and", "logical_or", "logical_xor"),
    ]
)
ANY_DTYPE = frozenset(["stop_gradient", "equal", "not_equal"])
OF_ONE = UNARY | UNARY_BOOL | UNARY_TEST
OF_BOOLEANS = UNARY_BOOL | BINARY_BOOL
TESTS = UNARY_TEST | BINARY_COMPARE
KINDS = UNARY | UNARY_BOOL | UNARY_TEST | BINARY | BINARY_COMPARE | BINARY_BOOL

KEEP_OPERAND = frozenset(
    ["abs", "expm1", "log", "log1p", "square", "sin", "cos", "sinh", "cosh", "softplus", "softsign", "erf", "erfc"]
)
"""Those whose gradient is a function of the operand..."""
KEEP_RESULT = frozenset(["exp", "sqrt", "rsqrt", "reciprocal", "tanh", "sigmoid", "relu", "relu6"])
"""...and of the result."""
KEEP_OPERAND_AND_INNER = {"safe_log": 1, "log_sigmoid": 1, "elu": 2, "selu": 2, "gelu": 1, "swish": 1}
"""Those that are made of several functions, with how many numbers for each element they keep besides the operand."""
WITHOUT_GRADIENT = frozenset(["stop_gradient", "sign", "ceil", "floor", "round", "floordiv", "mod"])
MASKED_BEFORE = frozenset(["log", "log1p", "sqrt", "rsqrt", "reciprocal", "truediv", "pow"])
"""Infinite somewhere: padding is moved to where they are not, so that what is kept of the operands is a copy."""


def broadcast_type(inputs: tuple[TensorType, ...], dtype: str, sparse: Dim | None = None) -> TensorType:
    """All dims of the inputs."""
    if len(inputs) == 1:
        return inputs[0].of_dtype(dtype, sparse)
    return TensorType(union_of_dims(inputs), dtype, sparse)


@dataclass(frozen=True)
class Elementwise(Op):
    """A function of one or two operands, element by element; `kind` is a member of `KINDS`.

    `safe_log` is log(max(x, 1e-20)); `gelu` the tanh approximation; `swish` x * sigmoid(x); `mod` has the sign of the
    divisor; `divide_no_nan` gives 0 where the divisor is 0; `stop_gradient` is the identity without a gradient.
    """

    kind: str

    @property
    def label(self) -> str:
        return self.kind

    def attributes(self) -> dict[str, object]:
        return {}

    def type_of(self, *inputs: TensorType) -> TensorType:
        arity = 1 if self.kind in OF_ONE else 2
        if len(inputs) != arity or self.kind not in KINDS:
            raise DimError(f"{self.kind} takes {arity} operands, not {len(inputs)}")
        require_one_dtype(self.kind, inputs)
        if self.kind in OF_BOOLEANS:
            inputs[0].require_dtype("bool", self.kind)
        elif self.kind not in ANY_DTYPE:
            inputs[0].require_dtype("float" if self.kind in FLOAT_ONLY else "number", self.kind)
        result = "bool" if self.kind in TESTS else inputs[0].dtype
        sparse = next((t.sparse for t in inputs if t.sparse is not None), None) if result != "bool" else None
        return broadcast_type(inputs, result, sparse)

    @property
    def shares_memory(self) -> bool:
        return self.kind == "stop_gradient"

    def passes_gradient(self, operand: int) -> bool:
        return self.kind not in WITHOUT_GRADIENT

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        operands = self._kept_operands(wanted)
        inner = (self.type_of(*inputs),) * self._kept_inside()
        results = (0,) if self.kind in KEEP_RESULT or (self.kind == "pow" and 1 in wanted) else ()
        if self.kind in MASKED_BEFORE:
            copied = tuple(i for i in operands if has_padding(inputs[i]))
            inner += tuple(inputs[i] for i in copied)
            operands = tuple(i for i in operands if i not in copied)
        return Kept(operands, results, inner)

    def _kept_operands(self, wanted: Set[int]) -> tuple[int, ...]:
        match self.kind:
            case "mul":
                return tuple(1 - i for i in sorted(wanted))
            case "truediv" | "divide_no_nan":
                return (0, 1) if 1 in wanted else (1,)
            case "pow" | "maximum" | "minimum" | "squared_difference":
                return (0, 1)
        return (0,) if self.kind in KEEP_OPERAND or self.kind in KEEP_OPERAND_AND_INNER else ()

    def _kept_inside(self) -> int:
        """How many numbers for each element: of logaddexp the difference and its logistic function's operand."""
        return 2 if self.kind == "logaddexp" else KEEP_OPERAND_AND_INNER.get(self.kind, 0)


@dataclass(frozen=True)
class Select(Op):
    """Where the first operand (bool) is true the second, else the third."""

    picks_from: ClassVar[tuple[int, ...]] = (1, 2)

    def type_of(self, condition: TensorType, if_true: TensorType, if_false: TensorType) -> TensorType:
        condition.require_dtype("bool", "a condition")
        require_one_dtype("a choice of branches", (if_true, if_false))
        return broadcast_type((if_true, if_false, condition), if_true.dtype, if_true.sparse or if_false.sparse)

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        return Kept(operands=(0,))


@dataclass(frozen=True)
class Cast(Op):
    """The operand in another dtype. A float is cut off towards zero when it becomes an int; bool is 0 or 1."""

    picks_from: ClassVar[tuple[int, ...]] = (0,)
    dtype: str

    def type_of(self, x: TensorType) -> TensorType:
        return x.of_dtype(self.dtype, x.sparse if self.dtype.startswith("int") else None)


@dataclass(frozen=True)
class AsIndex(Op):
    """The operand as numbers of the entries of a dim, such as classes; None: of nothing. Values do not change."""

    is_view: ClassVar[bool] = True
    picks_from: ClassVar[tuple[int, ...]] = (0,)
    works_along: ClassVar[tuple[str, ...]] = ()
    of: Dim | None = None

    def type_of(self, x: TensorType) -> TensorType:
        return x.of_dtype(x.dtype, self.of)

    def named_dims(self) -> frozenset[Dim]:
        """None whose length must be known."""
        return frozenset()

    def measured_dims(self) -> frozenset[Dim]:
        return frozenset()


@dataclass(frozen=True)
class ScaleGradient(Op):
    """The identity whose gradient is multiplied by `scale`."""

    is_view: ClassVar[bool] = True
    scale: float

    def type_of(self, x: TensorType) -> TensorType:
        return x


@dataclass(frozen=True)
class StraightThroughClip(Op):
    """max(lower, min(x, upper)), with the gradient of the identity (Bengio et al. 2013, straight-through estimator)."""

    lower: float = -math.inf
    upper: float = math.inf

    def type_of(self, x: TensorType) -> TensorType:
        return x.require_dtype("float", "a clip with a gradient")


@dataclass(frozen=True)
class HostCall(Op):
    """A Python function of a Python config, on the operands as tensors in the order of dims of `result`;
    differentiable.

    `function` gets the tensors broadcast to `result`'s dims, batch first, and returns one of that shape. Dims that
    operands have beyond these stand before the last one if that is static, so that features stay last.
    """

    effect: ClassVar[Effect] = Effect.CALL
    function: Callable[..., object]
    name: str
    result: TensorType

    def type_of(self, *inputs: TensorType) -> TensorType:
        new = tuple(dim for dim in union_of_dims(inputs) if dim not in self.result)
        last = self.result.dims[-1:] if self.result.dims and self.result.dims[-1].size is not None else ()
        return self.result.of_dims((*self.result.dims[: len(self.result.dims) - len(last)], *new, *last))

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        """What it computes is not known: its operands, which are copies if there is padding, and the result."""
        return Kept(results=(0,), inner=inputs) if has_padding(*inputs) else Kept(tuple(range(len(inputs))), (0,))


@dataclass(frozen=True)
class PrintValue(Op):
    """The identity; prints the operand with `message` each time it runs."""

    is_view: ClassVar[bool] = True
    effect: ClassVar[Effect] = Effect.PRINT
    message: str
    summarize: int = 99

    def type_of(self, x: TensorType) -> TensorType:
        return x


@dataclass(frozen=True)
class CheckFinite(Op):
    """The identity; fails with `message` if the operand has NaN or infinity at a real frame."""

    is_view: ClassVar[bool] = True
    effect: ClassVar[Effect] = Effect.CHECK
    message: str

    def type_of(self, x: TensorType) -> TensorType:
        return x
