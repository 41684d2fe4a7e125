"""Meanings of the primitives that work on each element."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from returnn_lite.dims import TensorType, display_order
from returnn_lite.ir import Op
from returnn_lite.ir.ops.elementwise import (
    AsIndex,
    Cast,
    CheckFinite,
    Elementwise,
    HostCall,
    PrintValue,
    ScaleGradient,
    Select,
    StraightThroughClip,
)
from tests.reference.named import Array, Lengths, Named, filled, real, union
from tests.reference.rule import Rule


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


FUNCTIONS: Mapping[str, Callable[..., Array]] = {
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "safe_log": lambda x: np.log(np.maximum(x, 1e-20)),
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "square": np.square,
    "reciprocal": np.reciprocal,
    "sin": np.sin,
    "cos": np.cos,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "log_sigmoid": lambda x: -np.logaddexp(0, -x),
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    # Klambauer et al. 2017, equation 14.
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    # Hendrycks and Gimpel 2016, section 2.
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "softplus": lambda x: np.logaddexp(0, x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "swish": lambda x: x * sigmoid(x),
    "erf": lambda x: np.vectorize(math.erf, otypes=[float])(x),
    "erfc": lambda x: np.vectorize(math.erfc, otypes=[float])(x),
    "ceil": np.ceil,
    "floor": np.floor,
    "round": np.round,
    "stop_gradient": lambda x: x,
    "logical_not": np.logical_not,
    "is_finite": np.isfinite,
    "is_nan": np.isnan,
    "is_inf": np.isinf,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.true_divide,
    "floordiv": np.floor_divide,
    "mod": np.mod,
    "pow": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "squared_difference": lambda a, b: (a - b) ** 2,
    "logaddexp": np.logaddexp,
    "divide_no_nan": lambda a, b: np.where(b == 0, 0, a / np.where(b == 0, 1, b)),
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}


def numpy_dtype(dtype: str) -> str:
    """The reference computes in float64, whatever float a graph says."""
    return "float64" if dtype.startswith("float") else dtype


def elementwise(op: Elementwise, lengths: Lengths, *inputs: Named) -> Named:
    """A function of NumPy."""
    dims = union(inputs)
    return Named(FUNCTIONS[op.kind](*(x.over(dims) for x in inputs)), dims)


def select(op: Op, lengths: Lengths, *inputs: Named) -> Named:
    """The second operand where the first is true, else the third."""
    dims = union(inputs)
    return Named(np.where(*(x.over(dims) for x in inputs)), dims)


def cast(op: Cast, lengths: Lengths, x: Named) -> Named:
    """NumPy's conversion; padding may be what an int cannot be."""
    return Named(x.array.astype(numpy_dtype(op.dtype)), x.dims)


def same(op: Op, lengths: Lengths, x: Named, *_: Named) -> Named:
    """The operand."""
    return x


def straight_through_clip(op: StraightThroughClip, lengths: Lengths, x: Named) -> Named:
    """No less than one bound, no more than the other."""
    return Named(np.clip(x.array, op.lower, op.upper), x.dims)


def check_finite(op: CheckFinite, lengths: Lengths, x: Named) -> Named:
    """The operand, of which all real frames must be finite."""
    assert np.isfinite(x.array[real(x, lengths).array]).all(), op.message
    return x


def host_call(op: HostCall, lengths: Lengths, *inputs: Named) -> Named:
    """The function on arrays that are 0 in the padding: batch first, then the beam, the feature last."""
    dims = display_order(op.type_of(*(TensorType(x.dims) for x in inputs)))
    arrays = [Named(filled(x, x.dims, 0, lengths).full(dims, lengths), dims).array for x in inputs]
    return Named(np.asarray(op.function(*arrays)), dims)


RULES: Mapping[type[Op], Rule] = {
    Elementwise: elementwise,
    Select: select,
    Cast: cast,
    AsIndex: same,
    ScaleGradient: same,
    StraightThroughClip: straight_through_clip,
    PrintValue: same,
    CheckFinite: check_finite,
    HostCall: host_call,
}
