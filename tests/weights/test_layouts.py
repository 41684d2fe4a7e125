"""Weights of one system as those of another: the same function, and back again the same numbers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.weights import (
    LAYOUTS,
    WeightsError,
    convert,
    from_vector,
    layout_of,
    read,
    stored_cells,
    to_vector,
    write,
)
from returnn_lite.weights.gates import KINDS, Gates

Array = np.ndarray[Any, Any]
INPUTS, UNITS = 3, 4
X = np.random.default_rng(0).normal(size=(6, INPUTS))
PAIRS = [(kind, system) for kind, layouts in LAYOUTS.items() for system in layouts]


def drawn(kind: str, *, two_biases: bool, reset_after: bool, seed: int = 1) -> Gates:
    """Random weights, float32."""
    generator = np.random.default_rng(seed)

    def draw(*shape: int) -> Array:
        return generator.normal(size=shape).astype("float32")

    gates = KINDS[kind]
    more = {}
    if kind == "milstm":
        more = {
            f"{name}/{gate}": draw(UNITS)
            for name in ("alpha", "beta_input", "beta_recurrent", "shift")
            for gate in gates
        }
    return Gates(
        kind,
        {gate: draw(INPUTS, UNITS) for gate in gates},
        {gate: draw(UNITS, UNITS) for gate in gates},
        {gate: draw(UNITS) for gate in gates},
        {gate: draw(UNITS) for gate in gates} if two_biases else {},
        reset_after=reset_after,
        more=more,
    )


def of_layout(kind: str, system: str) -> dict[str, Array]:
    """Random arrays of a layout."""
    layout = layout_of(kind, system)
    return write(
        drawn(kind, two_biases=layout.stacked or len(layout.groups[-1].biases) > 1, reset_after=layout.reset_after),
        layout,
        0.0,
    )


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def outputs(gates: Gates) -> Array:
    """h after each frame, by the formulas, in float64."""
    h = c = np.zeros(UNITS)
    found = []
    for x in X:
        z = {g: x @ w.astype(float) + gates.bias[g] for g, w in gates.input.items()}
        r = {g: h @ w.astype(float) + gates.recurrent_bias.get(g, 0) for g, w in gates.recurrent.items()}
        if gates.kind == "gru":
            reset, update = (sigmoid(z[g] + r[g]) for g in ("reset", "update"))
            before = (reset * h) @ gates.recurrent["candidate"].astype(float)
            seen = reset * r["candidate"] if gates.reset_after else before
            h = update * h + (1 - update) * np.tanh(z["candidate"] + seen)
        else:
            s = {g: z[g] + r[g] for g in z}
            s["forget"] = s["forget"] + gates.forget_bias
            c = sigmoid(s["forget"]) * c + sigmoid(s["input"]) * np.tanh(s["cell"])
            h = sigmoid(s["output"]) * np.tanh(c)
        found.append(h)
    return np.array(found)


@pytest.mark.parametrize(("kind", "system"), PAIRS)
def test_what_is_read_is_written_bit_for_bit(kind: str, system: str) -> None:
    arrays = of_layout(kind, system)
    back = write(read(arrays, layout_of(kind, system)), layout_of(kind, system))
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_from_each_system_to_each_is_the_same_function(kind: str) -> None:
    for source, target in itertools.permutations(LAYOUTS[kind], 2):
        have, want = layout_of(kind, source), layout_of(kind, target)
        if have.reset_after != want.reset_after:
            with pytest.raises(WeightsError, match="another function"):
                convert(of_layout(kind, source), kind, source, target)
            continue
        arrays = of_layout(kind, source)
        expected = outputs(read(arrays, have))
        found = outputs(read(convert(arrays, kind, source, target), want))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=f"{source} {target}")


def test_there_and_back_is_exact() -> None:
    """From one bias to two and back; a forget bias that the other system does not add stands in the second."""
    for source in ("returnn", "keras", "tensorflow", "tensorflow_block_v2"):
        arrays = of_layout("lstm", source)
        back = convert(convert(arrays, "lstm", source, "pytorch"), "lstm", "pytorch", source)
        for name in set(arrays) - {"bias"}:
            np.testing.assert_array_equal(back[name], arrays[name])


def pytorch_lstm(arrays: Mapping[str, Array]) -> Array:
    """PyTorch's own formula: rows i, f, g, o."""
    h = c = np.zeros(UNITS)
    found = []
    for x in X:
        total = arrays["weight_ih_l0"] @ x + arrays["bias_ih_l0"] + arrays["weight_hh_l0"] @ h + arrays["bias_hh_l0"]
        i, f, g, o = np.split(total, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        found.append(h)
    return np.array(found)


def test_pytorch_in_our_network() -> None:
    arrays = of_layout("lstm", "pytorch")
    net = rl.compile(
        {"output": {"class": "rec", "unit": "nativelstm2", "n_out": UNITS, "from": "data"}},
        {"data": {"dim": INPUTS}},
        "eval",
        behavior_version=21,
    )
    for name, array in convert(arrays, "lstm", "pytorch", "returnn").items():
        net.params[f"output/rec/{name}"].assign(array)
    output = net.run({"data": X[None]}, {"data": [len(X)]}).layers["output"].value[0]
    np.testing.assert_allclose(output, pytorch_lstm(arrays), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "system"), [("lstm", "keras"), ("gru", "keras"), ("gru", "keras_reset_before")])
def test_keras_layers_with_converted_weights(kind: str, system: str) -> None:
    import keras  # noqa: PLC0415 - only here

    arrays = of_layout(kind, system)
    options = {"return_sequences": True} | ({} if kind == "lstm" else {"reset_after": system == "keras"})
    layer = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[kind](UNITS, **options)
    layer.build((1, len(X), INPUTS))
    layer.set_weights([arrays[name] for name in ("kernel", "recurrent_kernel", "bias")])
    found = np.asarray(layer(X[None].astype("float32")))[0]
    np.testing.assert_allclose(found, outputs(read(arrays, layout_of(kind, system))), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize(("layers", "directions"), [(1, 1), (2, 1), (2, 2)])
def test_cudnn_vectors_are_exact(kind: str, layers: int, directions: int) -> None:
    cells = from_vector(np.arange(10_000.0)[: _size(kind, layers, directions)], kind, INPUTS, UNITS, layers, directions)
    np.testing.assert_array_equal(to_vector(cells), np.arange(10_000.0)[: _size(kind, layers, directions)])
    assert len(cells) == layers * directions
    first = cells[0].input["input" if kind == "lstm" else "reset"]
    np.testing.assert_array_equal(first, np.arange(float(INPUTS * UNITS)).reshape(UNITS, INPUTS).T)


def _size(kind: str, layers: int, directions: int) -> int:
    gates, total = len(KINDS[kind]), 0
    for layer in range(layers):
        rows = INPUTS if layer == 0 else directions * UNITS
        total += directions * gates * UNITS * (rows + UNITS + 2)
    return total


def test_a_cudnn_vector_of_another_size_is_refused() -> None:
    with pytest.raises(WeightsError, match="the vector has 7 numbers, but these cells have 144"):
        from_vector(np.zeros(7), "lstm", INPUTS, UNITS)


@pytest.mark.parametrize(("kind", "system"), PAIRS)
def test_cells_are_found_among_other_arrays(kind: str, system: str) -> None:
    arrays = {f"encoder/rec/{name}": array for name, array in of_layout(kind, system).items()}
    others = {"encoder/W": (3, 4), "decoder/rec/W": (3, 16), "global_step": ()}
    (found,) = stored_cells({**{name: array.shape for name, array in arrays.items()}, **others})
    assert (found.scope, found.kind) == ("encoder/rec/", kind)
    same = [other for other in LAYOUTS[kind].values() if other.names() == layout_of(kind, system).names()]
    assert found.layout in same
    np.testing.assert_array_equal(outputs(found.gates(arrays)).shape, (6, UNITS))


REFUSED = {
    "missing": (lambda: read({"W": np.zeros((3, 16))}, layout_of("lstm", "returnn")), "there is no 'b'"),
    "no kind": (lambda: layout_of("rnn", "keras"), "there is no kind of cell 'rnn'"),
    "no system": (lambda: layout_of("gru", "caffe2"), "a gru has no layout 'caffe2'"),
    "parts": (
        lambda: read(
            {"W": np.zeros((3, 16)), "W_re": np.zeros((4, 16)), "b": np.zeros(15)}, layout_of("lstm", "returnn")
        ),
        "no 4 equal parts",
    ),
    "peepholes": (
        lambda: convert(of_layout("lstm", "tensorflow") | {"w_i_diag": np.zeros(UNITS)}, "lstm", "tensorflow", "keras"),
        "no place for peephole_input",
    ),
    "reset before in cuDNN": (
        lambda: to_vector([drawn("gru", two_biases=False, reset_after=False)]),
        "resets after the product",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(WeightsError, match=message):
        make()
