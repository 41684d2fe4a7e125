"""Weights of LSTMs in checkpoints: in whatever form they are stored, the network computes the same with them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.tf.lstm_weights import FORMS, converted
from returnn_lite.weights import Layout, layout_of, write
from returnn_lite.weights.gates import KINDS, Gates

SIZE, UNITS = 3, 4
ORDERS = {"returnn": "jifo", "returnn_low_memory": "jifo", "tensorflow": "ijfo"}
EXTERN_DATA = {"data": {"dim": SIZE}}
X = np.random.default_rng(5).normal(size=(2, 6, SIZE)).astype("float32")
STEP = {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": UNITS, "from": "data:source"}
NETWORKS: dict[str, dict[str, Any]] = {
    "native": {"unit": "nativelstm2", "n_out": UNITS},
    "low memory": {"unit": "nativelstmlowmem", "n_out": UNITS},
    "standard": {"unit": "standardlstm", "n_out": UNITS},
    "basic": {"unit": "basiclstm", "n_out": UNITS},
    "in a loop": {"unit": {"output": STEP}},
}


def network(name: str) -> Any:
    layers = {"output": {"class": "rec", **NETWORKS[name], "from": "data"}}
    return rl.compile(layers, EXTERN_DATA, "forward", behavior_version=21)


def below(name: str) -> str:
    """The name of a parameter below the unit's scope."""
    return name.rpartition("rec/")[2]


Form = tuple[str, str]


def layout(form: Form) -> Layout:
    return layout_of("lstm", form[1])


def names(form: Form) -> list[str]:
    """The kernels and the bias."""
    return [f"lm/rec/{form[0]}{name}" for name in layout(form).names()]


def drawn(form: Form) -> dict[str, np.ndarray]:
    """Random weights in a form."""
    generator = np.random.default_rng(1)
    rows = (SIZE, UNITS) if len(names(form)) > 2 else (SIZE + UNITS,)
    shapes = [*((number, 4 * UNITS) for number in rows), (4 * UNITS,)]
    return {name: generator.normal(size=shape) for name, shape in zip(names(form), shapes, strict=True)}


def states(form: Form, weights: Mapping[str, np.ndarray], forget_bias: float) -> np.ndarray:
    """h after each frame of the first sequence, by the formulas."""
    *kernels, bias = (weights[name] for name in names(form))
    h = c = np.zeros(UNITS)
    found = []
    for x in X[0].astype("float64"):
        total = np.concatenate([x, h]) @ np.concatenate(kernels) + bias
        gates = dict(zip(ORDERS[form[1]], np.split(total, 4), strict=True))
        c = sigmoid(gates["f"] + forget_bias) * c + sigmoid(gates["i"]) * np.tanh(gates["j"])
        h = sigmoid(gates["o"]) * np.tanh(c)
        found.append(h)
    return np.array(found)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("forget_bias", [0.0, 1.0, 0.7])
@pytest.mark.parametrize(("stored", "wanted"), [*itertools.permutations(FORMS, 2)])
def test_from_each_form_to_each(stored: Form, wanted: Form, forget_bias: float) -> None:
    weights = drawn(stored)
    shapes = {name: array.shape for name, array in weights.items()}
    made = {}
    for name, array in drawn(wanted).items():
        found = converted(name, array.shape, shapes, weights.__getitem__, forget_bias)
        assert found is not None and found.sources == tuple(names(stored))
        made[name] = found.value
    expected = states(stored, weights, layout(stored).forget_bias)
    np.testing.assert_allclose(states(wanted, made, forget_bias), expected, rtol=1e-12)


@pytest.mark.parametrize(("stored", "wanted"), [*itertools.permutations(FORMS, 2)])
def test_peepholes_and_a_projection(stored: Form, wanted: Form) -> None:
    """The rows of h are as many as the projection gives, and both are found in any form."""
    generator = np.random.default_rng(2)
    more = {f"peephole_{gate}": generator.normal(size=UNITS) for gate in ("input", "forget", "output")}
    gates = Gates(
        "lstm",
        {gate: generator.normal(size=(SIZE, UNITS)) for gate in KINDS["lstm"]},
        {gate: generator.normal(size=(2, UNITS)) for gate in KINDS["lstm"]},
        {gate: generator.normal(size=UNITS) for gate in KINDS["lstm"]},
        more={**more, "projection": generator.normal(size=(UNITS, 2))},
    )
    arrays = {f"lm/rec/{stored[0]}{name}": array for name, array in write(gates, layout(stored), 0.0).items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    for name, array in write(gates, layout(wanted), layout(stored).forget_bias).items():
        found = converted(f"lm/rec/{wanted[0]}{name}", array.shape, shapes, arrays.__getitem__, 0.0)
        assert found is not None
        if name not in layout(wanted).biases:
            np.testing.assert_array_equal(found.value, array)


@pytest.mark.parametrize(
    ("name", "form"), [("native", 0), ("low memory", 1), ("standard", 2), ("basic", 3), ("in a loop", 2)]
)
def test_the_forms_are_those_of_the_units(name: str, form: int) -> None:
    """Their parameters have these names and shapes, and the network computes the formulas."""
    weights = {below(key): array for key, array in drawn(FORMS[form]).items()}
    net = network(name)
    assert {below(key): tuple(variable.shape) for key, variable in net.params.items()} == {
        key: array.shape for key, array in weights.items()
    }
    for key, variable in net.params.items():
        variable.assign(weights[below(key)])
    found = net.run({"data": X}, {"data": [6, 4]}).layers["output"]
    value = np.moveaxis(np.asarray(found.value), found.dims.index("B"), 0)[0]
    np.testing.assert_allclose(
        value, states(FORMS[form], drawn(FORMS[form]), layout(FORMS[form]).forget_bias), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "shape", "shapes"),
    [
        ("lm/rec/W", (3, 16), {"lm/W_re": (4, 16), "lm/W": (3, 16), "lm/b": (16,)}),  # of another scope
        ("lm/kernel", (7, 16), {"lm/W_re": (4, 16), "lm/W": (3, 16), "lm/b": (16,)}),  # no LSTM's name
        ("lm/lstm_cell/kernel", (8, 16), {"lm/W_re": (4, 16), "lm/W": (3, 16), "lm/b": (16,)}),  # another size
        ("lm/lstm_cell/kernel", (7, 16), {"lm/W_re": (4, 16), "lm/W": (3, 16)}),  # no bias
        ("lm/lstm_cell/kernel", (7, 16), {"lm/W_re": (5, 16), "lm/W": (2, 16), "lm/b": (16,)}),  # not square
        ("lm/lstm_cell/kernel", (5, 6), {"lm/W": (5, 6), "lm/b": (6,)}),  # no gates
        ("lm/W_re", (4, 16), {"lm/W": (3, 16), "lm/b": (16,)}),  # fewer rows than the state has
        ("myW", (3, 16), {"mylstm_cell/kernel": (7, 16), "mylstm_cell/bias": (16,)}),  # a name that ends like one
    ],
)
def test_what_is_no_lstm_is_not_converted(name: str, shape: tuple[int, ...], shapes: dict[str, Any]) -> None:
    assert converted(name, shape, shapes, lambda source: np.zeros(shapes[source])) is None
