"""Recurrent layers of several cells under the names of each system: the same cells in the same order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.weights import WeightsError, from_vector, read_stack, sums_of_stack, to_vector, write_stack
from returnn_lite.weights.gates import KINDS, Gates
from returnn_lite.weights.layouts import layout_for
from returnn_lite.weights.stacks import systems

Array = np.ndarray[Any, Any]
INPUTS, UNITS = 3, 4
SHAPES = [(1, 1), (1, 2), (2, 1), (12, 1), (2, 2)]
"""Layers and directions."""


def drawn(kind: str, layers: int, directions: int, *, two_biases: bool, reset_after: bool) -> list[list[Gates]]:
    generator = np.random.default_rng(3)

    def draw(*shape: int) -> Array:
        return generator.normal(size=shape).astype("float32")

    def cell(inputs: int) -> Gates:
        vectors = ("alpha", "beta_input", "beta_recurrent", "shift") if kind == "milstm" else ()
        return Gates(
            kind,
            {gate: draw(inputs, UNITS) for gate in KINDS[kind]},
            {gate: draw(UNITS, UNITS) for gate in KINDS[kind]},
            {gate: draw(UNITS) for gate in KINDS[kind]},
            {gate: draw(UNITS) for gate in KINDS[kind]} if two_biases else {},
            reset_after=reset_after,
            more={f"{name}/{gate}": draw(UNITS) for name in vectors for gate in KINDS[kind]},
        )

    sizes = [INPUTS] + [directions * UNITS] * (layers - 1)
    return [[cell(size) for _ in range(directions)] for size in sizes]


def of_system(kind: str, system: str, layers: int, directions: int, *, reset_after: bool) -> dict[str, Array]:
    """Random arrays under a system's names."""
    layout = layout_for(kind, system, reset_after=reset_after)
    two = any(map(layout.has_two, layout.groups))
    cells = drawn(kind, layers, directions, two_biases=two, reset_after=layout.reset_after)
    return write_stack(cells, system, forget_bias=0.0)


KNOWN = [
    (kind, system)
    for kind in KINDS
    for system in systems()
    if any(name.startswith(system) for name in rl.weights.LAYOUTS[kind])
]


@pytest.mark.parametrize(("layers", "directions"), SHAPES)
@pytest.mark.parametrize(("kind", "system"), KNOWN)
def test_what_is_read_is_written_bit_for_bit(kind: str, system: str, layers: int, directions: int) -> None:
    for reset_after in (False, True):
        arrays = of_system(kind, system, layers, directions, reset_after=reset_after)
        back = write_stack(read_stack(arrays, system, kind), system)
        assert back.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(back[name], array)


@pytest.mark.parametrize(("kind", "system"), KNOWN)
def test_from_one_system_to_another_and_back(kind: str, system: str) -> None:
    """Exact where nothing is a sum; refused where the reset gate is elsewhere."""
    for _, target in [pair for pair in KNOWN if pair[0] == kind and pair[1] != system]:
        arrays = of_system(kind, system, 2, 2, reset_after=kind == "gru")
        cells = read_stack(arrays, system, kind, forget_bias=0.0)
        if layout_for(kind, target, reset_after=cells[0][0].reset_after).reset_after != cells[0][0].reset_after:
            with pytest.raises(WeightsError, match="another function"):
                write_stack(cells, target)
            continue
        there = write_stack(cells, target, forget_bias=0.0)
        back = write_stack(read_stack(there, target, kind, forget_bias=0.0), system, forget_bias=0.0)
        assert back.keys() == arrays.keys()
        if not sums_of_stack(cells, target, forget_bias=0.0):
            assert all(np.array_equal(back[name], array) for name, array in arrays.items()), target


def test_names_of_pytorch() -> None:
    arrays = of_system("gru", "pytorch", 2, 2, reset_after=True)
    parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    assert set(arrays) == {f"{part}_l{k}{end}" for part in parts for k in range(2) for end in ("", "_reverse")}
    named = {f"fw.rnn.{name}": array for name, array in arrays.items()}  # as in a state_dict
    found = read_stack(named, "pytorch")
    for name, array in write_stack(found, "pytorch").items():
        np.testing.assert_array_equal(array, arrays[name])


NAMES = {
    ("caffe2", 1): ["i2h_w", "layer_0/gates_t_b", "layer_1/i2h_b"],
    ("tensorflow", 1): ["multi_rnn_cell/cell_1/lstm_cell/kernel"],
    ("tensorflow", 2): ["stack_bidirectional_rnn/cell_0/bidirectional_rnn/bw/lstm_cell/bias"],
    ("keras", 2): ["bidirectional_1/backward_lstm_1/lstm_cell/recurrent_kernel"],
    ("returnn", 2): ["backward/1/W_re"],
}


@pytest.mark.parametrize(("system", "directions"), NAMES)
def test_names_of_a_stack(system: str, directions: int) -> None:
    assert set(NAMES[system, directions]) < set(of_system("lstm", system, 2, directions, reset_after=False))


def test_other_names_of_stacks() -> None:
    """Of Keras' stacked cells in TensorFlow 1, and of cells with scopes of their own in Caffe2."""
    keras = of_system("lstm", "keras", 2, 1, reset_after=False)
    named = {f"rnn/{name.rpartition('/')[2]}{'_1' * ('_1' in name)}": array for name, array in keras.items()}
    assert "rnn/recurrent_kernel_1" in named
    caffe2 = of_system("lstm", "caffe2", 2, 1, reset_after=False)
    inside = {
        f"multi/{'/lstm/'.join(name.rsplit('/', 1)) if '/' in name else f'lstm/{name}'}": a
        for name, a in caffe2.items()
    }
    assert {"multi/lstm/i2h_w", "multi/layer_0/lstm/gates_t_w"} < set(inside)
    for system, arrays, expected in (("keras", named, keras), ("caffe2", inside, caffe2)):
        found = write_stack(read_stack(arrays, system), system)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], array) for name, array in expected.items())


def test_a_cudnn_vector_of_a_stack() -> None:
    cells = read_stack(of_system("gru", "pytorch", 2, 2, reset_after=True), "pytorch")
    flat = [cell for layer in cells for cell in layer]
    found = from_vector(to_vector(flat), "gru", INPUTS, UNITS, layers=2, directions=2)
    np.testing.assert_array_equal(to_vector(found), to_vector(flat))
    np.testing.assert_array_equal(found[3].recurrent["update"], flat[3].recurrent["update"])


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_stack_of_bidirectional_layers_of_keras(kind: str) -> None:
    """Under the names that Keras gives the weights; our layer computes the same with them."""
    import keras  # noqa: PLC0415 - only here

    layer = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[kind]
    model = keras.Sequential(
        [keras.layers.Bidirectional(layer(UNITS, return_sequences=True)) for _ in range(2)], name="model"
    )
    model.build((None, None, INPUTS))
    generator = np.random.default_rng(1)
    model.set_weights([generator.normal(size=weight.shape).astype("float32") for weight in model.weights])
    cells = read_stack({weight.path: np.asarray(weight) for weight in model.weights}, "keras")
    assert [len(cell) for cell in cells] == [2, 2]
    unit = {"lstm": "lstm", "gru": "keras.gru"}[kind]
    layers = {"output": {"class": "rec", "unit": [unit, unit], "direction": "both", "n_out": 2 * UNITS, "from": "data"}}
    net = rl.compile(layers, {"data": {"dim": INPUTS}}, "eval")
    for scope, array in _below(write_stack(cells, "returnn" if kind == "lstm" else "keras"), kind).items():
        net.params[f"output/rec/{scope}"].assign(array)
    x = generator.normal(size=(2, 5, INPUTS)).astype("float32")
    found = net.run({"data": x}, {"data": [5, 5]}).layers["output"]
    value = np.moveaxis(np.asarray(found.value), found.dims.index("B"), 0)
    np.testing.assert_allclose(value, np.asarray(model(x)), rtol=1e-4, atol=1e-5)


def _below(arrays: Mapping[str, Array], kind: str) -> dict[str, Array]:
    """Keras' names of a stack of two layers as ours."""
    if kind == "lstm":
        return dict(arrays)
    found = {}
    for name, array in arrays.items():
        layer, direction, _, own = name.split("/")
        found[f"{direction.partition('_')[0]}/{int(layer.endswith('_1'))}/{own}"] = array
    return found


def test_layers_of_a_network() -> None:
    """As they were read they are written; what does not fit is told."""
    shapes = {"a/rec/W": (3, 16), "a/rec/W_re": (4, 16), "a/rec/b": (16,), "b/rec/lstm_cell/kernel": (7, 16)}
    params = {name: np.full(shape, 0.25) for name, shape in {**shapes, "b/rec/lstm_cell/bias": (16,)}.items()}
    for path in ("a", "b"):
        written = rl.weights.write_layer(rl.weights.read_layer(params, path), params, path)
        assert set(written) == {name for name in params if name.startswith(path)}
        assert all(np.array_equal(array, params[name]) for name, array in written.items())
    cells = rl.weights.read_layer(params, "b", forget_bias=0.5)
    np.testing.assert_array_equal(rl.weights.write_layer(cells, params, "a")["a/rec/b"][8:12], np.full(4, 0.75))
    with pytest.raises(WeightsError, match="'c' is no layers of LSTMs or GRUs; there are 'a', 'b'"):
        rl.weights.read_layer(params, "c")
    smaller = drawn("lstm", 1, 1, two_biases=False, reset_after=False)
    smaller = [[replace(smaller[0][0], input={gate: array[:2] for gate, array in smaller[0][0].input.items()})]]
    with pytest.raises(WeightsError, match=r"'a/rec/W' would have shape \[2, 16\], the parameter has \[3, 16\]"):
        rl.weights.write_layer(smaller, params, "a")


REFUSED: Mapping[str, tuple[Mapping[str, Array], str, str]] = {
    "no layout": ({}, "pytroch", r"no cells in the layout 'pytroch'\. Did you mean 'pytorch'\?"),
    "nothing": ({}, "keras", r"there is no cell \(lstm, gru\) of the layout 'keras', which has kernel"),
    "another array": (
        {**of_system("lstm", "pytorch", 1, 1, reset_after=False), "embedding.weight": np.zeros((5, 3))},
        "pytorch",
        r"'embedding.weight' \[5, 3\]: no part of a cell",
    ),
    "no stack": (
        {
            f"{scope}/{name}": array
            for scope in ("a", "b")
            for name, array in of_system("lstm", "keras", 1, 1, reset_after=False).items()
        },
        "keras",
        "'b/' reads 3 numbers, and the output of 'a/' has 4: they are no stack",
    ),
    "one direction": (
        {
            name: array
            for name, array in of_system("lstm", "pytorch", 2, 2, reset_after=False).items()
            if not name.endswith("l1_reverse")
        },
        "pytorch",
        "some have no other direction",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    arrays, system, message = REFUSED[name]
    with pytest.raises(WeightsError, match=message):
        read_stack(arrays, system)
