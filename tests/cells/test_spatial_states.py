"""Cells whose states have spatial dims: initial and last states, stacks and wrappers, loops, masks, search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from tests.cells.conv_lstms import LENGTHS, Array, below, compiled, data, of_keras, of_tensorflow, source

CONV: dict[str, Any] = {"class": "conv_lstm", "kernel_size": [3, 2]}
SMALLER: dict[str, Any] = {"class": "ConvLSTM2D", "kernel_size": 2}


def output_of(layers: dict[str, Any], **options: Any) -> tuple[Array, Any]:
    """The output and the network."""
    net = compiled(layers, data(2), **options)
    return net.run({"data": source(2)}, {"data": LENGTHS}).layers["output"].value, net


def rec(unit: Any, **options: Any) -> dict[str, Any]:
    return {"class": "rec", "from": "data", "unit": unit, "n_out": 3, **options}


def in_loop(unit: Any, **options: Any) -> dict[str, Any]:
    step = {"class": "rnn_cell", "from": "data:source", "unit": unit, "n_out": 3, **options}
    return {"class": "rec", "from": "data", "unit": {"output": step}}


def test_a_stack_is_convolved_cell_by_cell() -> None:
    """The last has fewer places than its source; the first is an LSTM at each place."""
    output, net = output_of({"output": rec(["gru", {**CONV, "units": 4}, {**SMALLER, "strides": [2, 1]}])})
    assert output.shape == (2, 5, 2, 2, 3)
    shapes = {name: value.shape for name, value in below(net).items()}
    assert shapes["1/kernel"] == (3, 2, 3 + 4, 16)
    assert shapes["2/recurrent_kernel"] == (2, 2, 3, 12)
    layers = {
        "a": {"class": "rec", "from": "data", "unit": "gru", "n_out": 3},
        "b": {"class": "rec", "from": "a", "unit": CONV, "n_out": 4},
        "output": {"class": "rec", "from": "b", "unit": {**SMALLER, "strides": [2, 1]}, "n_out": 3},
    }
    one_by_one = compiled(layers, data(2))
    for path, parameter in one_by_one.params.items():
        layer, _, name = path.partition("/rec/")
        parameter.assign(below(net)[f"{['a', 'b', 'output'].index(layer)}/{name}"])
    expected = one_by_one.run({"data": source(2)}, {"data": LENGTHS}).layers["output"].value
    np.testing.assert_allclose(output, expected, rtol=1e-9, atol=1e-9)


NESTED: dict[str, Any] = {
    "stack": [CONV, SMALLER],
    "residual": [CONV, {"class": "residual", "cell": CONV}, SMALLER],
    "residual of a stack": {"class": "residual", "cell": [CONV, {**CONV, "units": 2}]},
    "highway, projections": [
        {"class": "highway", "cell": {**CONV, "units": 2}},
        {"class": "input_projection", "num_proj": 5, "cell": {**SMALLER, "units": 4}},
        {"class": "output_projection", "output_size": 3, "cell": {**CONV, "units": 4}},
    ],
    "dropout": {"class": "dropout", "cell": SMALLER, "output_dropout": 0.3, "state_dropout": 0.2},
    "skip in a stack": [{**CONV, "skip_connection": True, "units": 3}, CONV],
    "lstm on top": [CONV, {"class": "lstm"}],
}


@pytest.mark.parametrize("name", NESTED)
def test_nested_cells_are_the_same_in_all_ways(name: str) -> None:
    size = {"n_out": 2} if name == "residual of a stack" else {}
    expected, _ = output_of({"output": rec(NESTED[name], **size)})
    for optimize in (True, False):
        found, _ = output_of({"output": in_loop(NESTED[name], **size)}, optimize=optimize)
        np.testing.assert_allclose(np.moveaxis(found, -2, 1)[0], expected[0], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(np.moveaxis(found, -2, 1)[1, :3], expected[1, :3], rtol=1e-9, atol=1e-9)


def test_it_runs_backwards() -> None:
    output, net = output_of({"output": rec(CONV, direction=-1)})
    for b, length in enumerate(LENGTHS):
        expected = of_tensorflow(source(2)[b, :length][::-1], below(net))[::-1]
        np.testing.assert_allclose(output[b, :length], expected, rtol=1e-9, atol=1e-9)


def last_of(init: Any, **layers: Any) -> Array:
    """h after the last frame, [B, rows, columns, n], from an initial state."""
    cell = rec(CONV, initial_state=init)
    last = {"class": "get_last_hidden_state", "from": "cell", "key": "h"}
    return output_of({**layers, "cell": cell, "output": last})[0]


def test_initial_states() -> None:
    """One of other places in the same number, one that is the same at all places, and numbers."""
    assert last_of(None).shape == (2, 4, 3, 3)
    half = {"class": "constant", "value": 0.5, "shape": [3], "with_batch_dim": True}
    whole = {"class": "constant", "value": 0.5, "shape": [4, 3, 3], "with_batch_dim": True}
    expected = last_of(0.5)
    assert np.abs(expected - last_of(None)).max() > 0.01
    np.testing.assert_allclose(last_of("half", half=half), expected, rtol=1e-9)
    np.testing.assert_allclose(last_of("whole", whole=whole), expected, rtol=1e-9)
    both = last_of({"h": "whole", "c": 0.5}, whole=whole)
    np.testing.assert_allclose(both, expected, rtol=1e-9)


def test_an_initial_state_is_where_it_was() -> None:
    """Dims in the order of declaration, whatever they are called; those of the state itself by what they are."""
    first = np.random.default_rng(9).normal(size=(2, 4, 3, 3))
    entries = {**data(2), "h": {"shape": (4, 3, 3), "dim": 3, "time_dim_axis": None}}
    net = compiled({"output": rec(CONV, initial_state={"h": "data:h"})}, entries)
    output = net.run({"data": source(2), "h": first}, {"data": LENGTHS}).layers["output"].value
    for b, length in enumerate(LENGTHS):
        expected = of_tensorflow(source(2)[b, :length], below(net), h=first[b])
        np.testing.assert_allclose(output[b, :length], expected, rtol=1e-9, atol=1e-9)


def test_learned_and_kept_initial_states() -> None:
    _, net = output_of({"output": rec(CONV, initial_state="var")})
    assert net.params["output/rec/initial_h"].shape == net.params["output/rec/initial_c"].shape == (4, 3, 3)
    net = compiled({"output": rec(CONV, initial_state="keep_over_epoch")}, data(2))
    first, second = (net.run({"data": source(2)}, {"data": LENGTHS}).layers["output"].value for _ in range(2))
    expected = of_tensorflow(np.concatenate([source(2)[0]] * 2), below(net))
    np.testing.assert_allclose(first[0], expected[:5], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(second[0], expected[5:], rtol=1e-9, atol=1e-9)


DYNAMIC = {"data": {"shape": (None, None, None, 2), "dim": 2}}


@pytest.mark.parametrize("unit", [CONV, {**SMALLER, "strides": [2, 1], "padding": "same"}, SMALLER])
def test_dynamic_places(unit: dict[str, Any]) -> None:
    """Places beyond a sequence's are as little there as those beyond its borders."""
    net = compiled({"output": rec(unit)}, DYNAMIC)
    lengths = {"data": LENGTHS, "data:time1": [4, 3], "data:time2": [3, 2]}
    output = net.run({"data": source(2)}, lengths).layers["output"].value
    for b, (time, rows, columns) in enumerate(zip(*lengths.values(), strict=True)):
        x = source(2)[b, :time, :rows, :columns]
        options = {"same": unit.get("padding") == "same", "strides": unit.get("strides", (1, 1))}
        expected = of_tensorflow(x, below(net)) if unit is CONV else of_keras(x, below(net), **options)
        found = output[b][tuple(slice(n) for n in expected.shape)]
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


LOOPS: dict[str, dict[str, Any]] = {
    "sees its own output": {
        "seen": {"class": "copy", "from": ["data:source", "prev:output"]},
        "output": {"class": "rnn_cell", "from": "seen", "unit": CONV, "n_out": 3},
    },
    "under a mask": {
        "mean": {"class": "reduce", "mode": "mean", "axis": ["spatial", "F"], "from": "data:source"},
        "mask": {"class": "compare", "kind": "greater", "value": 0.0, "from": "mean"},
        "output": {
            "class": "masked_computation",
            "mask": "mask",
            "from": "data:source",
            "unit": {"class": "rnn_cell", "unit": [{**CONV, "units": 2}, SMALLER], "n_out": 3},
        },
    },
}


@pytest.mark.parametrize("name", LOOPS)
def test_in_loops(name: str) -> None:
    layers = {"output": {"class": "rec", "from": "data", "unit": LOOPS[name]}}
    optimised, _ = output_of(layers)
    plain, _ = output_of(layers, optimize=False)
    np.testing.assert_allclose(optimised, plain, rtol=1e-9, atol=1e-9)
    if name == "under a mask":
        means = source(2).mean((2, 3, 4)) > 0
        real = [t for t in range(1, LENGTHS[0]) if not means[0, t]]
        assert real
        for t in real:
            np.testing.assert_array_equal(optimised[0, ..., t, :], optimised[0, ..., t - 1, :])


def test_in_search() -> None:
    """Hypotheses carry their states along: labels go into the cell at all places."""
    loop = {
        "words": {"class": "linear", "from": "prev:output", "n_out": 2, "with_bias": False},
        "seen": {"class": "combine", "kind": "add", "from": ["base:picture", "words"]},
        "cell": {"class": "rnn_cell", "from": "seen", "unit": CONV, "n_out": 3},
        "pooled": {"class": "reduce", "mode": "mean", "axis": ["spatial"], "from": "cell"},
        "scores": {"class": "softmax", "from": "pooled", "n_out": 5},
        "output": {"class": "choice", "from": "scores", "target": "classes", "beam_size": 3, "initial_output": 0},
        "end": {"class": "compare", "kind": "equal", "value": 0, "from": "output"},
    }
    layers = {
        "picture": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"},
        "output": {"class": "rec", "from": [], "unit": loop, "max_seq_len": 4, "target": "classes"},
    }
    entries = {**data(2), "classes": {"dim": 5, "sparse": True}}
    found = []
    for optimize in (True, False):
        net = compiled(layers, entries, "search", optimize=optimize)
        found.append(net.run({"data": source(2)}, {"data": LENGTHS}).layers["output"].value)
    np.testing.assert_array_equal(*found)


REFUSED: dict[str, tuple[Any, str]] = {
    "fewer dims": ({"class": "conv1dlstm", "kernel_size": 3}, r"kernel of 1 sizes .* 2 spatial dims \[data:static1"),
    "sizes": ({"class": "conv_lstm", "conv_ndims": 2, "kernel_size": [1, 2, 3]}, "kernel_size has 3 numbers for 2"),
    "no size": ({"class": "conv_lstm", "kernel_size": [0, 2]}, "kernel_size has numbers of at least 1, not 0"),
    "four dims": ({"class": "conv_lstm", "kernel_size": [1, 1, 1, 1]}, "one to three spatial dims, not 4"),
    "strides": ({**SMALLER, "strides": [1, 2, 1]}, "strides has 3 numbers for 2"),
    "dilation": ({**SMALLER, "dilation_rate": 0}, "dilation_rate has numbers of at least 1"),
    "input shape": ({**CONV, "input_shape": [3, 4, 2]}, r"input_shape is \(3, 4, 2\), but the source is"),
    "skip": ({**CONV, "skip_connection": True, "units": 3}, "the unit has 5 features, but n_out is 3"),
    "initializers": ({**CONV, "initializers": "zeros"}, "unit.initializers: .* Give the layer forward_weights_init"),
    "residual": (
        [CONV, {"class": "residual", "cell": [CONV, SMALLER]}],
        "needs an output with the spatial dims of the source",
    ),
    "attention": (
        {"class": "tf.AttentionCellWrapper", "attn_length": 2, "cell": SMALLER},
        "the memory is of outputs without spatial dims",
    ),
    "padding": ({**SMALLER, "padding": "causal"}, "unit.padding: expected"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    unit, message = REFUSED[name]
    config = {"network": {"output": rec(unit)}, "extern_data": data(2), "behavior_version": 21}
    with pytest.raises(rl.ConfigError, match=message):
        rl.check(config, "eval")


def test_sources_that_no_kernel_goes_over_are_refused() -> None:
    labels = {"data": {"shape": (None, 4), "dim": 7, "sparse": True}}
    config = {"network": {"output": rec({"class": "ConvLSTM1D", "kernel_size": 2})}, "behavior_version": 21}
    with pytest.raises(rl.ConfigError, match="a convolution needs a source with features"):
        rl.check({**config, "extern_data": labels}, "eval")
    layers = {"output": rec(CONV, initial_state="var")}
    with pytest.raises(rl.ConfigError, match=r"'.*initial_h' would have the dim data:time1"):
        rl.check({"network": layers, "extern_data": DYNAMIC, "behavior_version": 21}, "eval")
    layers = {"a": rec(SMALLER), "output": rec(CONV, initial_state="a")}
    with pytest.raises(rl.ConfigError, match=r"the state 'h' of 'output' from 'a' has the dims \[.*\(3\), .*\(2\)\]"):
        rl.check({"network": layers, "extern_data": data(2), "behavior_version": 21}, "eval")


@pytest.mark.tensorflow
def test_frames_of_three_spatial_dims_run_backwards() -> None:
    """TensorFlow's kernel for reversed sequences takes five dims; each sequence backwards is the reversed one."""
    unit = {"class": "conv3dlstm", "kernel_size": 2, "units": 2}
    layers = {
        "forwards": {"class": "rec", "from": "data", "unit": unit},
        "output": {"class": "rec", "from": "data", "unit": unit, "direction": -1, "reuse_params": "forwards"},
        "both": {"class": "copy", "from": ["forwards", "output"], "is_output_layer": True},
    }
    known = {"data": {"shape": (None, 2, 1, 2, 1)}}
    net = rl.compile(layers, known, "eval", behavior_version=21)
    x = np.random.default_rng(1).normal(size=(2, 3, 2, 1, 2, 1)).astype("float32")
    for length in (3, 2):
        lengths = {"data": [length, length - 1]}
        found = np.asarray(net.run({"data": x}, lengths).layers["output"].value)[0, :length]
        turned = np.asarray(net.run({"data": x[:, :length][:, ::-1]}, lengths).layers["forwards"].value)[0, :length]
        np.testing.assert_allclose(found, turned[::-1], rtol=1e-5, atol=1e-6)
