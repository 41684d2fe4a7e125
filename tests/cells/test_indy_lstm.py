"""The LSTM without recurrent matrices, against its formula."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.cells.probing import SIZE, Weights, assert_is, first_values, shapes, sigmoid


def independent(weights: Weights, xs: np.ndarray, forget_bias: float, act: Any) -> np.ndarray:
    """Gonnet and Deselaers 2019."""
    n = len(weights["bias"]) // 4
    c, h, found = np.zeros(n), np.zeros(n), []
    for x in xs:
        z = x @ weights["kernel_w"] + np.tile(h, 4) * weights["kernel_u"] + weights["bias"]
        i, j, f, o = np.split(z, 4)
        c = sigmoid(f + forget_bias) * c + sigmoid(i) * act(j)
        h = sigmoid(o) * act(c)
        found.append(h)
    return np.stack(found)


def test_independent_units() -> None:
    assert_is({"class": "indylstm", "units": 5}, lambda weights, xs: independent(weights, xs, 1.0, np.tanh))
    options = {"forget_bias": 0.2, "activation": "sigmoid"}
    assert_is({"class": "IndyLSTMCell", "num_units": 5, **options}, lambda w, xs: independent(w, xs, 0.2, sigmoid))
    assert shapes({"class": "indylstm", "units": 5}) == {"kernel_w": (SIZE, 20), "kernel_u": (20,), "bias": (20,)}
    diagonal = first_values({"class": "indylstm", "units": 100})["kernel_u"]
    assert 0.9 < np.abs(diagonal).max() <= 1
