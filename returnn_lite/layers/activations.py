"""Activation functions by the names that configs use: those of `tf.nn` and `tf.math` (published ones are all here)."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

from returnn_lite.ir.expressions import Expressions
from returnn_lite.ir.ops import elementwise
from returnn_lite.ir.views import View
from returnn_lite.layers.errors import LayerError

Function = Callable[[Expressions, View], View]

PREFIXES = ("tf.compat.v1.nn.", "tf.compat.v1.math.", "tf.compat.v1.", "tf.nn.", "tf.math.", "tf.")

# Names of functions that are one primitive, where they differ from the primitive's own.
SAME_AS = {
    "silu": "swish",
    "negative": "neg",
    "inv": "reciprocal",
    "rint": "round",
    "isfinite": "is_finite",
    "isnan": "is_nan",
    "isinf": "is_inf",
}


def apply_activation(
    b: Expressions, name: str | None, value: View, options: Mapping[str, float | int] | None = None
) -> View:
    """The value with an activation function applied; softmax and log_softmax go over the feature dim.

    None, "none", "identity" and "linear" leave the value as it is. Only functions in `OPTIONS` take
    options. Raises LayerError.
    """
    if name is None:
        return value
    plain = _plain_name(name)
    allowed = OPTIONS.get(plain, {})
    for key in options or {}:
        if key not in allowed:
            known = f"; it takes {', '.join(allowed)}" if allowed else ""
            raise LayerError(f"activation '{name}' has no option '{key}'{known}", option="opts")
    if plain in WITH_OPTIONS:
        return WITH_OPTIONS[plain](b, value, {**allowed, **(options or {})})
    if plain in COMPOSED:
        return COMPOSED[plain](b, value)
    kind = SAME_AS.get(plain, plain)
    if kind not in elementwise.UNARY | elementwise.UNARY_BOOL | elementwise.UNARY_TEST:
        raise LayerError(f"there is no activation '{name}'", _hint(name, plain), "activation")
    return b.unary(kind, _accepted(b, kind, value))


def activation_names() -> tuple[str, ...]:
    """Every name that `apply_activation` takes, without the prefixes `tf.nn.` and `tf.math.`."""
    unary = elementwise.UNARY | elementwise.UNARY_BOOL | elementwise.UNARY_TEST
    return tuple(sorted({*unary, *SAME_AS, *COMPOSED, *WITH_OPTIONS}))


def _plain_name(name: str) -> str:
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _hint(name: str, plain: str) -> str:
    if "(" in name or "lambda" in name:
        return "an expression goes into an eval layer"
    near = difflib.get_close_matches(plain.lower(), activation_names(), n=1)
    return f"did you mean '{near[0]}'?" if near else f"known are {', '.join(activation_names())}"


INTEGRAL = frozenset({"neg", "abs", "sign", "square", "relu", "relu6", "stop_gradient"})


def _accepted(b: Expressions, kind: str, value: View) -> View:
    """The value as a float, if the function is not one of integers or booleans."""
    if value.type.is_float or kind in INTEGRAL or kind in elementwise.UNARY_BOOL:
        return value
    return b.cast(value, "float32")


def _softmax(log: bool) -> Function:
    def function(b: Expressions, value: View) -> View:
        if value.type.feature is None:
            raise LayerError(
                f"softmax goes over the feature dim, but '{value.name}' has none: {value.type}",
                "use softmax_over_spatial with an axis",
                "activation",
            )
        return b.softmax(value, value.type.feature, log)

    return function


def _identity(b: Expressions, value: View) -> View:
    return value


def _tan(b: Expressions, value: View) -> View:
    return b.binary("truediv", b.unary("sin", value), b.unary("cos", value))


def _hard_sigmoid(slope: float) -> Function:
    def function(b: Expressions, value: View) -> View:
        return b.binary("minimum", b.binary("maximum", b.add(b.mul(slope, value), 0.5), 0.0), 1.0)

    return function


def _leaky_relu(b: Expressions, value: View, options: Mapping[str, float | int]) -> View:
    below = b.unary("relu", b.unary("neg", value))
    return b.sub(b.unary("relu", value), b.mul(float(options["alpha"]), below))


def _gelu(b: Expressions, value: View, options: Mapping[str, float | int]) -> View:
    if options["approximate"]:
        return b.unary("gelu", value)
    cdf = b.mul(0.5, b.unary("erfc", b.mul(value, -(0.5**0.5))))  # 1 + erf(x) loses what is left of it below 0
    return b.mul(value, cdf)


COMPOSED: Mapping[str, Function] = {
    "identity": _identity,
    "linear": _identity,
    "none": _identity,
    "softmax": _softmax(log=False),
    "log_softmax": _softmax(log=True),
    "tan": _tan,
    "hard_sigmoid": _hard_sigmoid(0.2),  # that of Keras before 3
    "hard_sigmoid_relu6": _hard_sigmoid(1 / 6),  # relu6(x + 3) / 6, which Keras 3 and PyTorch call hard sigmoid
}

KERAS_3: Mapping[str, str] = {"hard_sigmoid": "hard_sigmoid_relu6"}
"""What Keras 3 calls otherwise, by its name there: TensorFlow and the Keras before it have another hard sigmoid."""

# Functions with options, and the values these have if they are not given.
OPTIONS: Mapping[str, Mapping[str, float | int]] = {
    "leaky_relu": {"alpha": 0.2},
    "gelu": {"approximate": 0},
}
WITH_OPTIONS: Mapping[str, Callable[[Expressions, View, Mapping[str, float | int]], View]] = {
    "leaky_relu": _leaky_relu,
    "gelu": _gelu,
}
