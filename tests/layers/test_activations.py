"""Activation functions by name."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from returnn_lite.layers.activations import activation_names, apply_activation
from returnn_lite.layers.errors import LayerError
from returnn_lite.tf.executable import Executable
from returnn_lite.tf.kernels.elementwise import logaddexp
from tests.layers.harness import Bench

X = np.array([[-2.0, -0.3, 0.4], [1.7, 0.6, 8.0]], "float32")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


EXPECTED = {
    "relu": np.maximum(X, 0),
    "tanh": np.tanh(X),
    "sigmoid": sigmoid(X),
    "exp": np.exp(X),
    "swish": X * sigmoid(X),
    "silu": X * sigmoid(X),
    "log_sigmoid": np.log(sigmoid(X)),
    "abs": np.abs(X),
    "softmax": np.exp(X) / np.exp(X).sum(-1, keepdims=True),
    "log_softmax": X - np.log(np.exp(X).sum(-1, keepdims=True)),
    "elu": np.where(X > 0, X, np.exp(X) - 1),
    "softplus": np.log1p(np.exp(X)),
    "square": X * X,
    "softsign": X / (1 + np.abs(X)),
    "relu6": np.clip(X, 0, 6),
    "leaky_relu": np.where(X > 0, X, 0.2 * X),
    "gelu": X * 0.5 * (1 + np.vectorize(math.erf)(X / math.sqrt(2))),
    "sin": np.sin(X),
    "sinh": np.sinh(X),
    "sign": np.sign(X),
    "identity": X,
    "tf.nn.relu": np.maximum(X, 0),
    "tf.math.tanh": np.tanh(X),
}


def test_values() -> None:
    bench = Bench()
    x = bench.input("x", bench.batch, bench.feature(3))
    results = bench.run({name: apply_activation(bench.builder, name, x) for name in EXPECTED}, {"x": X})
    for name, expected in EXPECTED.items():
        np.testing.assert_allclose(results[name].value, expected, rtol=2e-5, atol=1e-6, err_msg=name)


def test_none_is_the_value_itself() -> None:
    bench = Bench()
    x = bench.input("x", bench.batch, bench.feature(3))
    assert apply_activation(bench.builder, None, x) is x


def test_options() -> None:
    bench = Bench()
    x = bench.input("x", bench.batch, bench.feature(3))
    approximate = apply_activation(bench.builder, "gelu", x, {"approximate": 1})
    expected = 0.5 * X * (1 + np.tanh(math.sqrt(2 / math.pi) * (X + 0.044715 * X**3)))
    np.testing.assert_allclose(bench.run(approximate, {"x": X}).value, expected, rtol=1e-5, atol=1e-6)
    y = apply_activation(bench.builder, "leaky_relu", x, {"alpha": 1.5})
    np.testing.assert_allclose(bench.run(y, {"x": X}).value, np.where(X > 0, X, 1.5 * X), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message", "hint"),
    [
        ("rellu", {}, "no activation 'rellu'", "'relu'"),
        ("lambda x: x", {}, "no activation", "eval layer"),
        ("relu", {"alpha": 1}, "no option 'alpha'", ""),
        ("leaky_relu", {"alhpa": 1}, "it takes alpha", ""),
    ],
)
def test_mistakes(name: str, options: dict, message: str, hint: str) -> None:
    bench = Bench()
    x = bench.input("x", bench.batch, bench.feature(3))
    with pytest.raises(LayerError) as caught:
        apply_activation(bench.builder, name, x, options)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_softmax_needs_a_feature_dim() -> None:
    bench = Bench()
    x = bench.input("x", bench.batch, bench.time)
    with pytest.raises(LayerError, match="feature dim"):
        apply_activation(bench.builder, "softmax", x)


@pytest.mark.parametrize("name", activation_names())
def test_every_name_builds(name: str) -> None:
    bench = Bench()
    dtype = "bool" if name == "logical_not" else "float32"
    x = bench.input("x", bench.batch, bench.feature(3), dtype=dtype)
    assert apply_activation(bench.builder, name, x).type.dims == x.type.dims


def _gelu(x: float) -> float:
    return x * math.erfc(-x / math.sqrt(2)) / 2


def _gelu_slope(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2 + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _cubic(x: float) -> float:
    return math.sqrt(8 / math.pi) * (x + 0.044715 * x**3)


def _approximate_gelu(x: float) -> float:
    return x / (1 + math.exp(-_cubic(x)))


def _approximate_slope(x: float) -> float:
    s = 1 / (1 + math.exp(-_cubic(x)))
    return s + x * s * (1 - s) * math.sqrt(8 / math.pi) * (1 + 3 * 0.044715 * x * x)


L, A = 1.0507009873554804934, 1.6732632423543772848
ACCURATE: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "sinh": (math.sinh, math.cosh),
    "cosh": (math.cosh, math.sinh),
    "tan": (math.tan, lambda x: 1 + math.tan(x) ** 2),
    "erf": (math.erf, lambda x: 2 / math.sqrt(math.pi) * math.exp(-x * x)),
    "erfc": (math.erfc, lambda x: -2 / math.sqrt(math.pi) * math.exp(-x * x)),
    "expm1": (math.expm1, math.exp),
    "elu": (lambda x: x if x > 0 else math.expm1(x), lambda x: math.exp(min(x, 0))),
    "selu": (lambda x: L * x if x > 0 else L * A * math.expm1(x), lambda x: L if x > 0 else L * A * math.exp(x)),
    "gelu": (_gelu, _gelu_slope),
    "gelu approximate": (_approximate_gelu, _approximate_slope),
    "softplus": (lambda x: math.log1p(math.exp(x)), lambda x: 1 / (1 + math.exp(-x))),
    "log_sigmoid": (lambda x: -math.log1p(math.exp(-x)), lambda x: 1 / (1 + math.exp(x))),
    "swish": (lambda x: x / (1 + math.exp(-x)), lambda x: (1 + x * (1 - sigmoid_of(x))) * sigmoid_of(x)),
    "tanh": (math.tanh, lambda x: 1 / math.cosh(x) ** 2 if abs(x) < 3 else math.nan),
    "sigmoid": (lambda x: sigmoid_of(x), lambda x: sigmoid_of(x) * sigmoid_of(-x) if x < 5 else math.nan),
}
"""Value and slope in double precision. Above 5 and 3, TensorFlow's slopes of sigmoid and tanh are 1 - y and 1 - y^2."""


def sigmoid_of(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else math.exp(x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ACCURATE)
def test_digits_are_kept_everywhere(name: str, dtype: str) -> None:
    """sinh(1e-4) was off by 2e-4 of it, erfc(5) was 0, elu(-1e-8), and the tail of gelu."""
    x = np.array([s * m * 10.0**e for e in range(-10, 2) for m in (1, 2.2, 5.1) for s in (1, -1) if m * 10.0**e < 14])
    x = x.astype(dtype)
    bench = Bench()
    given = bench.input("x", bench.batch, bench.feature(1))
    kind, _, approximate = name.partition(" ")
    made = apply_activation(bench.builder, kind, given, {"approximate": 1} if approximate else None)
    program = Executable(bench.builder.graph({"y": made}), bench.batch, dtype)

    def run(fed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        y = program.call({"x": fed}, {}, tf.constant(1)).outputs["y"].raw
        return y, tf.gradients(y, fed)[0]

    y, slope = tf.function(run, autograph=False)(tf.constant(x[:, None]))
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    smallest = float(np.finfo(dtype).tiny) / tolerance
    for found, function in zip((y, slope), ACCURATE[name], strict=True):
        expected = np.array([function(float(value)) for value in x])
        known = np.isfinite(expected)
        np.testing.assert_allclose(found.numpy()[known, 0], expected[known], rtol=tolerance, atol=smallest)


def test_the_logarithm_of_a_sum_keeps_its_digits() -> None:
    """log(1 + exp(-20)) was 0; what is equal shares the slope; of nothing there is none."""
    a, b = (
        np.array(x, "float32")
        for x in ([0.0, -3.0, 2.0, -np.inf, 1.0, -1e30], [-20.0, 9.0, 2.0, -np.inf, -np.inf, 5.0])
    )
    x, y = tf.constant(a), tf.constant(b)
    with tf.GradientTape() as tape:
        tape.watch([x, y])
        total = logaddexp(x, y)
    np.testing.assert_allclose(total, np.logaddexp(a.astype("float64"), b), rtol=1e-6)
    slopes = np.array(
        [np.exp(v - t) if np.isfinite(t) else 0 for v, t in zip(b.astype("float64"), total.numpy(), strict=True)]
    )
    np.testing.assert_allclose(tape.gradient(total, [x, y])[1], slopes, rtol=1e-5, atol=1e-12)
