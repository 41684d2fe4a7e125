"""The type of `prev:x` where x is built after what reads it: that of x, whatever its class makes of its sources."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.compiler import ModeName, build
from returnn_lite.ir import Loop
from returnn_lite.ir.ops.sources import Constant
from returnn_lite.layers.base import Outputs
from returnn_lite.net.trial import Trial

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

# The step before of a position that a cycle computes is read before anything else of the cycle is there.
MOVED = {"class": "slice_nd", "from": "base:data", "start": "prev:x", "size": 2}
STEP = {
    "s": {"class": "reduce", "mode": "sum", "axis": "stag:slice", "from": "w"},
    "best": {"class": "reduce", "mode": "argmax", "axis": "F", "from": "s"},
    "one": {"class": "reinterpret_data", "set_sparse": False, "from": "best"},
}
LAYERS |= {
    "position of a cycle": {
        "w": MOVED,
        **STEP,
        "x": {"class": "combine", "kind": "add", "from": ["prev:x", "one"], "initial_output": 0},
    },
    "position of a cycle, cast": {
        "w": MOVED,
        **STEP,
        "sum": {"class": "combine", "kind": "add", "from": ["prev:x", "one"]},
        "x": {"class": "cast", "dtype": "int32", "from": "sum"},
    },
    "position of a cycle, in two places": {
        "w": {**MOVED, "start": "before"},
        "before": {"class": "copy", "from": "prev:x"},
        **STEP,
        "x": {"class": "eval", "eval": "source(0) + source(1) + source(2)", "from": ["prev:y", "one", "before"]},
        "y": {"class": "copy", "from": "prev:x"},
    },
    "bools of a cycle, each read before": {
        "w": {"class": "switch", "condition": "prev:x", "true_from": SOURCE, "false_from": 0.0},
        "s": {"class": "reduce", "mode": "sum", "axis": "F", "from": "w"},
        "c": {"class": "compare", "kind": "greater", "from": "s", "value": 0},
        "x": {"class": "combine", "kind": "logical_or", "from": ["prev:y", "c"]},
        "y": {"class": "combine", "kind": "logical_and", "from": ["prev:x", "c"]},
    },
}
for _depth in (49, 50, 51, 120):
    _copies = {f"c{i}": {"class": "copy", "from": f"c{i - 1}" if i else "positive"} for i in range(_depth)}
    LAYERS[f"{_depth} copies"] = {"x": {"class": "copy", "from": f"c{_depth - 1}"}, **_copies, "positive": POSITIVE}


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


def mistakes(unit: dict[str, Any]) -> list[str]:
    network = {"output": {"class": "rec", "from": "data", "unit": unit}}
    try:
        rl.check({"network": network, "extern_data": {"data": {"dim": 3}}, "behavior_version": 21})
    except rl.ConfigError as error:
        return [str(diagnostic) for diagnostic in error.diagnostics]
    return []


def test_what_nothing_tells_is_asked_for() -> None:
    """Layers that only read each other may be of any type: the message names the layer and the option."""
    around = {"x": {"class": "copy", "from": "prev:y"}, "y": {"class": "copy", "from": "prev:x"}}
    unit = {"w": MOVED, "output": {"class": "reduce", "mode": "sum", "axis": "stag:slice", "from": "w"}, **around}
    (found,) = mistakes(unit)
    assert "unit.w" in found
    assert "give 'x' an out_type" in found
    (found,) = mistakes({"x": {"class": "copy", "from": "prev:x"}, "output": {"class": "copy", "from": "prev:x"}})
    assert "unit.x" in found
    assert "Give n_out or out_type" in found
    typed = {**around["x"], "out_type": {"dtype": "int32", "shape": ()}}
    assert mistakes({**unit, "x": typed}) == []


def test_a_cycle_whose_dims_only_grow_is_looked_at_once() -> None:
    """Weights among features that are themselves weighted: each trial found one dim more, for ever."""
    weights = {"class": "softmax_over_spatial"}
    unit = {
        "att": {"class": "merge_dims", "axes": "static", "from": "att0"},
        "att0": {"class": "generic_attention", "weights": "weights", "base": "base:frames"},
        "weights": {**weights, "from": ["base:frames", "prev:output"]},
        "weights2": {**weights, "from": ["base:frames", "prev:output", "att"]},
        "att2": {"class": "generic_attention", "weights": "weights2", "base": "base:frames"},
        "merged": {"class": "merge_dims", "axes": "static", "from": "att2"},
        "output": {"class": "softmax", "target": "classes", "from": ["prev:output", "att", "merged"]},
    }
    network = {
        "frames": {"class": "linear", "n_out": 4, "from": "data"},
        "output": {"class": "rec", "from": [], "target": "classes", "unit": unit},
    }
    extern_data = {"data": {"dim": 3}, "classes": {"dim": 5, "sparse": True}}
    with pytest.raises(rl.ConfigError, match="nothing says how many features"):
        rl.check({"network": network, "extern_data": extern_data, "behavior_version": 21})


@pytest.mark.parametrize("mode", ["train", "eval", "search"])
def test_a_target_does_not_say_the_features_of_what_has_a_loss_as_it_is(mode: ModeName) -> None:
    """Search looks at the cycle of `masked`, `held` and `either` from its end: there the options of `held`, which has a
    target by default, were taken for five features, and both they and those of `context` stayed in `either`."""
    inner = {"class": "linear", "from": "data", "n_out": 3, "activation": "tanh"}
    unit = {
        "bool": {"class": "compare", "kind": "greater", "value": 0, "from": "sum"},
        "sum": {"class": "reduce", "mode": "sum", "axis": "F", "from": "base:context"},
        "before": {"class": "copy", "from": "prev:bool"},
        "either": {
            "class": "switch", "condition": "prev:before", "true_from": "prev:held", "false_from": "base:context"},
        "x": {"class": "linear", "from": "either", "n_out": 3, "activation": None},
        "mask": {"class": "compare", "from": "output", "kind": "not_equal", "value": 0, "initial_output": False},
        "masked": {"class": "masked_computation", "mask": "prev:mask", "from": "x", "unit": inner, "n_out": 3},
        "held": {"class": "unmask", "from": "masked", "mask": "prev:mask", "loss": "as_is"},
        "p": {"class": "softmax", "from": ["x", "held"], "target": "classes", "loss": "ce"},
        "output": {"class": "choice", "from": "p", "beam_size": 3, "target": "classes", "initial_output": 1},
        "end": {"class": "compare", "from": "output", "value": 0},
    }  # fmt: skip
    network = {
        "frames": {"class": "linear", "from": "data", "n_out": 3, "activation": "tanh"},
        "context": {"class": "reduce", "mode": "mean", "axis": "T", "from": "frames"},
        "output": {"class": "rec", "from": [], "target": "classes", "max_seq_len": 5, "unit": unit},
    }
    extern_data = {"data": {"dim": 3}, "classes": {"dim": 5, "sparse": True, "available_for_inference": False}}
    graph = rl.check(
        {"network": network, "extern_data": extern_data, "behavior_version": 21, "target": "classes"}, mode
    )
    assert any(isinstance(node.op, Loop) for node in graph.nodes)


def trials_of_chain(length: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often layers are tried in a chain each of which reads the step before of the next."""
    count = 0
    outputs = Trial.outputs

    def counted(trial: Trial) -> Outputs:
        nonlocal count
        count += 1
        return outputs(trial)

    monkeypatch.setattr(Trial, "outputs", counted)
    unit = {f"l{i}": {"class": "copy", "from": f"prev:l{i + 1}"} for i in range(length)}
    unit |= {"output": {"class": "copy", "from": "l0"}, f"l{length}": POSITIVE}
    assert mistakes(unit) == []
    monkeypatch.undo()
    return count


def test_each_layer_is_tried_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one reference finds out is kept for the next: the number of trials is linear in that of the layers."""
    assert trials_of_chain(300, monkeypatch) <= 2 * 300


@pytest.mark.parametrize("initial", ["zeros", "ones", "zeros()", "ones()", 0, 1, 0.0, 1.0, True, False])
@pytest.mark.parametrize("name", ["labels", "ints", "bools", "floats"])
def test_initial_values(name: str, initial: Any) -> None:
    """Names and numbers mean the same for every dtype."""
    layers: dict[str, tuple[type, dict[str, Any]]] = {
        "labels": (int, {"class": "reduce", "mode": "argmax", "axis": "F", "from": SOURCE}),
        "ints": (int, {"class": "length", "axis": "F", "from": SOURCE}),
        "bools": (bool, POSITIVE),
        "floats": (float, SUM),
    }
    kind, layer = layers[name]
    unit = {"x": {**layer, "initial_output": initial}, "output": {"class": "copy", "from": "prev:x"}}
    network = {"output": {"class": "rec", "from": "data", "unit": unit}}
    config = {"network": network, "extern_data": {"data": {"dim": 3}}, "behavior_version": 21}
    graph = build(config, "forward").graph
    (loop,) = [node.op for node in graph.nodes if isinstance(node.op, Loop)]
    (state,) = loop.states
    (init,) = [node.op for node in graph.nodes if state.init in node.outputs]
    assert isinstance(init, Constant)
    value = {"zeros": 0, "ones": 1, "zeros()": 0, "ones()": 1}.get(initial, initial)
    assert init.value == value
    assert type(init.value) is kind


def test_an_initial_value_that_the_dtype_does_not_have() -> None:
    unit = {"x": {"class": "reduce", "mode": "argmax", "axis": "F", "from": SOURCE, "initial_output": 0.5}}
    (found,) = mistakes({**unit, "output": {"class": "copy", "from": "prev:x"}})
    assert "initial_output: 0.5 is no int32" in found


MADE_ANEW: dict[str, dict[str, dict[str, Any]]] = {
    "cum_concat": {"x": {"class": "cum_concat", "from": SOURCE}},
    "range_from_length": {
        "n": {"class": "reduce", "mode": "argmax", "axis": "F", "from": SOURCE},
        "x": {"class": "range_from_length", "from": "n"},
    },
    "slice_nd": {
        "n": {"class": "reduce", "mode": "argmax", "axis": "F", "from": SOURCE},
        "x": {"class": "slice_nd", "from": "base:data", "start": "n", "size": None},
    },
    "boolean_mask": {
        "product": {"class": "combine", "kind": "mul", "from": ["base:data", SOURCE]},
        "level": {"class": "reduce", "mode": "sum", "axis": "F", "from": "product"},
        "mask": {"class": "compare", "kind": "greater", "value": 0, "from": "level"},
        "x": {"class": "boolean_mask", "from": "product", "mask": "mask", "dims": "T"},
    },
}


@pytest.mark.parametrize("order", ["behind", "before"])
@pytest.mark.parametrize("reader", [{"class": "reduce", "mode": "max", "axis": "T"}, {"class": "copy"}], ids=str)
@pytest.mark.parametrize("name", MADE_ANEW)
def test_frames_that_each_step_has_anew_have_no_step_before(name: str, reader: dict[str, Any], order: str) -> None:
    """As a state they would be of another size in each step; `x` itself is told, or the reader, with what to do."""
    reads = {"r": {**reader, "from": "prev:x"}, "output": {"class": "reduce", "mode": "sum", "axis": "T", "from": "r"}}
    output = {"output": {"class": "copy", "from": ["r"]}}
    reads = {**reads, **output} if reader["class"] == "reduce" else reads
    unit = {**MADE_ANEW[name], **reads} if order == "behind" else {**reads, **MADE_ANEW[name]}
    (found,) = mistakes(unit)
    assert "'x' has other frames in each step" in found
    assert "Reduce them in their step and read 'prev:' of that" in found


def test_frames_that_no_step_changes_have_one() -> None:
    """A mask from around the loop lets through the same frames in each step."""
    unit = {
        "level": {"class": "reduce", "mode": "sum", "axis": "F", "from": "base:data"},
        "mask": {"class": "compare", "kind": "greater", "value": 0, "from": "level"},
        "x": {"class": "boolean_mask", "from": "base:data", "mask": "mask", "dims": "T"},
        "output": {"class": "reduce", "mode": "sum", "axis": "except_batch", "from": "prev:x"},
    }
    assert mistakes(unit) == []
