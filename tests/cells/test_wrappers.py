"""Cells around cells, in any nesting: against NumPy on single sequences, in each way of running them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import returnn_lite as rl
from returnn_lite.compiler import build, optimized
from returnn_lite.ir import walk
from returnn_lite.tf.devices import DeviceError
from returnn_lite.verification.comparison import compare
from tests.cells.composition import outputs
from tests.cells.probing import LENGTHS, SIZE, SOURCE, assert_is, compiled, first_values, output_of, refusal, shapes
from tests.commit import takes_part

N = 3
RNN: dict[str, Any] = {"class": "basicrnn", "units": SIZE}
ALONG: dict[str, Any] = {"class": "timefrequencylstm", "feature_size": 2, "frequency_skip": 1, "units": 2}
LSTM: dict[str, Any] = {"class": "standardlstm", "units": SIZE}
DROPOUT = {"input_dropout": 0.5, "output_dropout": 0.5, "state_dropout": 0.5}


def around(name: str, cell: Any = LSTM, **options: Any) -> dict[str, Any]:
    return {"class": name, "cell": cell, **options}


UNITS: dict[str, Any] = {
    "residual": around("residual"),
    "residual with a factor": around("residual", residual_fn="x + 0.5 * y"),
    "residual with a function": around("residual", residual_fn="tf.maximum(x, y)"),
    "highway": around("highway"),
    "highway with two gates": around("highway", couple_carry_transform_gates=False),
    "input projection": around("inputprojection", projection=6),
    "input projection to the size of the cell": around("inputprojection", projection=SIZE, activation="relu"),
    "output projection": around("outputprojection", units=N),
    "output projection of the same size": around("outputprojection", units=SIZE, activation="relu"),
    "device": around("device", device="/cpu:0"),
    "attention": around("intraattention", attn_length=3),
    "attention to one output": around("intraattention", attn_length=1),
    "attention of other sizes": around("intraattention", attn_length=2, attn_size=2, attn_vec_size=5, input_size=6),
    "attention of a stack": around("intraattention", [RNN, LSTM], attn_length=2),
    "attention in a stack": [RNN, around("intraattention", attn_length=2), {"class": "basicrnn", "units": N}],
    "attention of an attention": around("intraattention", around("intraattention", RNN, attn_length=2), attn_length=3),
    "attention of a cell along frequency": around("intraattention", ALONG, attn_length=2),
    "attention of its own size of a cell along frequency": around("intraattention", ALONG, attn_length=2, attn_size=3),
    "all around one": around(
        "outputprojection",
        around("residual", around("highway", around("inputprojection", around("dropout"), projection=2))),
        units=N,
    ),
    "a stack of wrappers": [around("highway", RNN), around("residual"), around("outputprojection", RNN, units=N)],
    "wrappers around a stack": around("residual", around("highway", [RNN, [LSTM, around("residual", RNN)]])),
    "projections in each other": around(
        "inputprojection", around("inputprojection", around("outputprojection", units=N), projection=2), projection=5
    ),
}


@pytest.mark.parametrize("name", UNITS)
def test_formula(name: str) -> None:
    assert_is(UNITS[name], lambda weights, frames: outputs(UNITS[name], weights, frames))


@pytest.mark.parametrize("name", [name for name in UNITS if takes_part(name, 4)])
def test_optimised_is_plain_with_gradients(name: str) -> None:
    step = {"class": "rnn_cell", "from": "data:source", "unit": UNITS[name]}
    layers = {
        "whole": {"class": "rec", "from": "data", "unit": UNITS[name]},
        "back": {"class": "rec", "from": "data", "unit": UNITS[name], "direction": -1},
        "steps": {"class": "rec", "from": "data", "unit": {"output": step}},
        "output": {"class": "copy", "from": ["whole", "back", "steps"], "loss": "as_is"},
    }
    config = {"network": layers, "extern_data": {"data": {"dim": SIZE}}, "behavior_version": 21}
    assert {name: one for name, one in compare(config, "train", 3).items() if one.is_one} == {}


MASKED = (UNITS["attention in a stack"], UNITS["all around one"])


@pytest.mark.parametrize("unit", MASKED, ids=str)
def test_under_a_mask_only_its_frames_are_there(unit: Any) -> None:
    step = {"class": "rnn_cell", "from": "data", "unit": unit}
    body = {
        "output": {"class": "masked_computation", "mask": "chosen", "from": "data:source", "unit": step},
        "chosen": {"class": "eval", "from": "data:source", "eval": "tf.reduce_sum(source(0), axis=-1) > 0"},
    }
    layers = {"output": {"class": "rec", "from": "data", "unit": body}}
    config = {"network": layers, "extern_data": {"data": {"dim": SIZE}}, "behavior_version": 21}
    assert {name: one for name, one in compare(config, "eval", 3).items() if one.is_one} == {}
    net = rl.compile(layers, {"data": {"dim": SIZE}}, "eval", behavior_version=21, dtype="float64")
    for key, parameter in net.params.items():
        parameter.assign(np.random.default_rng(len(key)).normal(size=parameter.shape))
    weights = {key.rpartition("/rec/")[2]: np.asarray(value.numpy()) for key, value in net.params.items()}
    found = output_of(net)
    for b, length in enumerate(LENGTHS):
        chosen = [t for t in range(length) if SOURCE[b, t].sum() > 0]
        if chosen:
            expected = outputs(unit, weights, SOURCE[b, chosen])
            np.testing.assert_allclose(found[b, chosen], expected, 1e-9, 1e-9)


@pytest.mark.parametrize("name", ["attention in a stack", "a stack of wrappers", "projections in each other"])
def test_search(name: str) -> None:
    body = {
        "label": {"class": "linear", "activation": None, "from": "prev:output", "n_out": SIZE},
        "cell": {"class": "rnn_cell", "from": ["label", "data:source"], "unit": [RNN, UNITS[name]]},
        "prob": {"class": "softmax", "from": "cell", "n_out": 5},
        "output": {"class": "choice", "from": "prob", "beam_size": 3, "target": "classes", "initial_output": 0},
    }
    layers = {"output": {"class": "rec", "from": "data", "unit": body, "target": "classes"}}
    data = {"data": {"dim": SIZE}, "classes": {"dim": 5, "sparse": True, "same_dim_tags_as": {"t": "data"}}}
    config = {"network": layers, "extern_data": data, "behavior_version": 21}
    for mode in ("search", "train"):
        assert {key: one for key, one in compare(config, mode, 3).items() if one.is_one} == {}, mode


def test_embedding() -> None:
    unit = {"class": "embedding", "cell": RNN, "embedding_size": 2}
    for declared, classes in (({"dim": 6, "sparse": True}, None), ({"dim": 1, "dtype": "int32"}, 6)):
        own = unit if classes is None else {**unit, "embedding_classes": classes}
        layers = {"output": {"class": "rec", "from": "data", "unit": own}}
        net = rl.compile(layers, {"data": declared}, "eval", behavior_version=21, dtype="float64")
        rows = np.asarray(net.params["output/rec/embedding"].numpy())
        assert rows.shape == (6, 2)
        labels = np.array([[1, 5, 0], [2, 2, 0]])
        source = labels if classes is None else labels[..., None]
        found = net.run({"data": source}, {"data": [3, 2]}).layers["output"].value
        cell = {key.removeprefix("output/rec/cell/"): np.asarray(value.numpy()) for key, value in net.params.items()}
        for b, length in enumerate((3, 2)):
            expected = outputs(RNN, cell, rows[labels[b, :length]])
            np.testing.assert_allclose(found[b, :length], expected, 1e-9, 1e-9)


def test_first_values() -> None:
    found = first_values({"class": "highway", "cell": LSTM, "couple_carry_transform_gates": False})
    np.testing.assert_array_equal(found["carry_b"], 1.0)
    np.testing.assert_array_equal(found["transform_b"], -1.0)
    bound = np.sqrt(6 / (2 * SIZE))
    assert 0 < np.abs(found["carry_w"]).max() <= bound
    found = first_values({"class": "highway", "cell": LSTM, "carry_bias_init": 0.25})
    np.testing.assert_array_equal(found["carry_b"], 0.25)
    layer = {"class": "rec", "from": "data", "unit": around("embedding", embedding_size=50)}
    for init, least, most in ((None, 1.6, 3**0.5), (0.5, 0.5, 0.5)):
        given = layer if init is None else {**layer, "forward_weights_init": init}
        net = rl.compile({"output": given}, {"data": {"dim": 30, "sparse": True}}, "train", behavior_version=21)
        assert least <= np.abs(net.params["output/rec/embedding"].numpy()).max() <= most


def test_the_first_values_of_an_embedding_by_its_own_option() -> None:
    layer = {"class": "rec", "from": "data", "unit": around("embedding", embedding_size=2, initializer=0.25)}
    net = rl.compile({"output": layer}, {"data": {"dim": 3, "sparse": True}}, "train", behavior_version=21)
    np.testing.assert_array_equal(net.params["output/rec/embedding"].numpy(), 0.25)


def test_around_a_cell_of_several_sources() -> None:
    phased = {"class": "phasedlstm", "units": SIZE}
    data = {"time": {"dim": 1}, "data": {"dim": SIZE, "same_dim_tags_as": {"t": "time"}}}

    def config(unit: Any) -> dict[str, Any]:
        layer = {"class": "rec", "from": ["data:time", "data"], "unit": unit, "loss": "as_is"}
        return {"network": {"output": layer}, "extern_data": data, "behavior_version": 21}

    unit = around("outputprojection", around("dropout", around("device", phased, device="/cpu:0"), **DROPOUT), units=N)
    assert {name: one for name, one in compare(config(unit), "train", 3).items() if one.is_one} == {}
    with pytest.raises(rl.ConfigError, match="'residual' is for cells of one source; that inside reads time, x"):
        rl.check(config(around("residual", phased)), "train")


def test_parameters() -> None:
    rnn = {"cell/basic_rnn_cell/bias": (SIZE,)}
    assert shapes(around("intraattention", RNN, attn_length=2, attn_size=2, attn_vec_size=5, input_size=6)) == {
        "kernel": (SIZE + 2, 6),
        "bias": (6,),
        "cell/basic_rnn_cell/kernel": (6 + SIZE, SIZE),
        **rnn,
        "attention/attn_w": (2, 5),
        "attention/attn_v": (5,),
        "attention/kernel": (SIZE, 5),
        "attention/bias": (5,),
        "attn_output_projection/kernel": (SIZE + 2, 2),
        "attn_output_projection/bias": (2,),
    }
    assert shapes(around("outputprojection", RNN, units=N)) == {
        "cell/basic_rnn_cell/kernel": (2 * SIZE, SIZE),
        **rnn,
        "kernel": (SIZE, N),
        "bias": (N,),
    }
    assert shapes(around("highway", RNN)) == {
        "carry_w": (SIZE, SIZE),
        "carry_b": (SIZE,),
        "cell/basic_rnn_cell/kernel": (2 * SIZE, SIZE),
        **rnn,
    }


SAME: dict[str, tuple[Any, Any]] = {
    "MultiRNNCell": (
        {"class": "tf.nn.rnn_cell.MultiRNNCell", "cells": [LSTM, RNN], "state_is_tuple": False},
        [LSTM, RNN],
    ),
    "StackedRNNCells": ({"class": "StackedRNNCells", "cells": [RNN, RNN], "reverse_state_order": True}, [RNN, RNN]),
    "InputProjectionWrapper": (
        {"class": "tf.contrib.rnn.InputProjectionWrapper", "cell": LSTM, "num_proj": 2},
        around("inputprojection", projection=2),
    ),
    "OutputProjectionWrapper": (
        {"class": "tf.contrib.rnn.OutputProjectionWrapper", "cell": LSTM, "output_size": 2},
        around("outputprojection", units=2),
    ),
    "AttentionCellWrapper": (
        {"class": "tf.contrib.rnn.AttentionCellWrapper", "cell": LSTM, "attn_length": 2, "state_is_tuple": False},
        around("intraattention", attn_length=2),
    ),
    "HighwayWrapper": ({"class": "tf.contrib.rnn.HighwayWrapper", "cell": LSTM}, around("highway")),
    "ResidualWrapper": ({"class": "tf.nn.RNNCellResidualWrapper", "cell": LSTM}, around("residual")),
    "DeviceWrapper": ({"class": "tf.nn.RNNCellDeviceWrapper", "cell": LSTM, "device": "/cpu:0"}, LSTM),
}


@pytest.mark.parametrize("name", SAME)
def test_names_of_other_systems(name: str) -> None:
    theirs, ours = (compiled(unit) for unit in SAME[name])
    values = {key.replace("/rec/cell/", "/rec/"): value for key, value in ours.params.items()}
    for key, parameter in theirs.params.items():
        parameter.assign(values[key.replace("/rec/cell/", "/rec/")])
    np.testing.assert_array_equal(output_of(theirs), output_of(ours))


def test_a_function_of_a_python_config() -> None:
    def largest(x: Any, y: Any) -> Any:
        return tf.maximum(x, y)

    unit = around("residual", residual_fn="tf.maximum(x, y)")
    assert_is({**unit, "residual_fn": largest}, lambda weights, frames: outputs(unit, weights, frames))


def test_operations_are_on_the_device() -> None:
    unit = [LSTM, {"class": "device", "cell": LSTM, "device": "/cpu:0"}]
    config = {
        "network": {"output": {"class": "rec", "from": "data", "unit": unit}},
        "extern_data": {"data": {"dim": SIZE}},
        "behavior_version": 21,
    }
    built = build(config, "eval")
    for graph in (built.graph, optimized(built, True)):
        placed = {node.op.label for node in walk(graph.nodes) if node.origin.device == "/cpu:0"}
        assert any("Lstm" in label or "lstm" in label for label in placed), placed


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(DeviceError, match=r"output: there is no device '/gpu:7'; there are .*CPU:0"):
        compiled({"class": "device", "cell": LSTM, "device": "/gpu:7"})


REFUSED: dict[str, tuple[Any, str]] = {
    "no device": (around("device", device="somewhere"), "'somewhere' is no device"),
    "units of a wrapper": (around("residual", units=3), "A wrapper has no size of its own"),
    "units of a stack": ({"class": "stack", "cells": [LSTM], "units": 3}, "A stack has no size of its own"),
    "a highway of another size": (around("highway", {"class": "gru", "units": 3}), "a highway needs a source of 3"),
    "an embedding of numbers": (around("embedding", embedding_size=2), "an embedding needs labels"),
    "an expression that is none": (around("residual", residual_fn="x +"), "residual_fn"),
    "an unknown name": (around("residual", residual_fn="x + z"), "residual_fn: there is no 'z'"),
    "another shape": (around("residual", residual_fn="tf.reduce_sum(x, axis=-1)"), "residual_fn gives"),
    "no memory": (around("intraattention", attn_length=0), "attn_length"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    unit, message = REFUSED[name]
    assert message in refusal(unit)
