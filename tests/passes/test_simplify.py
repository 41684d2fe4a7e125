"""Each rule of `simplify`: where it applies the graph gets smaller, and its results and gradients stay."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from returnn_lite.dims import DimKind, Symbol, TensorType, linear_dim
from returnn_lite.ir import Graph, Loop, Op, Value, walk
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.legality import ON_ONE_CLOCK
from returnn_lite.ir.ops import axes, elementwise, indexing, sources
from returnn_lite.ir.verify import verify
from returnn_lite.passes.clocks import clocks
from returnn_lite.passes.dead_nodes import dead_nodes
from returnn_lite.passes.rules.algebra import ALGEBRA
from returnn_lite.passes.rules.constants import CONSTANTS, rounded
from returnn_lite.passes.rules.rule import Rule
from returnn_lite.passes.rules.shapes import SHAPES
from returnn_lite.passes.simplify import RULES, simplify
from returnn_lite.tf.executable import Executable
from tests.passes.bodies import Drawn, graphs
from tests.passes.meaning import CONSTANT, B, F, T, assert_same, meaning
from tests.passes.small import Small
from tests.reference.interpreter import interpret
from tests.reference.named import Lengths

ONE = Symbol("one", DimKind.FEATURE, 1)
F2 = Symbol("F2", DimKind.FEATURE, 2)
F3 = Symbol("F3", DimKind.FEATURE, 3)
F6 = Symbol("F6", DimKind.FEATURE, 6)
JOINED = linear_dim([(F2, 1), (F3, 1)], 0)
NUMBERS = [-math.inf, -2.0, -0.0, 0.0, 0.5, 3.0, math.inf, math.nan]
EDGES = Symbol("edges", DimKind.FEATURE, len(NUMBERS))
OTHER = Symbol("others", DimKind.FEATURE, len(NUMBERS))


def matching(rule: Rule, graph: Graph) -> list[Any]:
    """What a rule puts in place of the nodes of a graph."""
    producers = {output: node for node in graph.nodes for output in node.outputs}
    found = (rule.rewrite(node, producers.get) for node in graph.nodes if rule.on in (type(node.op), node.op))
    return [expression for expression in found if expression is not None]


def left_side(rule: Rule, b: Builder, letters: dict[str, Value], dtype: str) -> Value:
    """The value that an equation's left side says."""

    def operand(x: Any, in_test: bool) -> Value:
        return x if isinstance(x, Value) else b.constant(x, "bool" if in_test else dtype)

    def function(kind: str) -> Callable[..., Value]:
        op: Op = elementwise.Select() if kind == "select" else elementwise.Elementwise(kind)
        in_test = kind.startswith("logical")
        return lambda *xs: b.apply(
            op, *(operand(x, in_test or (kind == "select" and place == 0)) for place, x in enumerate(xs))
        )

    text = rule.text.split("=")[0]
    kinds = set(re.findall(r"(\w+)\(", text))
    value = eval(text, {**{kind: function(kind) for kind in kinds}, **letters})
    assert isinstance(value, Value)
    return value


def is_of_bools(rule: Rule) -> bool:
    """Whether the letters of an equation are truth values."""
    return "logical" in rule.text and "equal" not in rule.text and "select" not in rule.text


def letters_of(rule: Rule, b: Builder, make: Callable[[str, bool], Value]) -> dict[str, Value]:
    """A value for each letter of an equation."""
    letters = sorted(set(re.findall(r"\b([a-z])\b", rule.text)))
    return {letter: make(letter, is_of_bools(rule) or letter == "c") for letter in letters}


@pytest.mark.parametrize("rule", ALGEBRA, ids=lambda rule: rule.text)
def test_equation(rule: Rule) -> None:
    """For all pairs of numbers, with infinities, NaN and both zeros (which count as equal)."""
    b = Builder()
    dims = {"x": EDGES, "y": OTHER, "c": OTHER}

    def made(letter: str, of_bools: bool) -> Value:
        return b.input(letter, TensorType((dims[letter],), "bool" if of_bools else "float64"))

    graph = b.graph({"result": left_side(rule, b, letters_of(rule, b, made), "float64")})
    (expression, *_) = matching(rule, graph)
    assert expression is not None
    result = verify(simplify(graph), "simplify")
    working = [node for node in dead_nodes(result).nodes if not isinstance(node.op, axes.Expand)]
    assert len(working) < len(graph.nodes)
    feeds = {
        value.name: np.array(NUMBERS) if value.type.dtype == "float64" else np.arange(len(NUMBERS)) % 2 == 0
        for value in graph.inputs
    }
    with np.errstate(all="ignore"):
        before, after = (interpret(g, feeds, Lengths({}), {}, {})["result"] for g in (graph, result))
    np.testing.assert_array_equal(after.over(tuple(before.dims)), before.array)


def test_equations_keep_gradients() -> None:
    """Those of float values, all in one graph."""
    b = Builder()
    total = b.constant(0.5, "float64")
    for number, rule in enumerate(ALGEBRA):
        if is_of_bools(rule) or "equal" in rule.text or "stop_gradient" in rule.text:
            continue

        def made(letter: str, of_bools: bool, number: int = number) -> Value:
            value = b.apply(sources.Parameter(f"{letter}{number}", (F,), CONSTANT, "float64"))
            return b.apply(elementwise.Elementwise("greater"), value, b.constant(0.0, "float64")) if of_bools else value

        weights = b.apply(sources.ConstantArray((1.5 + number, -2.0), (F,), "float64"))
        value = left_side(rule, b, letters_of(rule, b, made), "float64")
        total = b.add(total, b.reduce("sum", b.mul(b.unary("sin", value), weights), F))
    x = b.input("x", TensorType((B,), "float64"))
    graph = b.graph({"loss": total, "x": x})
    random = np.random.default_rng(1)
    start: dict[str, Any] = {}
    gradients = []
    for g in (graph, simplify(graph)):
        executable = Executable(g, B, dtype="float64")
        for name, variable in executable.parameters.variables.items():
            variable.assign(start.setdefault(name, random.normal(size=variable.shape)))
        gradients.append(executable.run_with_gradients({"x": np.zeros(1)}, of="loss")[1])
    for name, gradient in gradients[0].items():
        np.testing.assert_allclose(gradients[1][name], gradient, rtol=1e-12, err_msg=name)


def _x(b: Builder, *dims: Symbol, dtype: str = "float64") -> Value:
    return b.input("x", TensorType((B, *dims), dtype))


def _joined(b: Builder) -> Value:
    y = b.input("y", TensorType((B, F3), "float64"))
    return b.concat([(_x(b, F2), F2), (y, F3)], JOINED)


def _parts(b: Builder) -> Value:
    x = _x(b, F6)
    first, second = b.split(x, F6, (F2, Symbol("F4", DimKind.FEATURE, 4)))
    assert first.type.feature is None
    return b.concat([(first, F2), (second, second.type.dims[-1])])


def _split(b: Builder) -> Value:
    return b.split_dim(_x(b, F6), F6, (F3, F2))


def _merged(b: Builder) -> Value:
    return b.merge_dims(_x(b, F3, F2), (F3, F2), F6)


EXAMPLES: dict[str, Callable[[Builder], Value]] = {
    "f(constant, ..) = constant": lambda b: b.add(b.constant(2.0), 3.0),
    "select(constant, ..) = constant": lambda b: b.select(b.constant(True, "bool"), b.constant(1.0), 2.0),
    "cast(constant) = constant": lambda b: b.cast(b.constant(2.7), "int32"),
    "expand(constant) = constant": lambda b: b.expand(b.constant(2.0), F),
    "relabel(constant) = constant": lambda b: b.relabel(b.constant(1.0, dims=(F,)), F, F2),
    "slice(concat(x, y)) = slice(x)": lambda b: b.slice(_joined(b), JOINED, 3, Symbol("S2", DimKind.FEATURE, 2)),
    "slice(slice(x)) = slice(x)": lambda b: b.slice(b.slice(_x(b, F6), F6, 2, F3), F3, 1, F2),
    "slice(x), all of it = x": lambda b: b.slice(_x(b, F2), F2, 0, F),
    "concat(slice(x), slice(x)), all of it = x": _parts,
    "concat(x) = x": lambda b: b.apply(indexing.Concat((F2,), F), _x(b, F2)),
    "relabel(relabel(x)) = relabel(x)": lambda b: b.relabel(
        b.relabel(_x(b, F2), F2, F), F, Symbol("G2", DimKind.FEATURE, 2)
    ),
    "relabel(x, d, d) = x": lambda b: b.apply(axes.Relabel(F2, F2), _x(b, F2)),
    "split_dim(merge_dims(x)) = x": lambda b: b.split_dim(_merged(b), F6, (F3, F2)),
    "merge_dims(split_dim(x)) = x": lambda b: b.merge_dims(_split(b), (F3, F2), F6),
    "squeeze(expand(x)) = x": lambda b: b.apply(axes.Squeeze(ONE), b.expand(_x(b, F2), ONE, F3)),
    "expand(squeeze(x)) = x": lambda b: b.expand(b.apply(axes.Squeeze(ONE), _x(b, ONE, F2)), ONE),
    "expand(expand(x)) = expand(x)": lambda b: b.expand(b.expand(_x(b, F2), F3), F6),
    "reverse(reverse(x)) = x": lambda b: b.apply(axes.Reverse(T), b.apply(axes.Reverse(T), _x(b, T))),
    "cast(cast(x)) = cast(x)": lambda b: b.cast(b.cast(_x(b, F2, dtype="int32"), "float64"), "int32"),
    "cast(x), of the dtype = x": lambda b: b.apply(elementwise.Cast("float64"), _x(b, F2)),
    "f(expand(x), y) = f(x, y)": lambda b: b.mul(b.expand(_x(b, F2), F3), b.input("y", TensorType((F3,), "float64"))),
}


def test_every_rule_has_an_example() -> None:
    assert set(EXAMPLES) == {rule.text for rule in (*CONSTANTS, *SHAPES)}
    assert len({rule.text for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("rule", (*CONSTANTS, *SHAPES), ids=lambda rule: rule.text)
def test_rule(rule: Rule) -> None:
    b = Builder()
    value = EXAMPLES[rule.text](b)
    graph = b.graph({"result": value})
    assert matching(rule, graph)
    result = verify(simplify(graph), "simplify")
    assert str(result) != str(graph)
    assert str(simplify(result)) == str(result)
    before, after = meaning(graph), meaning(result)
    assert_same(after, before)
    assert result.outputs["result"].type == graph.outputs["result"].type


UNTOUCHED: dict[str, Callable[[Builder], Value]] = {
    "a slice over two parts": lambda b: b.slice(_joined(b), JOINED, 1, Symbol("S3", DimKind.FEATURE, 3)),
    "every other frame": lambda b: b.slice(_joined(b), JOINED, 0, Symbol("S2", DimKind.FEATURE, 2), step=2),
    "split into others": lambda b: b.split_dim(_merged(b), F6, (Symbol("two", DimKind.FEATURE, 2), F3)),
    "a frame at a time only": lambda b: b.apply(axes.Reverse(T), _x(b, T)),
    "by way of an int": lambda b: b.cast(b.cast(_x(b, F2), "int32"), "float64"),
    "a product that need not be finite": lambda b: b.mul(_x(b, F2), 0.0),
    "expanded for a reader": lambda b: b.unary("tanh", b.expand(_x(b, F2), F3)),
    "printed twice": lambda b: b.add(*(b.apply(elementwise.PrintValue(""), x) for x in [_x(b, F2)] * 2)),
    "by nothing": lambda b: b.apply(elementwise.Elementwise("truediv"), b.constant(2.0), b.constant(0.0)),
    "beyond its dtype": lambda b: b.add(b.constant(2**31 - 1, "int32"), 1),
}


@pytest.mark.parametrize("make", UNTOUCHED.values(), ids=UNTOUCHED.keys())
def test_where_no_rule_applies(make: Callable[[Builder], Value]) -> None:
    b = Builder()
    graph = b.graph({"result": make(b)})
    assert str(simplify(graph)) == str(graph)


def test_constants_are_rounded_as_in_the_run() -> None:
    b = Builder()
    graph = dead_nodes(simplify(b.graph({"result": b.add(b.constant(0.1), 0.2)})))
    (node,) = graph.nodes
    assert isinstance(node.op, sources.Constant)
    assert node.op.value == float(np.float32(0.1) + np.float32(0.2)) != 0.1 + 0.2


@given(st.floats(), st.sampled_from(["float32", "float64"]))
def test_rounding(number: float, dtype: str) -> None:
    with np.errstate(over="ignore"):
        expected = np.dtype(dtype).type(number)
    try:
        found = rounded(number, dtype)
    except OverflowError:
        assert np.isinf(expected)
    else:
        np.testing.assert_array_equal(found, expected)


def test_a_body_uses_what_is_there_before_the_loop() -> None:
    """But a step's number is not that of a loop around."""
    b = Builder()
    b.input("frames", TensorType((B, T), "float64"))
    x = b.input("x", TensorType((B, F), "float64"))
    outer = b.unary("tanh", x)
    b.open_loop(T)
    count = b.apply(sources.StepIndex())
    b.open_loop(T2 := Symbol("T2", DimKind.SPATIAL, 2))
    inner = b.add(b.cast(b.add(b.apply(sources.StepIndex()), count), "float64"), b.unary("tanh", x))
    found = b.close_loop([("inner", inner)])
    found = b.close_loop([("y", found["inner"])])
    graph = b.graph({"y": found["y"], "outer": outer})
    result = verify(simplify(graph), "simplify")
    kinds = [node.op.label for node in walk(result.nodes)]
    assert kinds.count("tanh") == 1
    assert kinds.count("step_index") == 2
    assert T2 in result.outputs["y"].type
    assert_same(meaning(result), meaning(graph))


def test_what_no_step_changes_is_made_simpler_under_a_mask() -> None:
    """Where it is made does not matter: the negation is of every step, the sum of those of the mask."""
    g = Small()
    negative = g.b.unary("neg", g.start)
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        y = g.b.add(g.frame, negative)
    graph = clocks(g.closed(y=y))
    result = dead_nodes(verify(simplify(graph), "simplify", ON_ONE_CLOCK))
    kinds = [node.op.label for node in walk(result.nodes)]
    assert "sub" in kinds and "add" not in kinds and "neg" not in kinds
    assert_same(meaning(result), meaning(graph))


def test_draws_of_each_step_are_not_those_of_a_loop_around() -> None:
    b = Builder()
    draw = sources.RandomDraw("normal", 0.0, 1.0, (F,), "seed", "float64", fresh=True)
    before = b.apply(draw)
    b.open_loop(T)
    found = b.close_loop([("y", b.apply(draw))])
    graph = simplify(b.graph({"y": found["y"], "before": before}))
    assert [node.op for node in walk(graph.nodes) if not isinstance(node.op, Loop)] == [draw, draw]


@given(drawn=graphs())
def test_once_is_enough(drawn: Drawn) -> None:
    result = simplify(drawn.graph)
    assert str(simplify(result)) == str(result)
