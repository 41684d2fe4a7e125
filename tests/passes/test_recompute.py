"""Which nodes are computed again: groups of what options mark, in the levels that they stand in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

import returnn_lite as rl
from returnn_lite.config.diagnostics import ConfigError
from returnn_lite.dims import TensorType
from returnn_lite.ir import Graph, Loop, Origin, Recompute, computed_once, walk
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.elementwise import PrintValue
from returnn_lite.ir.rewrite import retype
from returnn_lite.ir.verify import verify
from returnn_lite.passes.dead_nodes import dead_nodes
from returnn_lite.passes.recompute import recompute
from tests.passes.meaning import B, F, S, T, assert_same, meaning

EXTERN_DATA = {"data": {"dim": 5}, "classes": {"dim": 6, "sparse": True, "time_dim_axis": 1}}
SOFTMAX = {"class": "softmax", "loss": "ce", "target": "classes"}


def linear(source: Any, **options: Any) -> dict[str, Any]:
    return {"class": "linear", "activation": "tanh", "n_out": 4, "from": source, **options}


def checked(network: Mapping[str, Any], mode: Any = "train", **config: Any) -> Graph:
    return rl.check({"network": network, "extern_data": EXTERN_DATA, "behavior_version": 21, **config}, mode)


def groups(graph: Graph) -> list[list[str]]:
    """The layers of each group, in order."""
    found = [node.op for node in walk(graph.nodes) if isinstance(node.op, Recompute)]
    return [list(dict.fromkeys(node.origin.layer for node in op.body)) for op in found]


def labels(graph: Graph) -> list[list[str]]:
    """The primitives of each group, in order, but for numbers."""
    found = [node.op for node in walk(graph.nodes) if isinstance(node.op, Recompute)]
    return [[node.op.label for node in op.body if node.op.label != "constant"] for op in found]


def recurrent(**options: Any) -> dict[str, Any]:
    return {
        "r": {"class": "rec", "unit": "lstm", "n_out": 3, "from": "data", **options},
        "output": SOFTMAX | {"from": "r"},
    }


def decoder(**options: Any) -> dict[str, Any]:
    unit = {
        "s": {"class": "rnn_cell", "unit": "lstm", "n_out": 3, "from": ["prev:c", "data:source"]},
        "q": linear("s"),
        "e": {"class": "combine", "kind": "add", "from": ["base:enc", "q"]},
        "a": {"class": "softmax_over_spatial", "from": "e"},
        "c": {"class": "generic_attention", "weights": "a", "base": "base:enc"},
        "output": linear(["s", "c"]),
    }
    embedding = linear("data:classes", activation=None)
    return {
        "enc": linear("data"),
        "emb": embedding,
        "r": {"class": "rec", "unit": unit, "from": "emb", "target": "classes", **options},
        "output": SOFTMAX | {"from": "r"},
    }


def test_a_recurrence_with_its_input_products() -> None:
    assert labels(checked(recurrent(recompute="all"))) == [["dot", "add", "lstm"]]


def test_the_steps_of_a_recurrence_alone() -> None:
    assert labels(checked(recurrent(recompute=["steps"]))) == [["lstm"]]


def test_the_steps_of_a_stack_are_apart_from_its_input_products() -> None:
    found = labels(checked(recurrent(recompute=["steps"], unit=["lstm", "lstm"])))
    assert found == [["dot", "add"], ["lstm"], ["dot", "add"], ["lstm"]]


def test_nothing_where_no_gradients_are_taken() -> None:
    for mode in ("eval", "forward"):
        assert groups(checked(recurrent(recompute="all"), mode)) == []
    assert groups(checked(recurrent(recompute="none"))) == []


@pytest.mark.parametrize("optimize", [True, False])
def test_a_loop_goes_on_from_its_states(optimize: bool) -> None:
    built = rl.check(
        {"network": recurrent(recompute="all", unit="milstm"), "extern_data": EXTERN_DATA, "behavior_version": 21},
        optimize=optimize,
    )
    (group,) = [node.op for node in built.nodes if isinstance(node.op, Recompute)]
    (loop,) = [node.op for node in group.body if isinstance(node.op, Loop)]
    assert len(loop.states) == 2
    assert {state.next for state in loop.states} == {stack.now for stack in loop.stacks}


def test_a_list_of_layers() -> None:
    assert groups(checked(decoder(recompute=["q", "a"]))) == [["r/q"], ["r/a"]]


def test_layers_of_a_list_that_read_each_other_are_one_group() -> None:
    assert groups(checked(decoder(recompute=["e", "a"]))) == [["r/e", "r/a"]]


def test_each_outermost_layer_by_itself() -> None:
    found = groups(checked(decoder(), recompute=["enc", "emb"]))
    assert found == [["emb"], ["enc"]]


def test_what_is_inside_goes_before_what_is_around() -> None:
    inner = {"a": linear("data"), "output": linear("a")}
    outer = {"b": linear("data"), "s": {"class": "subnetwork", "subnetwork": inner, "from": "b", "recompute": "none"}}
    outer |= {"output": linear("s")}
    network = {"x": {"class": "subnetwork", "subnetwork": outer, "from": "data", "recompute": "all"}}
    assert groups(checked(network | {"output": SOFTMAX | {"from": "x"}})) == [["x/b"], ["x/output"]]


def marked(b: Builder, name: str = "m") -> Any:
    return b.within(Origin(name, recompute=name))


def test_a_way_out_and_back_in_is_two_groups() -> None:
    b = Builder()
    x = b.input("x", TensorType((B, F)))
    with marked(b):
        first = b.unary("tanh", x)
    between = b.unary("exp", first)
    with marked(b):
        second = b.add(b.unary("tanh", between), b.unary("sigmoid", first))
    graph = recompute(b.graph({"y": second}))
    assert labels(graph) == [["tanh"], ["tanh", "sigmoid", "add"]]
    verify(graph, "recompute")


def test_nodes_that_only_read_the_same_are_two_groups() -> None:
    b = Builder()
    x = b.input("x", TensorType((B, F)))
    with marked(b):
        both = {name: b.unary(name, x) for name in ("tanh", "exp")}
    assert labels(recompute(b.graph(both))) == [["tanh"], ["exp"]]


def test_groups_of_two_marks_never_need_each_other() -> None:
    """a1 -> b1 and b2 -> a2: as {a1, a2} and {b1, b2}, each would come before the other."""
    b = Builder()
    x = b.input("x", TensorType((B, F)))
    with marked(b, "a"):
        a1 = b.unary("tanh", x)
    with marked(b, "b"):
        b2 = b.unary("exp", x)
        b1 = b.mul(b2, a1)
    with marked(b, "a"):
        a2 = b.add(b.mul(a1, b2), b1)
    verify(recompute(b.graph({"a1": a1, "a2": a2, "b1": b1})), "recompute")


def test_what_has_no_gradients_is_no_group() -> None:
    b = Builder()
    x = b.input("x", TensorType((B, F)))
    with marked(b):
        y = b.binary("greater", b.unary("tanh", x), 0.0)
    assert labels(recompute(b.graph({"y": y}))) == []


def test_effects_stay_outside() -> None:
    b = Builder()
    x = b.input("x", TensorType((B, F)))
    with marked(b):
        y = b.unary("exp", b.apply(PrintValue("x"), b.unary("tanh", x)))
    assert labels(recompute(b.graph({"y": y}))) == [["tanh"], ["exp"]]


def loop_in_loop(effect: str) -> Graph:
    """Two loops; a step of that one has an effect."""
    b = Builder()
    x, y = b.input("x", TensorType((B, T, F))), b.input("y", TensorType((B, S, F)))
    zero = b.constant(0.0, "float32", (B, F))
    with marked(b):
        b.open_loop(T)
        outer = b.delay("outer", zero.type, zero)
        start = b.add(outer.now, b.element(x))
        b.open_loop(S)
        inner = b.delay("inner", zero.type, zero)
        step = b.unary("tanh", b.mul(inner.now, b.element(y)))
        inner.next = b.apply(PrintValue("step"), step) if effect == "inner" else step
        step = b.unary("exp", b.add(b.close_loop([], [("last", inner.next)])["last"], start))
        outer.next = b.apply(PrintValue("step"), step) if effect == "outer" else step
        return b.graph(b.close_loop([("h", outer.next)]))


def test_a_loop_in_no_other_is_part_of_a_group() -> None:
    assert labels(recompute(loop_in_loop(effect=""))) == [["loop"]]


def test_a_loop_in_a_loop_is_part_of_a_group() -> None:
    assert labels(recompute(loop_in_loop(effect="outer"))) == [["add", "loop", "add", "exp"]]


def test_a_loop_in_a_loop_that_does_something_has_groups_of_its_own() -> None:
    assert labels(recompute(loop_in_loop(effect="inner"))) == [["mul", "tanh"], ["add", "add", "exp"]]


@pytest.mark.parametrize(
    "graph", [loop_in_loop(effect=""), checked(decoder(recompute="all"))], ids=["loops", "decoder"]
)
def test_groups_change_no_meaning(graph: Graph) -> None:
    grouped = verify(recompute(graph), "recompute")
    once = Graph(grouped.inputs, computed_once(grouped.nodes), grouped.outputs, grouped.checks, grouped.shown)
    assert groups(grouped) and not groups(once)
    verify(once, "computed_once")
    if graph.inputs[0].name == "x":
        assert_same(meaning(grouped), meaning(graph))


def test_graphs_with_groups_are_rewritten_as_others_are() -> None:
    graph = recompute(loop_in_loop(effect=""))
    assert str(retype(graph)) == str(graph)
    assert str(dead_nodes(graph)) == str(graph)


def test_a_dead_result_leaves_its_group() -> None:
    b = Builder()
    x = b.input("x", TensorType((B, F)))
    with marked(b):
        first = b.unary("tanh", x)
        second = b.unary("exp", first)
    graph = recompute(b.graph({"first": first, "second": second}))
    smaller = dead_nodes(Graph(graph.inputs, graph.nodes, {"first": graph.outputs["first"]}))
    assert labels(smaller) == [["tanh"]]
    verify(smaller, "dead_nodes")


def test_text() -> None:
    b = Builder()
    x = b.input("x", TensorType((B, F)))
    with marked(b):
        y = b.unary("exp", b.unary("tanh", x))
    assert str(recompute(b.graph({"y": b.unary("sigmoid", y)}))).splitlines()[1:] == [
        "recompute {",
        "  m:tanh = tanh(x)",
        "  m:exp = exp(m:tanh)",
        "}",
        "sigmoid = sigmoid(m:exp)",
        "return y = sigmoid",
    ]


MISTAKES: list[tuple[Any, str, tuple[Any, ...]]] = [
    ("some", "expected", ("network", "r", "recompute")),
    (
        ["s", "energies"],
        "there is no layer 'energies' inside that could be recomputed",
        ("network", "r", "recompute", 1),
    ),
    ({"auto": {"memory": "4 cows"}}, "'4 cows' is no size of memory", ("network", "r", "recompute")),
    ({"auto": {}}, "auto needs the memory", ("network", "r", "recompute")),
    ({"memory": 3}, "has no 'memory'", ("network", "r", "recompute", "memory")),
]


@pytest.mark.parametrize(("value", "message", "path"), MISTAKES, ids=lambda value: str(value)[:20])
@pytest.mark.parametrize("mode", ["train", "search"])
def test_a_value_that_is_not_understood(value: Any, message: str, path: tuple[Any, ...], mode: str) -> None:
    with pytest.raises(ConfigError) as error:
        checked(decoder(recompute=value), mode)
    (diagnostic,) = error.value.diagnostics
    assert message in diagnostic.message
    assert diagnostic.path == path


def test_an_outermost_layer_that_is_not_there() -> None:
    with pytest.raises(ConfigError) as error:
        checked(decoder(), recompute=["enc", "decoder"])
    assert error.value.diagnostics[0].path == ("recompute", 1)


def test_the_parts_of_a_unit_are_its_steps() -> None:
    with pytest.raises(ConfigError, match="There are steps"):
        checked(recurrent(recompute=["gates"]))


def test_the_steps_of_both_directions() -> None:
    assert labels(checked(recurrent(recompute=["steps"], direction="both", n_out=4))) == [["lstm"], ["lstm"]]
    unit = {"class": "lstm", "units": 3}
    stack = labels(checked(recurrent(recompute=["steps"], direction="both", unit=[unit, unit], n_out=None)))
    assert [label for group in stack for label in group] == ["lstm"] * 4
