"""Initialisers as configs write them."""

import pytest

from returnn_lite.dims import DimKind, Symbol
from returnn_lite.ir.ops.sources import Initializer
from returnn_lite.layers.errors import LayerError
from returnn_lite.layers.initializers import initializer

SCALED = {"scale": 0.78, "mode": "fan_in", "distribution": "uniform"}
GLOROT = {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform"}


@pytest.mark.parametrize(
    ("spec", "rule", "arguments"),
    [
        (0, "constant", {"value": 0.0}),
        (0.5, "constant", {"value": 0.5}),
        ("0.1", "constant", {"value": 0.1}),
        ("-0.1", "constant", {"value": -0.1}),
        ("zeros", "constant", {"value": 0.0}),
        ("ones", "constant", {"value": 1.0}),
        ("constant_initializer(value=-10)", "constant", {"value": -10}),
        ("glorot_uniform", "variance_scaling", GLOROT),
        ("xavier", "variance_scaling", GLOROT),
        ("he_normal", "variance_scaling", {"scale": 2.0, "mode": "fan_in", "distribution": "truncated_normal"}),
        ("variance_scaling_initializer(mode='fan_in', distribution='uniform', scale=0.78)", "variance_scaling", SCALED),
        ({"class": "VarianceScaling", **SCALED}, "variance_scaling", SCALED),
        ("variance_scaling_initializer(0.78, distribution='uniform')", "variance_scaling", SCALED),
        ("random_normal_initializer(mean=0.0, stddev=0.05)", "normal", {"mean": 0.0, "stddev": 0.05}),
        ("random_normal_initializer(stddev=0.05, seed=3)", "normal", {"mean": 0.0, "stddev": 0.05}),
        ("random_uniform_initializer(-0.1, 0.1)", "uniform", {"minval": -0.1, "maxval": 0.1}),
        ("truncated_normal", "truncated_normal", {"mean": 0.0, "stddev": 1.0}),
        ("orthogonal", "orthogonal", {"gain": 1.0}),
        ("identity", "identity", {"gain": 1.0}),
    ],
)
def test_rules(spec: object, rule: str, arguments: dict) -> None:
    made = initializer(spec)
    assert made.rule == rule
    assert dict(made.arguments) == arguments


def test_fans() -> None:
    a, b = (Symbol(name, DimKind.FEATURE, size) for name, size in (("a", 3), ("b", 4)))
    made = initializer("xavier", (a,), (b,))
    assert made == Initializer("variance_scaling", tuple(GLOROT.items()), (a,), (b,))


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("glorot_unifrm", "no initialiser 'glorot_unifrm'", "'glorot_uniform'"),
        ("random_normal_initializer(sttdev=1.0)", "no argument 'sttdev'", "mean, stddev"),
        ("variance_scaling_initializer(mode='fan')", "mode is one of fan_in", ""),
        ("random_normal_initializer(stddev='a')", "must be a number", ""),
        ("glorot_uniform(scale=2)", "no argument 'scale'", "it takes none"),
        ("random_normal_initializer(stddev=open('x'))", "only hold numbers and strings", ""),
        ("__import__('os')", "no initialiser", ""),
        ("constant(1, 2)", "takes 1 arguments, not 2", ""),
        ({"scale": 1}, "needs 'class'", ""),
        (None, "is a number, a string or a dict", ""),
        ("1 +", "not an expression", ""),
    ],
)
def test_mistakes(spec: object, message: str, hint: str) -> None:
    with pytest.raises(LayerError) as caught:
        initializer(spec)
    assert message in caught.value.message
    assert hint in caught.value.hint
