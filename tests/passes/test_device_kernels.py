"""What cuDNN can run becomes one primitive, which means the same; what it can't is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.compiler import build, optimized
from returnn_lite.dims import Dim, DimKind, Symbol, TensorType
from returnn_lite.engine import network as engine_network
from returnn_lite.engine.network import NetworkCompiler
from returnn_lite.ir import Graph, Value, walk
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.axes import Relabel
from returnn_lite.ir.ops.contraction import Dot
from returnn_lite.ir.ops.indexing import Gather
from returnn_lite.ir.ops.recurrence import Recurrence
from returnn_lite.ir.ops.recurrent_cells import SimpleRnnCell, SimpleRnnStep
from returnn_lite.ir.ops.sources import Constant, Parameter
from returnn_lite.ir.ops.stacked_recurrence import StackedRecurrence
from returnn_lite.ir.verify import verify
from returnn_lite.net.network import BuiltNetwork
from returnn_lite.passes.device_kernels import device_kernels
from returnn_lite.passes.kernels.choice import Kernel, kernels
from returnn_lite.tf import devices
from returnn_lite.tf.executable import Executable, input_length_dims
from tests.passes.meaning import CONSTANT, B, F, T
from tests.reference.interpreter import interpret
from tests.reference.named import Lengths, Named, without_padding

LENGTHS = np.array([4, 0, 3])
N = 2


def built(network: dict[str, Any]) -> tuple[BuiltNetwork, Graph]:
    """A network for training, as built and as optimised for an objective."""
    found = build({"network": network, "extern_data": {"data": {"dim": 3}}}, "train")
    return found, optimized(found, keep=found.outputs.with_layers(["output"]))


def meaning(graph: Graph, network: BuiltNetwork) -> dict[str, np.ndarray]:
    """The outputs for random data; a parameter of a name is the same in all graphs."""
    generator = np.random.default_rng(3)
    feed = {value.name: generator.normal(size=(3, 4, 3)) for value in graph.inputs}
    batch = network.extern_data.batch
    known = Lengths({dim: Named(LENGTHS, (batch,)) for dim in input_length_dims(graph)})
    known.known[batch] = Named(np.array(3), ())
    executable = Executable(graph, batch, "float64")
    values = {
        name: np.random.default_rng(sum(map(ord, name))).normal(0, 0.7, variable.shape)
        for name, variable in executable.params.items()
    }
    found = interpret(graph, feed, known, values)
    return {name: without_padding(value, known).over(graph.axes(name)) for name, value in found.items()}


def rec(unit: Any, *sources: str, **options: Any) -> dict[str, Any]:
    return {"class": "rec", "unit": unit, "n_out": N, "from": list(sources) or "data", **options}


def output(*sources: str) -> dict[str, Any]:
    return {"class": "linear", "activation": "tanh", "n_out": 2, "from": list(sources), "loss": "as_is"}


def last(layer: str, key: str = "c") -> dict[str, Any]:
    return {"class": "get_last_hidden_state", "from": layer, "n_out": N, "key": key}


JOINED: dict[str, tuple[dict[str, Any], list[tuple[str, int, int, bool]]]] = {
    "one": ({"r": rec("lstm"), "output": output("r")}, [("lstm", 1, 1, False)]),
    "other order and forget bias": ({"r": rec("standardlstm"), "output": output("r")}, [("lstm", 1, 1, False)]),
    "without a bias": (
        {"r": rec({"class": "lstm", "use_bias": False}), "output": output("r")},
        [("lstm", 1, 1, False)],
    ),
    "backwards": (
        {"r": rec("lstm", direction=-1), "l": last("r"), "output": output("r", "l")},
        [("lstm", 1, 1, True)],
    ),
    "states": (
        {"q": rec("lstm"), "l": last("q"), "h": last("q", "h"), "r": rec("lstm", initial_state="q")}
        | {"output": output("q", "r", "l", "h")},
        [("lstm", 1, 1, False)] * 2,
    ),
    "stack": (
        {"r": rec([{"class": "lstm", "units": N}] * 3), "l": last("r", "0/c"), "output": output("r", "l")},
        [("lstm", 3, 1, False)],
    ),
    "stack over reversed frames": (
        {"r": rec(["lstm", "lstm"], direction=-1), "output": output("r")},
        [("lstm", 2, 1, False)],
    ),
    "layers backwards": (
        {"f": rec("lstm", direction=-1), "g": rec("lstm", "f", direction=-1), "output": output("g")},
        [("lstm", 2, 1, True)],
    ),
    "both": (
        {"r": rec("lstm", direction="both", n_out=2 * N), "l": last("r", "backward/c"), "output": output("l", "r")},
        [("lstm", 1, 2, False)],
    ),
    "stack of both": (
        {"r": rec(["lstm"] * 2, direction="both", n_out=2 * N), "l": last("r", "backward/0/h")}
        | {"output": output("r", "l")},
        [("lstm", 2, 2, False)],
    ),
    "layers by name": (
        {"f": rec("lstm"), "b": rec("lstm", direction=-1), "f1": rec("lstm", "f", "b")}
        | {"b1": rec("lstm", "f", "b", direction=-1), "output": output("b1", "f1")},
        [("lstm", 2, 2, False)],
    ),
    "in another order": (
        {"f": rec("lstm"), "b": rec("lstm", direction=-1), "r": rec("lstm", "b", "f", direction="both", n_out=2 * N)}
        | {"output": output("r")},
        [("lstm", 1, 2, False)] * 2,
    ),
    "one reads the other": (
        {"f": rec("lstm"), "b": rec("lstm", direction=-1, initial_state="f"), "output": output("f", "b")},
        [("lstm", 1, 1, False), ("lstm", 1, 1, True)],
    ),
    "read beside": (
        {"f": rec("lstm"), "g": rec("lstm", "f"), "output": output("f", "g")},
        [("lstm", 1, 1, False)] * 2,
    ),
    "other sizes": (
        {"f": rec("lstm", n_out=3), "g": rec("lstm", "f"), "output": output("g")},
        [("lstm", 1, 1, False)] * 2,
    ),
    "gru": (
        {"f": rec({"class": "gru", "reset_after": True}), "g": rec("keras.gru", "f"), "output": output("g")},
        [("gru", 2, 1, False)],
    ),
    "gru without a bias": (
        {"f": rec({"class": "keras.gru", "use_bias": False}, direction=-1), "output": output("f")},
        [("gru", 1, 1, True)],
    ),
    "rnn": (
        {"f": rec("rnn"), "b": rec("simplernn", direction=-1), "output": output("f", "b")},
        [("rnn_tanh", 1, 2, False)],
    ),
    "rnn with relu": ({"f": rec({"class": "rnn", "activation": "relu"}), "output": output("f")},
                      [("rnn_relu", 1, 1, False)]),
    "in and out of a loop": (
        {"r": {"class": "rec", "unit": {"s": {"class": "rnn_cell", "unit": "lstm", "n_out": N, "from": "data:source"}}
               | {"output": {"class": "copy", "from": "s"}}, "from": "data"}, "output": output("r")},
        [("lstm", 1, 1, False)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", JOINED)
def test_it_means_the_same(name: str) -> None:
    network, expected = JOINED[name]
    found, graph = built(network)
    changed = device_kernels(graph)
    verify(changed, "device_kernels")
    ops = [node.op for node in walk(changed.nodes) if isinstance(node.op, StackedRecurrence)]
    shapes = [(next(iter(op.members)).kind.mode, len(op.layers), len(op.layers[0]), op.reverse) for op in ops]
    assert sorted(shapes) == sorted(expected)
    assert not any(isinstance(node.op, Recurrence) for node in walk(changed.nodes))
    before, after = meaning(graph, found), meaning(changed, found)
    assert before.keys() == after.keys() and any(value.any() for value in before.values())
    for key, value in before.items():
        np.testing.assert_allclose(after[key], value, rtol=1e-9, atol=1e-12, err_msg=key)


OBSTACLES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "gru": ({"r": rec("gru"), "output": output("r")}, {"cuDNN's GRU resets after the product"}),
    "sigmoid": (
        {"r": rec({"class": "rnn", "activation": "sigmoid"}), "output": output("r")},
        {"cuDNN has no such recurrence"},
    ),
    "device": (
        {"r": rec({"class": "device", "device": "/cpu:0", "cell": "lstm"}), "output": output("r")},
        {"it shall run on /cpu:0"},
    ),
    "labels": (
        {"l": {"class": "reduce", "mode": "argmax", "axis": "F", "from": "data"}}
        | {"r": rec("lstm", "l"), "output": output("r")},
        {"its source has labels: cuDNN multiplies its source with weights"},
    ),
    "computed again": (
        {"r": rec("lstm", recompute="all"), "output": output("r")},
        {"it is computed again when gradients are taken: cuDNN keeps what it needs"},
    ),
    "in a loop": (
        {"down": {"class": "pool", "mode": "max", "pool_size": [2], "strides": [2], "padding": "same", "from": "data"}}
        | {"r": {"class": "rec", "from": "down", "unit": {
            "x": {"class": "combine", "kind": "add", "from": ["base:data", "prev:output"]},
            "inner": rec("lstm", "x", n_out=3),
            "output": {"class": "reduce", "mode": "sum", "axis": "T", "from": "inner"}}}, "output": output("r")},
        {"each step of a loop runs it"},
    ),
    "no input product": (
        {"x": {"class": "linear", "n_out": 4 * N, "activation": "tanh"}}
        | {"r": rec("nativelstm2", "x", input_projection=False), "output": output("r")},
        {"what goes into its gates is not just a product of its source with weights, and a bias"},
    ),
    "cell states": (
        {"r": rec("lstm"), "c": {"class": "get_rec_accumulated_output", "from": "r"}, "output": output("r")}
        | {"r": {"class": "rec", "unit": {
            "s": {"class": "rnn_cell", "unit": "lstm", "n_out": N, "from": "data:source"},
            "c": {"class": "get_last_hidden_state", "from": "s", "n_out": N, "key": "c"},
            "output": {"class": "copy", "from": ["s", "c"]}}, "from": "data"}}
        | {"c": {"class": "copy", "from": "r"}},
        {"the cell state of all frames is read, of which cuDNN gives that after the last step"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_keeps_it_from_cudnn_is_said(name: str) -> None:
    network, expected = OBSTACLES[name]
    _, graph = built(network)
    found = [choice for node, choice in kernels(graph, "gpu").items() if isinstance(node.op, Recurrence)]
    assert {choice.kernel for choice in found} == {Kernel.FUSED}
    assert {obstacle.why for choice in found for obstacle in choice.obstacles} == expected
    assert device_kernels(graph) is graph


H = Symbol("H", DimKind.FEATURE, N)
K = Symbol("K", DimKind.SPATIAL, 2)


@pytest.mark.parametrize(("more", "expected"), [("nothing", 1), ("state", 2), ("weights", 0)])
def test_only_what_is_for_the_same_sequences_is_one(more: str, expected: int) -> None:
    """A state, or weights, along a dim that the source has not."""
    b, hidden, rows = Builder(), Symbol("H", DimKind.FEATURE, N), Symbol("R", DimKind.FEATURE, N)
    x = b.input("x", TensorType((B, T, F)))
    outputs = {}
    for reverse in (False, True):
        along = {what: (K,) if reverse and what == more else () for what in ("state", "weights")}
        shapes = {"in": (F, hidden), "weights": (*along["weights"], rows, hidden), "state": (*along["state"], hidden)}
        of_x, of_h, state = (b.apply(Parameter(f"{name} {reverse}", dims, CONSTANT)) for name, dims in shapes.items())
        op = Recurrence(SimpleRnnStep(SimpleRnnCell(hidden, rows)), T, reverse)
        outputs[str(reverse)] = b.apply(op, b.apply(Dot((F,)), x, of_x), of_h, state)
    changed = verify(device_kernels(b.graph(outputs)), "device_kernels")
    left = sum(isinstance(node.op, Recurrence) for node in changed.nodes)
    assert (stacked(changed), left) == ((expected, 0) if expected else (1, 1))


def test_a_recurrence_whose_product_is_read_twice_is_under_no_other() -> None:
    """What the product is made of must be there for who else reads it."""
    b, rows = Builder(), Symbol("R", DimKind.FEATURE, N)
    below, above = (Symbol(name, DimKind.FEATURE, N) for name in ("below", "above"))

    def weights(*dims: Dim) -> Value:
        return b.apply(Parameter("*".join(map(str, dims)), dims, CONSTANT))

    def run(z: Value, hidden: Dim, first: float) -> Value:
        op = Recurrence(SimpleRnnStep(SimpleRnnCell(hidden, rows)), T)
        return b.apply(op, z, weights(rows, hidden), b.apply(Constant(first, "float32", (hidden,))))

    x = b.input("x", TensorType((B, T, F)))
    h = run(b.apply(Dot((F,)), x, weights(F, below)), below, 0.0)
    z = b.apply(Dot((below,)), h, weights(below, above))
    outputs = {"one": run(z, above, 0.0), "other": run(z, above, 1.0)}
    assert stacked(verify(device_kernels(b.graph(outputs)), "device_kernels")) == 3


def rnn(b: Builder, x: Value, *state: Value, reverse: bool = False) -> Value:
    """A simple RNN over x, with a state of its own if none is given."""
    hidden, rows = Symbol("H", DimKind.FEATURE, N), Symbol("R", DimKind.FEATURE, N)
    of_x, of_h = (b.apply(Parameter(dims[0].name, dims, CONSTANT)) for dims in ((F, hidden), (rows, hidden)))
    before = [b.apply(Relabel(H, hidden), one) for one in state] or [b.apply(Constant(0.0, "float32", (hidden,)))]
    op = Recurrence(SimpleRnnStep(SimpleRnnCell(hidden, rows)), T, reverse)
    return b.apply(op, b.apply(Dot((F,)), x, of_x), of_h, *before)


def test_lengths_of_sequences_that_the_source_does_not_tell() -> None:
    b = Builder()
    h = rnn(b, b.input("x", TensorType((T, F))))
    (choice,) = kernels(b.graph({"h": h}), "gpu").values()
    assert [one.why for one in choice.obstacles] == ["the lengths of its frames vary over more than its source has"]


def test_a_first_state_for_each_frame() -> None:
    b = Builder()
    h = rnn(b, b.input("x", TensorType((B, T, F))), b.input("state", TensorType((B, T, H))))
    (choice,) = kernels(b.graph({"h": h}), "gpu").values()
    assert [one.why for one in choice.obstacles] == ["the state before the first step differs from frame to frame"]


@pytest.mark.parametrize("frame", [0, 1])
def test_backwards_the_last_state_is_that_of_the_first_frame(frame: int) -> None:
    b = Builder()
    h = rnn(b, b.input("x", TensorType((B, T, F))), reverse=True)
    last = b.apply(Gather(T, clip=True), h, b.apply(Constant(frame, "int32")))
    changed = verify(device_kernels(b.graph({"h": h, "last": last})), "device_kernels")
    assert any(isinstance(node.op, Gather) for node in changed.nodes) == (frame != 0)


def stacked(graph: Graph) -> int:
    return sum(isinstance(node.op, StackedRecurrence) for node in walk(graph.nodes))


def test_on_a_cpu_recurrences_are_fused() -> None:
    found, graph = built({"r": rec("lstm"), "output": output("r")})
    assert [choice.kernel for choice in kernels(graph, "cpu").values()] == [Kernel.FUSED]
    assert stacked(optimized(found)) == 0


@pytest.mark.parametrize(("device", "optimize", "expected"), [("gpu", True, 1), ("gpu", False, 0), ("cpu", True, 0)])
def test_networks_have_the_kernels_of_the_machine(
    device: str, optimize: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In `compile`, and in the engine."""
    for module in (devices, engine_network):
        monkeypatch.setattr(module, "default_device", lambda: device)
    config = {"network": {"r": rec("lstm"), "output": output("r")}, "extern_data": {"data": {"dim": 3}}}
    assert stacked(rl.compile(config["network"], config["extern_data"], optimize=optimize).graph) == expected
    assert stacked(NetworkCompiler(config, optimize=optimize)("train")._graph) == expected
