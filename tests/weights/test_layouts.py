"""Weights of one system as those of another: the same function, and back again the same numbers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
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
    sums,
    to_vector,
    write,
)
from returnn_lite.weights.gates import KINDS, Gates

Array = np.ndarray[Any, Any]
INPUTS, UNITS = 3, 4
X = np.random.default_rng(0).normal(size=(6, INPUTS))
PAIRS = [(kind, system) for kind, layouts in LAYOUTS.items() for system in layouts]


def drawn(kind: str, *, two_biases: bool, reset_after: bool = False, projection: int = 0, seed: int = 1) -> Gates:
    """Random weights, float32; an LSTM's with peepholes if it has a projection."""
    generator = np.random.default_rng(seed)

    def draw(*shape: int) -> Array:
        return generator.normal(size=shape).astype("float32")

    gates = KINDS[kind]
    more = {}
    if kind == "milstm":
        vectors = ("alpha", "beta_input", "beta_recurrent", "shift")
        more = {f"{name}/{gate}": draw(UNITS) for name in vectors for gate in gates}
    if projection:
        more = {f"peephole_{gate}": draw(UNITS) for gate in ("input", "forget", "output")}
        more["projection"] = draw(UNITS, projection)
    return Gates(
        kind,
        {gate: draw(INPUTS, UNITS) for gate in gates},
        {gate: draw(projection or UNITS, UNITS) for gate in gates},
        {gate: draw(UNITS) for gate in gates},
        {gate: draw(UNITS) for gate in gates} if two_biases else {},
        reset_after=reset_after,
        more=more,
    )


def of_layout(kind: str, system: str) -> dict[str, Array]:
    """Random arrays of a layout."""
    layout = layout_of(kind, system)
    return write(
        drawn(kind, two_biases=layout.has_two(layout.groups[-1]), reset_after=layout.reset_after),
        layout,
        0.0,
    )


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def outputs(gates: Gates, x: Array = X) -> Array:
    """h after each frame, by the formulas, in float64."""
    c, h = np.zeros(gates.units), np.zeros(gates.outputs)
    more = {name: array.astype(float) for name, array in gates.more.items()}
    found = []
    for frame in x:
        u = {g: frame @ w.astype(float) + gates.bias.get(g, 0) for g, w in gates.input.items()}
        p = {g: h @ w.astype(float) + gates.recurrent_bias.get(g, 0) for g, w in gates.recurrent.items()}
        if gates.kind == "gru":
            reset, update = (sigmoid(u[g] + p[g]) for g in ("reset", "update"))
            before = (reset * h) @ gates.recurrent["candidate"].astype(float)
            seen = reset * p["candidate"] if gates.reset_after else before
            h = update * h + (1 - update) * np.tanh(u["candidate"] + seen)
        else:
            s = {g: integrated(more, g, u[g], p[g]) if gates.kind == "milstm" else u[g] + p[g] for g in u}
            i = sigmoid(s["input"] + more.get("peephole_input", 0) * c)
            f = sigmoid(s["forget"] + gates.forget_bias + more.get("peephole_forget", 0) * c)
            c = f * c + i * np.tanh(s["cell"])
            h = sigmoid(s["output"] + more.get("peephole_output", 0) * c) * np.tanh(c)
            h = h @ more["projection"] if "projection" in more else h
        found.append(h)
    return np.array(found)


def integrated(more: Mapping[str, Array], gate: str, u: Array, p: Array) -> Array:
    """Wu et al. 2016."""
    alpha, one, two = (more[f"{name}/{gate}"] for name in ("alpha", "beta_recurrent", "beta_input"))
    b = more.get(f"shift/{gate}", 0)
    return alpha * u * p + one * p + two * u + b


@pytest.mark.parametrize(("kind", "system"), PAIRS)
def test_what_is_read_is_written_bit_for_bit(kind: str, system: str) -> None:
    arrays = of_layout(kind, system)
    back = write(read(arrays, layout_of(kind, system)), layout_of(kind, system))
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)


@pytest.mark.parametrize("kind", KINDS)
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


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_is_exact_unless_something_is_a_sum(kind: str) -> None:
    """All pairs. `sums` names what is not exact, and then that differs at most by its rounding."""
    exact = 0
    for source, target in itertools.permutations(LAYOUTS[kind], 2):
        have, want = layout_of(kind, source), layout_of(kind, target)
        if have.reset_after != want.reset_after:
            continue
        arrays = of_layout(kind, source)
        if not any(map(have.has_two, have.groups)):
            arrays |= {name: np.where(array > 0, -0.0, array) for name, array in arrays.items() if array.ndim == 1}
        gates = read(arrays, have)
        back = convert(convert(arrays, kind, source, target), kind, target, source)
        assert {name: array.shape for name, array in back.items()} == {name: a.shape for name, a in arrays.items()}
        differ = {name for name in arrays if back[name].tobytes() != arrays[name].tobytes()}
        assert differ <= {*have.biases, *(have.more.values() if kind == "milstm" else ())}
        assert not differ or sums(gates, want), f"{source} {target}"
        exact += not differ
    assert exact > 0


def test_what_has_to_be_a_sum_is_told() -> None:
    two = drawn("lstm", two_biases=True)
    assert sums(two, layout_of("lstm", "pytorch")) == []
    assert sums(two, layout_of("lstm", "keras")) == ["both biases are one sum"]
    one = drawn("lstm", two_biases=False)
    assert sums(one, layout_of("lstm", "pytorch")) == sums(one, layout_of("lstm", "returnn")) == []
    (told,) = sums(one, layout_of("lstm", "tensorflow"))
    assert "has -1 added" in told
    assert sums(one, layout_of("lstm", "tensorflow"), forget_bias=0.0) == []
    assert sums(drawn("milstm", two_biases=False), layout_of("milstm", "returnn"))
    added = replace(two, forget_bias=1.0)
    (told,) = sums(added, layout_of("lstm", "caffe2"))
    assert "has 1 added" in told


@pytest.mark.parametrize("source", ["returnn", "returnn_low_memory", "tensorflow"])
@pytest.mark.parametrize("target", ["returnn", "returnn_low_memory", "tensorflow"])
def test_peepholes_and_a_projection(source: str, target: str) -> None:
    have, want = layout_of("lstm", source), layout_of("lstm", target)
    arrays = write(drawn("lstm", two_biases=False, projection=2), have)
    np.testing.assert_allclose(
        outputs(read(convert(arrays, "lstm", source, target), want)), outputs(read(arrays, have)), rtol=1e-5
    )
    assert [cell.system for cell in stored_cells({name: array.shape for name, array in arrays.items()})] == [source]


@pytest.mark.parametrize("system", ["pytorch", "caffe2", "keras", "cudnn"])
def test_who_has_no_peepholes_refuses_them(system: str) -> None:
    gates = drawn("lstm", two_biases=False, projection=2)
    with pytest.raises(WeightsError, match="peephole_forget, peephole_input, peephole_output"):
        to_vector([gates]) if system == "cudnn" else write(gates, layout_of("lstm", system))


def test_a_projection_in_pytorch() -> None:
    """weight_hr [p, n]; the weights of h have as many columns as it has numbers."""
    gates = drawn("lstm", two_biases=True, projection=2)
    gates = replace(gates, more={"projection": gates.more["projection"]})
    arrays = write(gates, layout_of("lstm", "pytorch"))
    assert {name: array.shape for name, array in arrays.items()} == {
        "weight_ih_l0": (16, 3),
        "weight_hh_l0": (16, 2),
        "bias_ih_l0": (16,),
        "bias_hh_l0": (16,),
        "weight_hr_l0": (2, 4),
    }
    np.testing.assert_allclose(outputs(read(arrays, layout_of("lstm", "pytorch"))), outputs(gates), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_cells_without_a_bias(kind: str) -> None:
    """They have none in other systems, unless something is added to it; zeros are none."""
    for source, target in itertools.permutations(LAYOUTS[kind], 2):
        have, want = layout_of(kind, source), layout_of(kind, target)
        if have.reset_after == want.reset_after:
            gates = drawn(kind, two_biases=False, reset_after=have.reset_after)
            gates = replace(gates, bias={}, more={name: a for name, a in gates.more.items() if "shift" not in name})
            arrays = write(gates, have, forget_bias=0.0)
            assert not set(arrays) & set(have.biases)
            there = write(read(arrays, have, forget_bias=0.0), want, forget_bias=0.0)
            assert not set(there) & set(want.biases)
            back = write(read(there, want, forget_bias=0.0), have, forget_bias=0.0)
            assert all(np.array_equal(back[name], array) for name, array in arrays.items())
            whole = gates.with_bias()
            np.testing.assert_array_equal(outputs(whole), outputs(gates))
            assert set(whole.without_bias().more) == set(gates.more) and not whole.without_bias().has_bias
    one = replace(drawn(kind, two_biases=False), forget_bias=1.0)
    with pytest.raises(WeightsError, match="there is a bias that is not 0"):
        one.without_bias()


def test_what_is_added_is_a_bias() -> None:
    gates = replace(drawn("lstm", two_biases=False), bias={}, forget_bias=1.0)
    for system in LAYOUTS["lstm"]:
        layout = layout_of("lstm", system)
        np.testing.assert_allclose(outputs(read(write(gates, layout), layout)), outputs(gates), rtol=1e-12)
    vector = to_vector([gates])
    np.testing.assert_allclose(outputs(from_vector(vector, "lstm", INPUTS, UNITS)[0]), outputs(gates), rtol=1e-12)


@pytest.mark.parametrize("two_biases", [False, True])
def test_what_is_added_to_a_multiplicative_lstm_stands_in_its_own_bias(two_biases: bool) -> None:
    gates = replace(drawn("milstm", two_biases=two_biases), forget_bias=1.5)
    for system in LAYOUTS["milstm"]:
        layout = layout_of("milstm", system)
        np.testing.assert_allclose(outputs(read(write(gates, layout), layout)), outputs(gates), rtol=1e-4, atol=1e-6)


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


@pytest.mark.parametrize("system", ["tensorflow_block", "tensorflow_block_v2"])
def test_operations_of_tensorflow(system: str) -> None:
    """BlockLSTM, which adds a forget bias of 1, and BlockLSTMV2, with peepholes."""
    import tensorflow as tf  # noqa: PLC0415 - only here

    gates = drawn("lstm", two_biases=False, projection=2)
    gates = replace(drawn("lstm", two_biases=False), more={k: v for k, v in gates.more.items() if k != "projection"})
    arrays = write(gates, layout_of("lstm", system), 0.0)
    zeros = tf.zeros([1, UNITS])
    options = {"forget_bias": 1.0} if system == "tensorflow_block" else {}
    call = tf.raw_ops.BlockLSTM if system == "tensorflow_block" else tf.raw_ops.BlockLSTMV2
    found = call(
        seq_len_max=tf.constant(len(X), tf.int64),
        x=X[:, None].astype("float32"),
        cs_prev=zeros,
        h_prev=zeros,
        cell_clip=-1.0,
        use_peephole=True,
        **arrays,
        **options,
    )
    expected = outputs(read(arrays, layout_of("lstm", system)))
    np.testing.assert_allclose(np.asarray(found.h)[:, 0], expected, rtol=1e-5, atol=1e-6)


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
    "missing": (lambda: read({"W": np.zeros((3, 16))}, layout_of("lstm", "returnn")), "there is no 'W_re'"),
    "a bias": (
        lambda: read(
            {"i2h_w": np.zeros((16, 3)), "gates_t_w": np.zeros((16, 4)), "i2h_b": np.zeros(16)},
            layout_of("lstm", "caffe2"),
        ),
        "there is no 'gates_t_b'",
    ),
    "no matrix": (
        lambda: read({"W": np.zeros(16), "W_re": np.zeros((4, 16)), "b": np.zeros(16)}, layout_of("lstm", "returnn")),
        r"'W' has shape \[16\] and is no matrix",
    ),
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
