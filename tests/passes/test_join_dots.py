"""Products of one value with several weights become one, where that ties nothing to a loop."""

from __future__ import annotations

import returnn_lite as rl
from returnn_lite.dims import DimKind, Masked, Symbol, TensorType
from returnn_lite.ir import Ending, Graph, Loop, Value, walk
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.contraction import Dot
from returnn_lite.ir.ops.reduction import Reduce
from returnn_lite.ir.ops.sources import Parameter
from returnn_lite.ir.verify import verify
from returnn_lite.passes.join_dots import join_dots
from returnn_lite.passes.pipeline import optimize
from tests.passes.meaning import CONSTANT, B, F, T, assert_same, meaning

G = Symbol("G", DimKind.FEATURE, 2)
H = Symbol("H", DimKind.FEATURE, 3)


def parameter(b: Builder, name: str, *dims: Symbol) -> Value:
    return b.apply(Parameter(name, dims, CONSTANT, "float64"))


def products(graph: Graph) -> list[str]:
    """The products that are left, by their results' dims, those in loops marked."""
    inside = {node for loop in graph.nodes if isinstance(loop.op, Loop) for node in loop.op.body}
    return [
        f"{node.output.type}{' in the loop' if node in inside else ''}"
        for node in walk(graph.nodes)
        if isinstance(node.op, Dot)
    ]


def joined(graph: Graph) -> Graph:
    result = verify(join_dots(graph), "join_dots")
    assert_same(meaning(result), meaning(graph))
    return result


def test_queries_and_keys_of_whole_sequences_stay() -> None:
    b = Builder()
    x = b.input("x", TensorType((B, T, F), "float64"))
    queries = b.dot(x, parameter(b, "W_q", F, G), F)
    keys = b.dot(x, parameter(b, "W_k", F, H), F)
    graph = b.graph({"queries": queries, "keys": keys})
    assert str(join_dots(graph)) == str(graph)


def test_queries_and_keys_of_each_step_of_a_search_are_one_product() -> None:
    linear = {"class": "linear", "activation": None, "from": "embed"}
    unit = {
        "embed": {**linear, "from": "prev:output", "n_out": 4},
        "queries": {**linear, "n_out": 3},
        "keys": {**linear, "n_out": 3},
        "energy": {"class": "combine", "kind": "mul", "from": ["queries", "keys"]},
        "p": {"class": "softmax", "from": "energy", "target": "classes"},
        "output": {"class": "choice", "target": "classes", "beam_size": 2, "from": "p", "initial_output": 0},
        "end": {"class": "compare", "from": "output", "value": 0},
    }
    network = {"output": {"class": "rec", "from": [], "target": "classes", "max_seq_len": 3, "unit": unit}}
    extern_data = {"classes": {"dim": 5, "sparse": True}, "data": {"dim": 3}}
    graph = rl.check({"network": network, "extern_data": extern_data, "behavior_version": 21}, "search")
    assert sum("joined(6)" in product for product in products(graph)) == 1


def test_of_two_values() -> None:
    b = Builder()
    weights = [parameter(b, name, F, G) for name in ("W", "V")]
    start = b.input("start", TensorType((B, F), "float64"))
    b.open_loop(T)
    before = b.delay("h", TensorType((B, F), "float64"), start)
    read = [before.now, b.unary("tanh", before.now)]
    parts = [b.relabel(b.dot(x, weight, F), G, F) for x, weight in zip(read, weights, strict=True)]
    before.next = b.unary("tanh", b.add(*parts))
    graph = b.graph(b.close_loop([("h", before.next)]))
    assert str(join_dots(graph)) == str(graph)


def cell(b: Builder, read: Value, weights: dict[str, Value]) -> tuple[Value, Value]:
    """A state with a gate, written out; what is before it in a step, and the state."""
    before = b.delay("h", TensorType((B, F), "float64"), b.input("start", TensorType((B, F), "float64")))
    gate = b.unary("sigmoid", b.relabel(b.dot(before.now, weights["gate"], F), G, F))
    update = b.unary("tanh", b.add(read, b.relabel(b.dot(before.now, weights["update"], F), G, F)))
    before.next = b.add(b.mul(gate, before.now), update)
    return before.now, before.next


def test_gates_are_one_product_in_the_loop() -> None:
    b = Builder()
    x = b.input("x", TensorType((B, T, F), "float64"))
    weights = {name: parameter(b, name, F, G) for name in ("gate", "update")}
    b.open_loop(T)
    _, h = cell(b, b.element(x), weights)
    graph = joined(b.graph(b.close_loop([("h", h)])))
    assert products(graph) == ["[B, dot@joined(4)] float64 in the loop"]


def test_what_can_leave_the_loop_is_not_tied_to_what_cannot() -> None:
    b = Builder()
    x = b.input("x", TensorType((B, T, F), "float64"))
    weights = {name: parameter(b, name, F, G) for name in ("gate", "update")}
    shown = [parameter(b, name, F, H) for name in ("first", "second")]
    b.open_loop(T)
    before, h = cell(b, b.element(x), weights)
    logits = [b.dot(before, weight, F) for weight in shown]
    built = b.graph(b.close_loop([("h", h), *((f"logits{i}", value) for i, value in enumerate(logits))]))
    graph = optimize(built)
    assert sorted(products(graph)) == [*["[B, T, H(3)] float64"] * 2, "[B, dot@joined(4)] float64 in the loop"]
    assert_same(meaning(graph), meaning(built))


def test_by_vectors() -> None:
    """Their results have no dim of their own in which they could stand side by side; those of a plane have two."""
    b = Builder()
    weights = [parameter(b, name, F) for name in ("w", "v")]
    planes = [parameter(b, name, F, G, H) for name in ("W", "V")]
    b.open_loop(T)
    before = b.delay("h", TensorType((B, F), "float64"), b.input("start", TensorType((B, F), "float64")))
    parts = [b.dot(before.now, weight, F) for weight in weights]
    parts += [b.apply(Reduce("sum", (G, H)), b.dot(before.now, plane, F)) for plane in planes]
    before.next = b.unary("tanh", b.add(b.add(before.now, b.add(*parts[:2])), b.add(*parts[2:])))
    graph = b.graph(b.close_loop([("h", before.next)]))
    assert str(join_dots(graph)) == str(graph)


def test_in_a_loop_that_keeps_its_steps_together() -> None:
    """One of them is in a cycle, the other one only behind it: both run in each step."""
    b = Builder()
    weights = [parameter(b, name, F, G) for name in ("next", "shown")]
    start = b.input("start", TensorType((B, F), "float64"))
    most = b.constant(3, "int32")
    steps = Symbol("steps", varies_over=(B,))
    b.open_loop(steps)
    before = b.delay("h", TensorType((B, F), "float64"), start)
    moved, shown = (b.relabel(b.dot(before.now, weight, F), G, F) for weight in weights)
    before.next = b.unary("tanh", moved)
    ended = b.binary("greater", b.apply(Reduce("sum", (F,)), moved), 1.0)
    built = b.graph(b.close_loop([("shown", shown)], ending=Ending(ended, most)))
    assert products(joined(built)) == ["[B, dot@joined(4)] float64 in the loop"]


def test_on_another_clock() -> None:
    b = Builder()
    x, mask = b.input("x", TensorType((B, T, F), "float64")), b.input("mask", TensorType((B, T), "bool"))
    weights = [parameter(b, name, F, G) for name in ("always", "sometimes")]
    b.open_loop(T)
    frame, true = b.element(x), b.element(mask)
    always = b.dot(frame, weights[0], F)
    with b.masked(true, Masked(T, true, "mask", (B,))):
        sometimes = b.dot(frame, weights[1], F)
    graph = b.graph(b.close_loop([("always", always), ("sometimes", sometimes)]))
    assert len(products(join_dots(graph))) == 2
