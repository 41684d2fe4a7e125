"""`unroll`: the same numbers as of the loop, and in the graph that TensorFlow runs no loop, or one of several steps a
round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import returnn_lite as rl
from returnn_lite.compiler import ModeName, build, optimized
from returnn_lite.ir import STEPS_A_ROUND, Loop
from returnn_lite.passes.kernels.choice import Kernel, kernels
from tests.loop.probing import decoder, feed_of, linear
from tests.properties import backend

Net = dict[str, Any]
STEPS = 11
"""More than one round has, and no multiple of it."""
RANDOM = np.random.default_rng(1)
FEED = {"data": RANDOM.normal(size=(3, STEPS, 3))}
SPECIFIED: Net = {"data": {"shape": (STEPS, 3), "dim": 3}}
RAGGED: Net = {"data": {"dim": 3}}
LSTM: Net = {"class": "lstm", "units": 4}
SRU: Net = {"class": "sru", "units": 8}
NETWORK: Net = {
    "cell": {"class": "rnn_cell", "unit": "gru", "n_out": 4, "from": ["data:source", "prev:output"]},
    "output": {"class": "linear", "activation": "tanh", "n_out": 3, "from": "cell"},
}
UNITS: dict[str, Net] = {
    "fused": {"unit": LSTM},
    "fused backwards": {"unit": {"class": "gru", "units": 4}, "direction": -1},
    "stack of both directions": {"unit": [LSTM, {"class": "residual", "cell": SRU}], "direction": "both"},
    "steps": {"unit": {"class": "dropout", "cell": {"class": "zoneoutlstm", "units": 4}}},
    "network": {"unit": NETWORK},
}
RECOMPUTED = {f"{name}, recomputed": {**UNITS[name], "recompute": "all"} for name in ("fused", "steps", "network")}


def compiled(layer: Net, data: Net, mode: ModeName = "train") -> Any:
    output = {"class": "linear", "from": "rnn", "n_out": 2, "loss": "as_is"}
    axis = {"axis": "static:0"} if data is SPECIFIED else {}
    layers = {"rnn": {"class": "rec", "from": "data", **axis, **layer}, "output": output}
    net = rl.compile(layers, data, mode, behavior_version=21, dtype="float64")
    for seed, name in enumerate(sorted(net.params)):
        net.params[name].assign(np.random.default_rng(seed).normal(size=net.params[name].shape))
    return net


def graph_of(net: Any, of: str | None = "objective") -> tf.Graph:
    """The graph that TensorFlow runs."""
    return net._main.executable._function(of).graph


def operations(graph: tf.Graph) -> Iterator[tf.Operation]:
    """Those of a graph, and of the functions in it, which bodies of loops are."""
    definition = graph.as_graph_def()
    yield from definition.node
    for function in definition.library.function:
        yield from function.node_def


def loops_in(net: Any) -> int:
    return sum(operation.op in ("While", "StatelessWhile") for operation in operations(graph_of(net)))


def products_of(net: Any) -> Counter[str]:
    """How often each kind of an operation stands in the graph."""
    return Counter(operation.op for operation in operations(graph_of(net)))


@pytest.mark.one_in(13)
@pytest.mark.parametrize("unroll", [True, 3])
@pytest.mark.parametrize("data", [SPECIFIED, RAGGED], ids=["specified", "ragged"])
@pytest.mark.parametrize("name", [*UNITS, *RECOMPUTED])
def test_same_gradients(name: str, data: Net, unroll: bool | int) -> None:
    layer = {**UNITS, **RECOMPUTED}[name]
    lengths = {"data": [STEPS, 0, 9]} if data is RAGGED else {}
    loop, unrolled = (compiled({**layer, **own}, data) for own in ({}, {"unroll": unroll}))
    expected, found = loop.gradients(FEED, lengths), unrolled.gradients(FEED, lengths)
    assert set(found) == set(expected)
    for parameter, gradient in expected.items():
        np.testing.assert_allclose(found[parameter], gradient, rtol=1e-9, atol=1e-9)
    assert (loops_in(unrolled) == 0) == (data is SPECIFIED and unroll is True)


@pytest.mark.parametrize("name", ["fused", "network"])
def test_of_a_length_that_the_data_does_not_say_there_is_no_loop(name: str) -> None:
    """Each step has its product of the recurrent weights."""
    loop, unrolled = (compiled({**UNITS[name], "unroll": unroll}, SPECIFIED) for unroll in (False, True))
    assert loops_in(loop) > 0
    assert loops_in(unrolled) == 0
    more = products_of(unrolled)["MatMul"] - products_of(loop)["MatMul"]
    assert more >= 2 * (STEPS - 1)  # forwards and backwards


@pytest.mark.parametrize(("unroll", "count"), [(True, STEPS_A_ROUND), (3, 3)])
def test_of_other_lengths_several_steps_are_a_round(unroll: bool | int, count: int) -> None:
    """One loop has so many in a round, one takes those that are left."""
    loop, unrolled = (compiled({"unit": LSTM, "unroll": own}, RAGGED, "eval") for own in (False, unroll))
    nets = [Counter(op.op for op in operations(graph_of(net, None))) for net in (loop, unrolled)]
    assert [net["While"] + net["StatelessWhile"] for net in nets] == [1, 2]
    assert nets[1]["Tanh"] == (count + 1) * nets[0]["Tanh"] > 0


@pytest.mark.parametrize("length", [0, 1, STEPS_A_ROUND - 1, STEPS_A_ROUND, 2 * STEPS_A_ROUND])
@pytest.mark.parametrize("unit", [LSTM, NETWORK], ids=["fused", "network"])
def test_of_any_length(unit: Net, length: int) -> None:
    found = []
    for unroll in (False, True):
        net = compiled({"unit": unit, "unroll": unroll, "is_output_layer": True}, RAGGED, "eval")
        data = np.random.default_rng(2).normal(size=(2, length, 3))
        found.append(net.run({"data": data}, {"data": [length, length // 2]}).layers["rnn"].value)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("place", ["labels", "cycle", "masked cycle", "frames"])
@pytest.mark.one_in(2)
def test_in_a_search(place: str) -> None:
    """It ends at the same step, in the middle of a round, with the same labels and scores; NumPy knows no rounds."""
    config = decoder({"probe": linear("x")}, place, unroll=3)
    built = build(config, "search", targets=False)
    graph, feed = optimized(built), feed_of(config, built)
    assert any(isinstance(node.op, Loop) and node.op.search and node.op.unroll == 3 for node in graph.nodes)
    with backend.unless_tied(built, graph, *feed):
        backend.assert_same_in_tensorflow(built, graph, *feed)


def test_gradients_of_a_loop_that_ends_itself() -> None:
    """No step is taken after the end."""
    unit = {
        "state": linear("data:source", "prev:state"),
        "end": {"class": "compare", "kind": "greater", "from": ":i", "value": 4},
        "output": {"class": "copy", "from": "state"},
    }
    around = {"class": "linear", "from": "loop", "n_out": 2, "loss": "as_is"}
    found = []
    for unroll in (1, 3):
        loop = {"class": "rec", "from": "data", "unit": unit, "unroll": unroll}
        net = rl.compile({"loop": loop, "output": around}, RAGGED, "train", behavior_version=21, dtype="float64")
        for seed, name in enumerate(sorted(net.params)):
            net.params[name].assign(np.random.default_rng(seed).normal(size=net.params[name].shape))
        found.append(net.gradients(FEED, {"data": [STEPS, 2, 7]}))
    assert np.abs(found[0]["loop/rec/state/W"]).max() > 0.1
    for name, gradient in found[0].items():
        np.testing.assert_allclose(found[1][name], gradient, rtol=1e-9, atol=1e-9)


HISTORY: Net = {
    "cell": {"class": "rnn_cell", "unit": "gru", "n_out": 4, "from": ["data:source", "prev:output"]},
    "history": {"class": "cum_concat", "from": "cell"},
    "most": {"class": "reduce", "mode": "max", "axis": "stag:history", "from": "history"},
    "output": linear("most"),
}
INNER: Net = {"class": "rec", "unit": {"class": "zoneoutlstm", "units": 4}, "from": "memory", "axis": "static:0"}
LOOP_IN_A_LOOP: Net = {
    "shift": linear("data:source", "prev:output", n_out=3),
    "memory": {"class": "combine", "kind": "add", "from": ["base:data:memory", "shift"]},
    "inner": INNER,
    "last": {"class": "get_last_hidden_state", "from": "inner", "key": "h"},
    "output": linear("last"),
}


@pytest.mark.one_in(8)
@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("name", ["history", "loop in a loop"])
def test_of_steps_with_lengths_of_their_own(name: str, optimize: bool) -> None:
    """A history is longer in each step; a loop in a loop has all its steps written out in each step."""
    data = {**RAGGED, "memory": {"shape": (5, 3), "dim": 3}}
    feed = {**FEED, "memory": np.random.default_rng(3).normal(size=(3, 5, 3))}
    found = []
    for unroll in (False, True):
        inner = {**LOOP_IN_A_LOOP, "inner": {**INNER, "unroll": unroll}}
        unit = inner if name == "loop in a loop" else HISTORY
        layers = {
            "loop": {"class": "rec", "from": "data", "unit": unit, "unroll": 2 if unroll else 1},
            "output": {"class": "linear", "from": "loop", "n_out": 2, "loss": "as_is"},
        }
        net = rl.compile(layers, data, "train", behavior_version=21, dtype="float64", optimize=optimize)
        for seed, parameter in enumerate(sorted(net.params)):
            shape = net.params[parameter].shape
            net.params[parameter].assign(np.random.default_rng(seed).normal(size=shape))
        found.append(net.gradients(feed, {"data": [STEPS, 2, 9]}))
    for parameter, gradient in found[0].items():
        np.testing.assert_allclose(found[1][parameter], gradient, rtol=1e-9, atol=1e-9)


def test_cudnn_has_a_loop_of_its_own() -> None:
    config: Net = {"extern_data": RAGGED, "behavior_version": 21}
    for unroll in (False, True):
        layer = {"class": "rec", "from": "data", "unit": LSTM, "unroll": unroll}
        built = build({**config, "network": {"output": layer}}, "eval")
        (choice,) = kernels(optimized(built), "gpu").values()
        assert choice.kernel is (Kernel.FUSED if unroll else Kernel.CUDNN)
        assert [obstacle.why.startswith("'unroll'") for obstacle in choice.obstacles] == [True] * unroll


@pytest.mark.parametrize(("second", "loops"), [(True, 1), (False, 2), (3, 2)])
def test_loops_that_are_unrolled_differently_stay_two(second: bool | int, loops: int) -> None:
    """A loop that reads another's frames joins it, else."""
    step = {"class": "eval", "eval": "tf.tanh(source(0) + source(1))", "from": ["data:source", "prev:output"]}
    loop = {"class": "rec", "unit": {"output": step}}
    network = {"first": {**loop, "from": "data", "unroll": True}, "output": {**loop, "from": "first", "unroll": second}}
    graph = optimized(build({"network": network, "extern_data": RAGGED, "behavior_version": 21}, "eval"))
    assert sum(isinstance(node.op, Loop) for node in graph.nodes) == loops


REFUSED: dict[str, tuple[Any, str]] = {
    "none": (0, r"output\.unroll: expected a number of at least 1"),
    "a word": ("all", r"output\.unroll: expected"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    unroll, message = REFUSED[name]
    layer = {"class": "rec", "from": "data", "unit": LSTM, "unroll": unroll}
    with pytest.raises(rl.ConfigError, match=message):
        rl.check({"network": {"output": layer}, "extern_data": RAGGED, "behavior_version": 21}, "eval")


def test_one_step_of_a_loop_has_none_to_write_out() -> None:
    step = {"class": "rec", "from": "data:source", "unit": LSTM, "unroll": True}
    layers = {"output": {"class": "rec", "from": "data", "unit": {"output": step}}}
    with pytest.raises(rl.ConfigError, match="one step of a loop can't be unrolled"):
        rl.check({"network": layers, "extern_data": RAGGED, "behavior_version": 21}, "eval")
