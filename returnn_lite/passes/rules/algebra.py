"""Identities of functions element by element that hold for every number, infinite ones and NaN too, with the same
gradient."""

from __future__ import annotations

from returnn_lite.passes.rules.patterns import equation

ALGEBRA = tuple(
    map(
        equation,
        (
            "add(x, 0) = x",
            "sub(x, 0) = x",
            "sub(0, x) = neg(x)",
            "mul(x, 1) = x",
            "mul(x, -1) = neg(x)",
            "truediv(x, 1) = x",
            "truediv(1, x) = reciprocal(x)",
            "pow(x, 1) = x",
            "pow(x, 2) = square(x)",
            "neg(neg(x)) = x",
            "neg(sub(x, y)) = sub(y, x)",
            "add(x, neg(y)) = sub(x, y)",
            "sub(x, neg(y)) = add(x, y)",
            "mul(neg(x), neg(y)) = mul(x, y)",
            "square(neg(x)) = square(x)",
            "square(abs(x)) = square(x)",
            "square(sub(x, y)) = squared_difference(x, y)",
            "abs(neg(x)) = abs(x)",
            "abs(abs(x)) = abs(x)",
            "relu(relu(x)) = relu(x)",
            "maximum(x, x) = x",
            "minimum(x, x) = x",
            "stop_gradient(stop_gradient(x)) = stop_gradient(x)",
            "logical_not(logical_not(x)) = x",
            "logical_not(equal(x, y)) = not_equal(x, y)",
            "logical_not(not_equal(x, y)) = equal(x, y)",
            "logical_and(x, x) = x",
            "logical_and(x, True) = x",
            "logical_and(x, False) = False",
            "logical_or(x, x) = x",
            "logical_or(x, False) = x",
            "logical_or(x, True) = True",
            "logical_xor(x, False) = x",
            "logical_xor(x, True) = logical_not(x)",
            "select(True, x, y) = x",
            "select(False, x, y) = y",
            "select(c, x, x) = x",
            "select(logical_not(c), x, y) = select(c, y, x)",
        ),
    )
)
