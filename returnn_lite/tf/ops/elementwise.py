"""Lowerings of the primitives that work on each element."""

from __future__ import annotations

from dataclasses import replace

import tensorflow as tf

from returnn_lite.dims import Dim, display_order
from returnn_lite.ir.host_calls import FunctionError
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
from returnn_lite.tf.context import Context, Family
from returnn_lite.tf.gradient_rules import ELEMENTWISE_TYPES, of_one_shape, with_gradient
from returnn_lite.tf.kernels.elementwise import BINARY, UNARY
from returnn_lite.tf.layout import Tensor, aligned
from returnn_lite.tf.mask import broadcast, masked, padded_dims

lowers = Family()

# f(0) = 0, and the slope there is finite.
KEEPS_ZERO = frozenset(
    [
        "neg",
        "abs",
        "sign",
        "expm1",
        "log1p",
        "square",
        "sin",
        "sinh",
        "tanh",
        "relu",
        "relu6",
        "elu",
        "selu",
        "gelu",
        "softsign",
        "swish",
        "erf",
        "ceil",
        "floor",
        "round",
        "stop_gradient",
    ]
)
# Infinite or undefined somewhere, in value or slope: padding, which may be anywhere, is moved to 1 before.
SINGULAR_UNARY = frozenset(["log", "log1p", "sqrt", "rsqrt", "reciprocal"])
SINGULAR_BINARY = frozenset(["truediv", "floordiv", "mod", "pow"])


@lowers(Elementwise)
def elementwise(c: Context, op: Elementwise, *inputs: Tensor) -> Tensor:
    if len(inputs) == 1:
        return _unary(c, op.kind, inputs[0])
    return _binary(c, op.kind, inputs[0], inputs[1])


def _unary(c: Context, kind: str, x: Tensor) -> Tensor:
    if kind in SINGULAR_UNARY:
        x = masked(c.sizes, x, padded_dims(c.sizes, x), 1)
    raw = UNARY[kind](x.raw)
    return Tensor(raw, x.dims, x.zero_beyond if kind in KEEPS_ZERO else frozenset(), x.finite)


def _binary(c: Context, kind: str, a: Tensor, b: Tensor) -> Tensor:
    if kind in SINGULAR_BINARY:
        a, b = (masked(c.sizes, x, padded_dims(c.sizes, x), 1) for x in (a, b))
    raws, dims = aligned([a, b])
    if kind == "add" and _is_bias(a, b, dims):
        raw = tf.nn.bias_add(raws[0], raws[1])
    elif kind == "add" and set(a.dims) == set(b.dims):
        raw = tf.add_n(raws)  # has a simpler gradient than what might have to broadcast
    elif kind in ELEMENTWISE_TYPES and all(set(x.dims) == set(dims) or _is_scalar_constant(x) for x in (a, b)):
        raw = of_one_shape(kind, BINARY[kind], raws)
    else:
        raw = BINARY[kind](*raws)
    finite = a.finite and b.finite
    zero: frozenset[Dim] = frozenset()
    if kind in ("add", "sub", "maximum", "minimum", "squared_difference"):
        zero = a.zero_beyond & b.zero_beyond
    elif kind == "mul" and finite:
        zero = a.zero_beyond | b.zero_beyond
    return Tensor(raw, dims, zero, finite)


def _is_bias(a: Tensor, b: Tensor, dims: tuple[Dim, ...]) -> bool:
    """Whether b is one number for each feature of a, which TensorFlow adds with a faster gradient."""
    return len(dims) > 1 and b.dims == dims[-1:] and b.dims[0] in a.dims and b.dtype.is_floating


def _is_scalar_constant(x: Tensor) -> bool:
    return not x.dims and x.raw.op.type == "Const"


@lowers(Select)
def select(c: Context, op: Select, condition: Tensor, if_true: Tensor, if_false: Tensor) -> Tensor:
    raws, dims = aligned([condition, if_true, if_false])
    return Tensor(tf.where(*raws), dims, if_true.zero_beyond & if_false.zero_beyond, if_true.finite and if_false.finite)


@lowers(Cast)
def cast(c: Context, op: Cast, x: Tensor) -> Tensor:
    return replace(x, raw=tf.cast(x.raw, c.dtype(op.dtype)), _derived={})


@lowers(AsIndex)
def as_index(c: Context, op: AsIndex, x: Tensor) -> Tensor:
    return x


@lowers(ScaleGradient)
def scale_gradient(c: Context, op: ScaleGradient, x: Tensor) -> Tensor:
    (raw,) = with_gradient([x.raw], [x.raw], lambda dy: [dy * tf.cast(op.scale, dy.dtype)])
    return replace(x, raw=raw, _derived={})


@lowers(StraightThroughClip)
def straight_through_clip(c: Context, op: StraightThroughClip, x: Tensor) -> Tensor:
    lower, upper = tf.cast(op.lower, x.dtype), tf.cast(op.upper, x.dtype)
    (raw,) = with_gradient([tf.maximum(lower, tf.minimum(x.raw, upper))], [x.raw], lambda dy: [dy])
    zero = x.zero_beyond if op.lower <= 0 <= op.upper else frozenset()
    return Tensor(raw, x.dims, zero, x.finite)


@lowers(HostCall)
def host_call(c: Context, op: HostCall, *inputs: Tensor) -> Tensor:
    assert c.node is not None
    (type_,) = op.output_types(tuple(value.type for value in c.node.inputs))
    dims = display_order(type_)
    raws = [broadcast(c.sizes, masked(c.sizes, x, padded_dims(c.sizes, x)), dims).raw for x in inputs]
    raw = tf.cast(c.host(op.function, op.name, *raws), c.dtype(type_.dtype))
    shape = [dim.size for dim in dims]
    if not raw.shape.is_compatible_with(shape):
        raise FunctionError(f"{c.node.origin}: {op.name} returned shape {raw.shape}, but {shape} is declared")
    return Tensor(tf.ensure_shape(raw, shape), dims, finite=False)


@lowers(PrintValue)
def print_value(c: Context, op: PrintValue, x: Tensor) -> Tensor:
    with tf.control_dependencies([tf.print(op.message, x.raw, summarize=op.summarize)]):
        return replace(x, raw=tf.identity(x.raw), _derived={})


@lowers(CheckFinite)
def check_finite(c: Context, op: CheckFinite, x: Tensor) -> Tensor:
    if not x.dtype.is_floating:
        return x
    real = masked(c.sizes, x, padded_dims(c.sizes, x))
    finite = Tensor(tf.math.is_finite(real.raw), real.dims)
    with tf.control_dependencies([c.require(finite, op.message, "has a number that is not finite")]):
        return replace(x, raw=tf.identity(x.raw), _derived={})
