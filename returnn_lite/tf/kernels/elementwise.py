"""Functions of each element, by their names in the IR."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def logaddexp(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """log(exp(a) + exp(b)); -inf, with no gradient, where both are."""
    top = tf.stop_gradient(tf.maximum(a, b))
    top = tf.where(tf.math.is_finite(top), top, tf.zeros_like(top))
    total = tf.exp(a - top) + tf.exp(b - top)
    none = tf.equal(total, 0)
    safe = tf.math.log(tf.where(none, tf.ones_like(total), total)) + top
    return tf.where(none, tf.cast(float("-inf"), total.dtype), safe)


UNARY: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "neg": tf.negative,
    "abs": tf.abs,
    "sign": tf.sign,
    "exp": tf.exp,
    "expm1": tf.math.expm1,
    "log": tf.math.log,
    "log1p": tf.math.log1p,
    "safe_log": lambda x: tf.math.log(tf.maximum(x, tf.cast(1e-20, x.dtype))),
    "sqrt": tf.sqrt,
    "rsqrt": tf.math.rsqrt,
    "square": tf.square,
    "reciprocal": tf.math.reciprocal,
    "sin": tf.sin,
    "cos": tf.cos,
    "tanh": tf.tanh,
    "sigmoid": tf.sigmoid,
    "log_sigmoid": tf.math.log_sigmoid,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "elu": tf.nn.elu,
    "selu": tf.nn.selu,
    "gelu": lambda x: tf.nn.gelu(x, approximate=True),
    "softplus": tf.math.softplus,
    "softsign": tf.math.softsign,
    "swish": lambda x: x * tf.sigmoid(x),
    "erf": tf.math.erf,
    "ceil": tf.math.ceil,
    "floor": tf.floor,
    "round": tf.round,
    "stop_gradient": tf.stop_gradient,
    "logical_not": tf.logical_not,
    "is_finite": tf.math.is_finite,
    "is_nan": tf.math.is_nan,
    "is_inf": tf.math.is_inf,
}

BINARY: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "add": tf.add,
    "sub": tf.subtract,
    "mul": tf.multiply,
    "truediv": tf.truediv,
    "floordiv": tf.math.floordiv,
    "mod": tf.math.floormod,
    "pow": tf.pow,
    "maximum": tf.maximum,
    "minimum": tf.minimum,
    "squared_difference": tf.math.squared_difference,
    "logaddexp": logaddexp,
    "divide_no_nan": tf.math.divide_no_nan,
    "equal": tf.equal,
    "not_equal": tf.not_equal,
    "less": tf.less,
    "less_equal": tf.less_equal,
    "greater": tf.greater,
    "greater_equal": tf.greater_equal,
    "logical_and": tf.logical_and,
    "logical_or": tf.logical_or,
    "logical_xor": tf.math.logical_xor,
}
