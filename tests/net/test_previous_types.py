"""The type of `prev:x` where x is built after what reads it: that of x, whatever its class makes of its sources."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

X = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
LENGTHS = np.array([4, 2])
SOURCE = "data:source"
POSITIVE = {"class": "compare", "kind": "greater", "from": SOURCE, "value": 0}
SUM = {"class": "reduce", "mode": "sum", "axis": "F", "from": SOURCE}
LAYERS: dict[str, dict[str, dict[str, Any]]] = {
    "argmax": {"x": {"class": "reduce", "mode": "argmax", "axis": "F", "from": SOURCE, "initial_output": 0}},
    "sum of the features": {"x": SUM},
    "compare": {"x": POSITIVE},
    "cast": {"x": {"class": "cast", "dtype": "int32", "from": SOURCE}},
    "eval to int": {"x": {"class": "eval", "eval": "tf.cast(source(0) * 3, 'int32')", "from": SOURCE}},
    "eval to bool": {"x": {"class": "eval", "eval": "source(0) > 0", "from": SOURCE}},
    "combine by eval": {
        "x": {"class": "combine", "kind": "eval", "eval": "source(0) > source(1)", "from": [SOURCE, "c"]},
        "c": {"class": "activation", "activation": "tanh", "from": SOURCE},
    },
    "top_k": {"x": {"class": "top_k", "axis": "F", "k": 2, "from": SOURCE}},
    "length": {"x": {"class": "length", "axis": "F", "from": "base:data"}},
    "switch": {
        "x": {"class": "switch", "condition": "c", "true_from": 0, "false_from": "i"},
        "c": POSITIVE,
        "i": {"class": "cast", "dtype": "int32", "from": SOURCE},
    },
    "constant": {"x": {"class": "constant", "value": 3}},
    "range": {"x": {"class": "range", "limit": 3}},
    "squeeze": {
        "x": {"class": "squeeze", "axis": "F", "from": "l"},
        "l": {"class": "linear", "n_out": 1, "activation": None, "from": SOURCE},
    },
    "set_sparse": {
        "x": {"class": "reinterpret_data", "set_sparse": True, "set_sparse_dim": 9, "from": "i", "initial_output": 0},
        "i": {"class": "reduce", "mode": "argmax", "axis": "F", "from": SOURCE},
    },
    "gather": {"x": {"class": "gather", "axis": "F", "position": 1, "from": SOURCE}},
    "dot": {"x": {"class": "dot", "red1": "F", "red2": "F", "from": [SOURCE, SOURCE]}},
    "step": {"x": {"class": "copy", "from": ":i"}},
    "bools of a cycle": {
        "x": {"class": "combine", "kind": "logical_or", "from": ["prev:x", "c"], "initial_output": False},
        "c": {"class": "compare", "kind": "greater", "from": "s", "value": 0},
        "s": SUM,
    },
    "ints of a cycle": {
        "x": {"class": "combine", "kind": "add", "from": ["prev:x", "i"], "initial_output": 0},
        "i": {"class": "cast", "dtype": "int32", "from": "s"},
        "s": SUM,
    },
    "bool subnetwork": {
        "x": {"class": "subnetwork", "from": SOURCE, "subnetwork": {"output": {**POSITIVE, "from": "data"}}}
    },
    "int subnetwork that reads around it": {
        "x": {
            "class": "subnetwork",
            "from": [],
            "subnetwork": {
                "more": {"class": "combine", "kind": "add", "from": ["base:i", "base:prev:x"]},
                "output": {"class": "copy", "from": "more"},
            },
        },
        "i": {"class": "cast", "dtype": "int32", "from": "s"},
        "s": SUM,
    },
    "subnetwork without features": {
        "x": {"class": "subnetwork", "from": SOURCE, "subnetwork": {"output": {**SUM, "from": "data"}}}
    },
    "masked ints": {
        "x": {"class": "masked_computation", "mask": "m", "from": "i", "unit": {"class": "cumsum"}},
        "i": {"class": "cast", "dtype": "int32", "from": "s"},
        "s": SUM,
        "m": {"class": "compare", "kind": "greater", "from": "s", "value": 0},
    },
    "masked subnetwork of bools": {
        "x": {
            "class": "masked_computation",
            "mask": "m",
            "from": SOURCE,
            "unit": {"class": "subnetwork", "subnetwork": {"output": {**POSITIVE, "from": "data"}}},
        },
        "s": SUM,
        "m": {"class": "compare", "kind": "greater", "from": "s", "value": 0},
    },
    "counted from a layer": {
        "x": {"class": "eval", "eval": "source(0) + 1", "from": "prev:x", "initial_output": "base:zero"}
    },
    "counted, by out_type": {
        "x": {"class": "eval", "eval": "source(0) + 1", "from": "prev:x", "initial_output": 0}
        | {"out_type": {"dtype": "int32", "shape": ()}}
    },
}


def run(output: str, unit: dict[str, Any], optimize: bool) -> tuple[np.ndarray, list[str]]:
    """The frames of the loop's output that copies a layer, time first, and the other dims."""
    unit = {"output": {"class": "copy", "from": output}, **unit}
    network: dict[str, Any] = {"output": {"class": "rec", "from": "data", "unit": unit}}
    network["zero"] = {"class": "constant", "value": 0, "dtype": "int32"}
    net = rl.compile(network, extern_data={"data": {"dim": 3}}, mode="forward", behavior_version=21, optimize=optimize)
    out = net.run({"data": X}, {"data": LENGTHS}).layers["output"]
    dims = list(out.dims)
    frames = np.moveaxis(np.asarray(out.value), dims.index("data:time"), 0)
    dims.remove("data:time")
    return frames, dims


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_prev_is_what_the_layer_was(name: str, optimize: bool) -> None:
    """The frames of `prev:x` are zeros, then those of x, of the same dtype and dims."""
    before, dims = run("prev:x", LAYERS[name], optimize)
    now, expected_dims = run("x", LAYERS[name], optimize)
    assert before.dtype == now.dtype
    assert dims == expected_dims
    np.testing.assert_array_equal(before[0], np.zeros_like(before[0]))
    real = min(LENGTHS)
    np.testing.assert_allclose(before[1:real], now[: real - 1], rtol=1e-6)


def location_aware(feedback: dict[str, Any], accumulated: dict[str, Any], source: str) -> dict[str, Any]:
    """An attention decoder whose energies see the weights of the steps before."""
    unit: dict[str, Any] = {
        "s": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 3, "from": ["prev:embed", "prev:att"]},
        "query": {"class": "linear", "activation": None, "with_bias": False, "n_out": 4, "from": "s"},
        "location": {"n_out": 2, "activation": None, "from": source, **feedback},
        "feedback": {"class": "linear", "activation": None, "with_bias": False, "n_out": 4, "from": "location"},
        "energy_in": {"class": "combine", "kind": "add", "from": ["base:keys", "query", "feedback"]},
        "energy_tanh": {"class": "activation", "activation": "tanh", "from": "energy_in"},
        "energy": {"class": "linear", "activation": None, "with_bias": False, "n_out": 1, "from": "energy_tanh"},
        "weights": {"class": "softmax_over_spatial", "from": "energy", "is_output_layer": True},
        "accumulated": accumulated,
        "att0": {"class": "generic_attention", "weights": "weights", "base": "base:encoder"},
        "att": {"class": "merge_dims", "axes": "except_batch", "from": "att0"},
        "readout": {"class": "linear", "activation": "tanh", "n_out": 4, "from": ["s", "prev:embed", "att"]},
        "prob": {"class": "softmax", "from": "readout", "target": "classes", "loss": "ce"},
        "output": {"class": "choice", "target": "classes", "beam_size": 3, "from": "prob", "initial_output": 0},
        "embed": {"class": "linear", "activation": None, "from": "output", "n_out": 3, "initial_output": 0},
        "end": {"class": "compare", "from": "output", "value": 0},
    }
    return {
        "encoder": {"class": "linear", "activation": "tanh", "n_out": 5, "from": "data"},
        "keys": {"class": "linear", "activation": None, "n_out": 4, "from": "encoder"},
        "fertility": {"class": "linear", "activation": "sigmoid", "n_out": 1, "with_bias": False, "from": "encoder"},
        "decoder": {"class": "rec", "from": [], "unit": unit, "target": "classes", "max_seq_len": 6},
        "output": {"class": "decide", "from": "decoder"},
    }


CONV = {"class": "conv", "filter_size": [3], "padding": "same"}
LINEAR = {"class": "linear", "with_bias": False}
BY_EVAL = {"class": "eval", "eval": "source(0) + source(1) * source(2) * 0.5"}
BY_EVAL["from"] = ["prev:accumulated", "weights", "base:fertility"]  # type: ignore[assignment]
BY_ADDING = {"class": "combine", "kind": "add", "from": ["prev:accumulated", "weights"]}


def decode(network: dict[str, Any], mode: Any, optimize: bool) -> Any:
    """Runs with the parameters of a fixed seed."""
    extern_data = {"data": {"dim": 3}, "classes": {"dim": 6, "sparse": True}}
    net = rl.compile(network, extern_data=extern_data, mode=mode, behavior_version=21, optimize=optimize)
    labels = np.array([[3, 1, 5], [2, 4, 0]])
    return net, net.run({"data": X, "classes": labels}, {"data": LENGTHS, "classes": [3, 2]})


@pytest.mark.parametrize("mode", ["train", "search"])
@pytest.mark.parametrize("feedback", [CONV, LINEAR], ids=["conv", "linear"])
@pytest.mark.parametrize(
    ("accumulated", "source"),
    [(BY_EVAL, "prev:accumulated"), (BY_ADDING, "prev:accumulated"), (BY_ADDING, "prev:weights")],
    ids=["eval", "add", "weights"],
)
def test_location_aware_attention(feedback: Any, accumulated: Any, source: str, mode: str) -> None:
    """A convolution finds the time of weights that are not built yet; optimised as plain."""
    assert_same_optimized(location_aware(feedback, accumulated, source), mode)


@pytest.mark.parametrize("mode", ["train", "search"])
def test_local_attention(mode: str) -> None:
    """The window of the weights begins where those of the step before were largest, so that they need themselves."""
    network = location_aware(LINEAR, BY_ADDING, "prev:accumulated")
    unit = network["decoder"]["unit"]
    unit["largest"] = {"class": "reduce", "mode": "argmax", "axis": "t", "from": "prev:weights"}
    unit["weights"] |= {"window_start": "largest", "window_size": 2}
    assert_same_optimized(network, mode)


def assert_same_optimized(network: dict[str, Any], mode: str) -> None:
    """Every layer and loss, with and without optimisation."""
    (_, plain), (_, optimized) = (decode(network, mode, optimize) for optimize in (False, True))
    assert "decoder/output" in plain.layers or "output" in plain.layers
    for name, expected in plain.layers.items():
        found = optimized.layers[name]
        assert set(found.dims) == set(expected.dims), name
        order = [found.dims.index(dim) for dim in expected.dims]
        np.testing.assert_allclose(np.transpose(found.value, order), expected.value, atol=1e-5, err_msg=name)
    for name, loss in plain.losses.items():
        np.testing.assert_allclose(optimized.losses[name].sum, loss.sum, rtol=1e-5)
