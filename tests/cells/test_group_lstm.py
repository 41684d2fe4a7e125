"""The LSTM in groups, against its formula."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from tests.cells.probing import SIZE, Weights, assert_is, compiled, first_values, output_of, refusal, shapes, sigmoid


def grouped(weights: Weights, xs: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    """Kuchaiev and Ginsburg 2017; the candidate's function is tanh whatever that of the cell state."""
    act = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0)}[options.get("activation", "tanh")]
    kernel, bias, projection = weights["kernel"], weights["bias"], weights.get("projection/kernel")
    n = len(bias) // 4
    c, h, found = np.zeros(n), np.zeros(n if projection is None else projection.shape[1]), []
    for x in xs:
        parts = zip(np.split(x, len(kernel)), np.split(h, len(kernel)), kernel, strict=True)
        gates = [np.split(np.concatenate([x_g, h_g]) @ kernel_g, 4) for x_g, h_g, kernel_g in parts]
        i, j, f, o = (np.concatenate([gate[k] for gate in gates]) + bias[k * n : (k + 1) * n] for k in range(4))
        c = sigmoid(f + options.get("forget_bias", 1.0)) * c + sigmoid(i) * np.tanh(j)
        h = sigmoid(o) * act(c)
        h = h if projection is None else h @ projection
        found.append(h)
    return np.stack(found)


OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {"units": 6},
    "groups": {"units": 6, "groups": 2},
    "all": {"units": 8, "groups": 4, "projection": 4, "forget_bias": 0.3, "activation": "relu"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str) -> None:
    assert_is({"class": "glstm", **OPTIONS[name]}, lambda weights, xs: grouped(weights, xs, OPTIONS[name]))


def test_one_group_is_the_lstm() -> None:
    found = compiled({"class": "tf.contrib.rnn.GLSTMCell", "num_units": 6, "num_proj": 4, "number_of_groups": 1})
    lstm = compiled({"class": "standardlstm", "units": 6, "projection": 4})
    for name, parameter in found.params.items():
        value = parameter.numpy()
        lstm.params[name.replace("rec/", "rec/lstm_cell/")].assign(value[0] if value.ndim == 3 else value)
    np.testing.assert_allclose(output_of(found), output_of(lstm), 1e-9, 1e-9)


def test_parameters() -> None:
    found = shapes({"class": "glstm", "units": 6, "groups": 2, "projection": 4})
    assert found == {"kernel": (2, (SIZE + 4) // 2, 12), "bias": (24,), "projection/kernel": (6, 4)}
    kernel = first_values({"class": "glstm", "units": 60, "groups": 2})["kernel"]
    limit = np.sqrt(6 / ((SIZE + 60) // 2 + 120))
    assert 0.9 * limit < np.abs(kernel).max() <= limit


REFUSED = {
    "source": ({"class": "glstm", "units": 6, "groups": 3}, "4 features of .* are not in 3 groups of one size"),
    "units": ({"class": "glstm", "units": 5, "groups": 2}, "5 features of .* are not in 2 groups"),
    "projection": ({"class": "glstm", "units": 6, "groups": 2, "projection": 3}, "3 features of .* are not in 2"),
    "none": ({"class": "glstm", "units": 6, "groups": 0}, "groups: expected a number of at least 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    unit, message = REFUSED[name]
    assert re.search(message, refusal(unit))


def test_labels_are_refused() -> None:
    layer = {"class": "rec", "from": "data", "unit": {"class": "glstm", "units": 6}}
    config = {"network": {"output": layer}, "extern_data": {"data": {"dim": 4, "sparse": True}}}
    with pytest.raises(rl.ConfigError, match="labels are in no groups"):
        rl.check({**config, "behavior_version": 21}, "eval")
