"""Which loops fuse, what becomes of them, and that training is the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.compiler import build, optimized
from returnn_lite.dims import Symbol, TensorType
from returnn_lite.explain.placement import placement
from returnn_lite.ir import Graph, Loop, Value
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.elementwise import Elementwise
from returnn_lite.ir.ops.histories import CumConcatStep, EmptyHistory
from returnn_lite.ir.ops.recurrence import Delay
from returnn_lite.ir.ops.reduction import Reduce
from returnn_lite.ir.verify import verify
from returnn_lite.passes.dead_nodes import dead_nodes
from returnn_lite.passes.fuse_loops import fuse_loops
from returnn_lite.passes.pipeline import optimize
from tests.passes.meaning import B, F, S, T, assert_same, meaning
from tests.properties.parts import SIZE
from tests.properties.running import LENGTHS, assert_equal, run

FRAMES = TensorType((B, T, F), "float64")
START = TensorType((B, F), "float64")


def cycle(b: Builder, name: str, wholes: list[Value], init: Value, invariant: Value | None = None) -> Value:
    """The stack of y = tanh(y' + x + ...) in a loop of its own."""
    b.open_loop(next(dim for dim in wholes[0].type.dims if dim in (T, S)))
    before = b.delay(f"{name}'", START, init)
    total = before.now
    for whole in wholes:
        total = b.apply(Elementwise("add"), total, b.element(whole))
    if invariant is not None:
        total = b.apply(Elementwise("add"), total, invariant)
    before.next = b.apply(Elementwise("tanh"), total)
    return b.close_loop([(name, before.next)])[name]


def loops(graph: Graph) -> list[Loop]:
    return [node.op for node in graph.nodes if isinstance(node.op, Loop)]


def fused(graph: Graph, count: int) -> Graph:
    """The graph after the pass, which must have so many loops and mean the same."""
    result = dead_nodes(verify(fuse_loops(graph), "fuse_loops"))
    assert_same(meaning(result), meaning(graph))
    assert len(loops(result)) == count, str(result)
    return result


def without_types(graph: Graph) -> str:
    """IR text; the types are as the verifier wants them."""
    return "\n".join(line.split("  #")[0].rstrip() for line in str(graph).splitlines())


@pytest.fixture
def b() -> Builder:
    return Builder()


def test_one_reads_frames_of_the_other(b: Builder) -> None:
    """Its stack is no longer made if nothing else reads it; a delay of it becomes a state."""
    x, start = b.input("x", FRAMES), b.input("start", START)
    h = cycle(b, "h", [x], start)
    before = b.apply(Delay(T), h, start)
    s = cycle(b, "s", [h, before, x], start)
    graph = b.graph({"y": s})
    assert without_types(graph) == TWO
    assert without_types(fused(graph, 1)) == ONE


TWO = """\
x = input
start = input
loop T {
  x[t] = x[T]
  h' = delay(tanh, start)
  add = add(h', x[t])
  tanh = tanh(add)
  h = stack(tanh)
}
delay = delay(h, start, over=T)
loop T {
  h[t] = h[T]
  delay[t] = delay[T]
  x[t] = x[T]
  s' = delay(tanh.2, start)
  add.2 = add(s', h[t])
  add.3 = add(add.2, delay[t])
  add.4 = add(add.3, x[t])
  tanh.2 = tanh(add.4)
  s = stack(tanh.2)
}
return y = s"""
ONE = """\
x = input
start = input
loop T {
  x[t] = x[T]
  h' = delay(tanh, start)
  s' = delay(tanh.2, start)
  add = add(h', x[t])
  tanh = tanh(add)
  add.2 = add(s', tanh)
  add.3 = add(add.2, h')
  add.4 = add(add.3, x[t])
  tanh.2 = tanh(add.4)
  s = stack(tanh.2)
}
return y = s"""


def test_a_delay_with_another_start_is_a_state_of_its_own(b: Builder) -> None:
    x, start, other = b.input("x", FRAMES), b.input("start", START), b.input("other", START)
    h = cycle(b, "h", [x], start)
    twice = b.apply(Delay(T), b.apply(Delay(T), h, other), start)
    (loop,) = loops(fused(b.graph({"y": cycle(b, "s", [twice], start), "h": h}), 1))
    assert len(loop.states) == 4 and len(loop.stacks) == 2


def test_three_in_a_row(b: Builder) -> None:
    x, start = b.input("x", FRAMES), b.input("start", START)
    h = cycle(b, "h", [x], start)
    other = cycle(b, "o", [x], start)
    s = cycle(b, "s", [h, other], start)
    fused(b.graph({"y": s, "mean": b.apply(Reduce("mean", (T,)), h)}), 1)


def test_what_depends_on_the_first_alone_comes_after_both(b: Builder) -> None:
    x, start = b.input("x", FRAMES), b.input("start", START)
    h = cycle(b, "h", [x], start)
    shown = b.apply(Elementwise("exp"), h)
    scaled = b.apply(Elementwise("exp"), x)
    fused(b.graph({"y": cycle(b, "s", [h, scaled], start), "shown": shown}), 1)


def whole_operand(b: Builder, x: Value, start: Value) -> Value:
    h = cycle(b, "h", [x], start)
    return cycle(b, "s", [h], start, b.apply(Reduce("mean", (T,)), h))


def whole_operand_in_the_body(b: Builder, x: Value, start: Value) -> Value:
    """Besides its frames: every step sees all of them."""
    h = cycle(b, "h", [x], start)
    b.open_loop(T)
    before = b.delay("s'", START, start)
    most = b.apply(Reduce("max", (T,)), h)
    before.next = b.unary("tanh", b.add(b.add(before.now, b.element(h)), most))
    return b.close_loop([("s", before.next)])["s"]


def initial_value(b: Builder, x: Value, start: Value) -> Value:
    h = cycle(b, "h", [x], start)
    return cycle(b, "s", [h], b.apply(Reduce("max", (T,)), h))


def start_of_a_delay(b: Builder, x: Value, start: Value) -> Value:
    h = cycle(b, "h", [x], start)
    return cycle(b, "s", [b.apply(Delay(T), h, b.apply(Reduce("mean", (T,)), h))], start)


def delayed_along_another_dim(b: Builder, x: Value, start: Value) -> Value:
    """That is no step before."""
    planes = b.input("planes", TensorType((B, S), "float64"))
    y = x
    for name in ("h", "s"):
        b.open_loop(T)
        before = b.delay(f"{name}'", planes.type, planes)
        frame = b.apply(Reduce("sum", (F,)), b.element(y)) if F in y.type else b.element(y)
        before.next = b.unary("tanh", b.add(before.now, frame))
        y = b.close_loop([(name, before.next)])[name]
        y = b.apply(Delay(S), y, b.constant(0.0, "float64")) if name == "h" else y
    return y


def frames_so_far_along_one_dim(b: Builder, x: Value, start: Value) -> Value:
    """Of other masks: a body has one length of a dim in each step."""
    frames = Symbol("history", varies_over=(T,))
    y = x
    for name in ("m1", "m2"):
        b.open_loop(T)
        with b.at_outer():
            empty, zero = b.apply(EmptyHistory(frames), start), b.constant(0, "int32")
        mask = b.element(b.input(name, TensorType((B, T), "bool")))
        state = b.delay("state", START, start)
        before, count = b.delay("frames", empty.type, empty), b.delay("count", zero.type.with_dims(B), zero)
        now = b.add(b.element(y), state.now)
        before.next, count.next = b.emit(CumConcatStep(frames), now, before.now, count.now, mask)
        state.next = b.apply(Reduce("mean", (frames,)), before.next)
        y = b.close_loop([(f"y of {name}", state.next)])[f"y of {name}"]
    return y


def work_between(b: Builder, x: Value, start: Value) -> Value:
    h = cycle(b, "h", [x], start)
    return cycle(b, "s", [h, b.apply(Elementwise("exp"), h)], start)


def independent(b: Builder, x: Value, start: Value) -> Value:
    return b.apply(Elementwise("add"), cycle(b, "h", [x], start), cycle(b, "s", [x], start))


def other_dim(b: Builder, x: Value, start: Value) -> Value:
    h = cycle(b, "h", [x], start)
    z = b.input("z", TensorType((B, S, F), "float64"))
    return cycle(b, "s", [z], start, b.apply(Reduce("mean", (T,)), h))


STAY = [
    whole_operand,
    whole_operand_in_the_body,
    initial_value,
    start_of_a_delay,
    delayed_along_another_dim,
    frames_so_far_along_one_dim,
    work_between,
    independent,
    other_dim,
]


@pytest.mark.parametrize("make", STAY)
def test_two_stay_two(b: Builder, make: Any) -> None:
    x, start = b.input("x", FRAMES), b.input("start", START)
    graph = b.graph({"y": make(b, x, start)})
    assert str(fused(graph, 2)) == str(graph)


def linear(*sources: str, activation: str = "tanh") -> dict[str, Any]:
    return {"class": "linear", "from": list(sources), "n_out": 3, "activation": activation}


UNIT = {
    "a": linear("data:source", "prev:a"),
    "gate": linear("prev:b", activation="sigmoid"),
    "b": {"class": "eval", "from": ["a", "gate", "prev:a"], "eval": "source(0) * source(1) + source(2)"},
    "output": linear("b"),
}
EXTERN_DATA = {"data": {"dim": 3}}


def network(**unit: Any) -> dict[str, Any]:
    return {"output": {"class": "rec", "from": "data", "unit": {**UNIT, **unit}, "loss": "as_is"}}


def test_layers_are_where_they_were() -> None:
    built = build({"network": network(), "extern_data": EXTERN_DATA, "behavior_version": 21}, "train")
    graph = optimized(built)
    assert len(loops(graph)) == 1
    places = placement(built.graph, graph)
    found = {path: place.where for path, place in places.items() if path != "output"}
    assert found == {"output/a": "loop", "output/gate": "loop", "output/b": "loop", "output/output": "after"}
    assert places["output/a"].reason == "it needs prev:a, which needs a"
    assert places["output/b"].reason == "it needs gate, which needs prev:b, which needs b"


def test_a_search_and_a_loop_of_unknown_length_stay_as_they_are() -> None:
    end = {"class": "compare", "from": "b:mean", "kind": "greater", "value": 0.5}
    mean = {"class": "reduce", "mode": "mean", "axis": "F", "from": "b"}
    unit = {"a": linear("prev:a"), "b": linear("a", "prev:b"), "b:mean": mean, "end": end, "output": linear("b")}
    net = {
        "first": {"class": "rec", "from": [], "unit": unit, "max_seq_len": 4},
        "output": {"class": "rec", "from": "first", "unit": network()["output"]["unit"]},
    }
    config = {"network": net, "extern_data": EXTERN_DATA, "behavior_version": 21}
    graph = optimize(build(config, "eval").graph)
    assert [loop.ending is not None for loop in loops(graph)] == [True, False]


def test_gradients_are_those_without_optimisation() -> None:
    generator = np.random.default_rng(5)
    data = {"data": generator.normal(size=(3, 5, 3))}
    lengths = {"data": [5, 2, 4]}
    found = []
    for optimize_it in (True, False):
        net = rl.compile(network(), EXTERN_DATA, "train", optimize=optimize_it, behavior_version=21, dtype="float64")
        values = np.random.default_rng(7)
        for _, variable in sorted(net.params.items()):
            variable.assign(values.normal(0, 0.7, variable.shape))
        assert len(loops(net.graph)) == 1
        found.append(net.gradients(data, lengths))
    assert found[0].keys() == found[1].keys() and found[0]
    for name, gradient in found[0].items():
        np.testing.assert_allclose(gradient, found[1][name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_what_has_a_dim_of_the_first_loop_s_frames_stays_behind_it() -> None:
    """The keys' positions do not read the loop, but have the dim of its frames so far."""

    def linear(*sources: str) -> dict[str, Any]:
        return {"class": "linear", "activation": "tanh", "n_out": SIZE, "from": list(sources)}

    attention = {"class": "self_attention", "num_heads": 1, "total_key_dim": 2, "n_out": SIZE, "key_shift": "positions"}
    unit = {
        "first": linear("data:source", "prev:first"),
        "positions": {"class": "relative_positional_encoding", "n_out": 2, "clipping": 2, "from": "first"},
        "output": {**attention, "attention_left_only": True, "from": "first"},
        "second": {**linear("first", "prev:second"), "is_output_layer": True},
    }
    network = {"output": {"class": "rec", "from": "data", "unit": unit}}
    built = build({"behavior_version": 21, "extern_data": {"data": {"dim": SIZE}}, "network": network}, "eval")
    graphs = [optimized(built, enabled) for enabled in (True, False)]
    assert len(loops(graphs[0])) == 1
    data, lengths = np.random.default_rng(1).normal(size=(3, 4, SIZE)), LENGTHS["data"]
    assert_equal(*(run(built, graph, {"data": data}, {"data": lengths}) for graph in graphs))
