"""Functions of each element, by their names in the IR."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf


def logaddexp(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """log(exp(a) + exp(b)); -inf, with no gradient, where both are."""
    first = a >= b
    top, other = tf.where(first, a, b), tf.where(first, b, a)
    infinite = tf.logical_not(tf.math.is_finite(top))
    below = tf.where(infinite, tf.zeros_like(top), other - top)
    return tf.where(infinite, tf.stop_gradient(top), top + tf.math.softplus(below))


def elu(x: tf.Tensor) -> tf.Tensor:
    """x, and exp(x) - 1 below 0. TensorFlow's own kernel has no digit of it left near 0."""
    return tf.where(x > 0, x, tf.math.expm1(tf.minimum(x, 0)))


SELU_SCALE, SELU_ALPHA = 1.0507009873554804934, 1.6732632423543772848
"""Klambauer et al. 2017, section 2."""


def selu(x: tf.Tensor) -> tf.Tensor:
    """elu with the slope and the limit that keep mean and variance."""
    return SELU_SCALE * tf.where(x > 0, x, SELU_ALPHA * tf.math.expm1(tf.minimum(x, 0)))


def gelu(x: tf.Tensor) -> tf.Tensor:
    """The approximation x (1 + tanh(y)) / 2 as x sigmoid(2 y), which keeps its digits below 0 (Hendrycks and Gimpel
    2016, section 2)."""
    return x * tf.sigmoid((8 / math.pi) ** 0.5 * (x + 0.044715 * x**3))


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
    "sinh": tf.sinh,
    "cosh": tf.cosh,
    "tanh": tf.tanh,
    "sigmoid": tf.sigmoid,
    "log_sigmoid": tf.math.log_sigmoid,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "elu": elu,
    "selu": selu,
    "gelu": gelu,
    "softplus": tf.math.softplus,
    "softsign": tf.math.softsign,
    "swish": lambda x: x * tf.sigmoid(x),
    "erf": tf.math.erf,
    "erfc": tf.math.erfc,
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
