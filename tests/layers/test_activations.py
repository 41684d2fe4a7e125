"""Activation functions by name."""

import math

import numpy as np
import pytest

from returnn_lite.layers.activations import activation_names, apply_activation
from returnn_lite.layers.errors import LayerError
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
