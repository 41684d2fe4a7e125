"""IR text: names without counters, types once, lines that a screen shows, the same in every process."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from dataclasses import dataclass

import pytest
from hypothesis import given

from returnn_lite.dims import DimKind, Symbol, TensorType
from returnn_lite.ir import Graph, Origin, Value
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.op import Effect
from returnn_lite.ir.ops.contraction import Dot
from returnn_lite.ir.ops.elementwise import Elementwise
from returnn_lite.ir.ops.reduction import Moments, TopK
from returnn_lite.ir.ops.search import CombineScores
from returnn_lite.ir.ops.sources import Constant, Initializer, Parameter, StepIndex
from returnn_lite.ir.text import WIDTH, Writer, attribute_text
from tests.passes.bodies import Drawn, graphs

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
B = Symbol("B", DimKind.BATCH)
T = Symbol("T", varies_over=(B,))
F = Symbol("F", DimKind.FEATURE, 2)
G = Symbol("G", DimKind.FEATURE, 3)
K = Symbol("K", DimKind.FEATURE, 2)
ZERO = Initializer("constant", (("value", 0.0),))


def lines_of(graph: Graph) -> list[str]:
    """The lines with one space where there are several."""
    return [" ".join(line.split()) for line in str(graph).splitlines()]


def network() -> Graph:
    b = Builder()
    x = b.input("data", TensorType((B, T, F)))
    with b.within(Origin("layer")):
        product = b.apply(Dot((F,)), x, b.apply(Parameter("layer/W", (F, G), ZERO)))
        start = b.constant(0.0)
        b.open_loop(T)
        before = b.delay("prev:layer", TensorType((B, G)), start)
        both = b.apply(Elementwise("add"), b.element(product), before.now)
        scaled = b.apply(Elementwise("mul"), both, b.constant(0.5))
        before.next = b.apply(Elementwise("add"), scaled, b.cast(b.apply(StepIndex()), "float32"))
        found = b.close_loop([("layer", before.next)])
    return b.graph({"layer:layer": found["layer"]})


def test_a_whole_text() -> None:
    """Parameters have their names, scalars stand where they are used, a type is there where it changes."""
    assert lines_of(network()) == [
        "data = input # [B, T, F(2)]",
        "layer/W = parameter() # [F(2), G(3)]",
        "layer:dot = dot(data, layer/W, over=F) # [B, T, G(3)]",
        "loop T {",
        "layer:dot[t] = layer:dot[T]",
        "prev:layer = delay(layer:add, 0.0) # [B, G(3)]",
        "layer:add.2 = add(layer:dot[t], prev:layer)",
        "layer:mul = mul(layer:add.2, 0.5)",
        "layer:step_index = step_index() # [] int32",
        "layer:cast = cast(layer:step_index, dtype='float32') # []",
        "layer:add = add(layer:mul, layer:cast)",
        "layer = stack(layer:add)",
        "}",
        "return layer:layer = layer",
    ]


def test_literals_are_of_the_usual_types() -> None:
    """Another dtype and classes would be lost: such a constant has a line."""
    b = Builder()
    for op in (Constant(1, "int32"), Constant(True, "bool"), Constant(1, "int8")):
        b.apply(op)
    b.apply(Constant(1, "int32", (), F))
    labels = [line.split(" = ")[1] for line in lines_of(b.graph({}))]
    assert labels == [
        "constant(value=1, dtype='int8') # [] int8",
        "constant(value=1, dtype='int32', sparse=F) # [] int32 of F(2)",
    ]


def test_the_dims_of_a_number_show_in_what_is_made_of_it() -> None:
    b = Builder()
    ones = b.apply(Constant(1.0, "float32", (F,)))
    b.apply(Elementwise("exp"), b.apply(Elementwise("add"), ones, ones))
    assert lines_of(b.graph({})) == ["add = add(1.0, 1.0) # [F(2)]", "exp = exp(add)"]


def test_several_results_say_what_they_are() -> None:
    b = Builder()
    with b.within(Origin("layer")):
        b.emit(TopK(F, K), b.input("data", TensorType((F,))))
        b.emit(Moments(()), b.input("more", TensorType((F,))))
    assert lines_of(b.graph({}))[2:] == [
        "layer:values, layer:indices = top_k(data, over=F, k=K) # [K(2)]; [K(2)] int32 of F(2)",
        "layer:mean, layer:variance = moments(more, kept=()) # each []",
    ]


def test_a_literal_that_a_state_reads_before_it_is_made() -> None:
    b = Builder()
    start = b.constant(0.0)
    b.open_loop(T)
    before = b.delay("before", TensorType(()), start)
    before.next = b.constant(1.0)
    found = b.close_loop([("y", before.now)])
    assert lines_of(b.graph(found))[1:3] == [
        "before = delay(constant.2, 0.0) # []",
        "constant.2 = constant(value=1.0) # []",
    ]


def test_a_number_only_where_two_have_one_name() -> None:
    writer = Writer()
    one, two, three = (Value(f"a:add.{number}", TensorType(())) for number in (7, 8, 9))
    assert (writer.bind(one), writer.bind(two), writer.name(one)) == ("a:add", "a:add.2", "a:add")
    with writer.level():
        assert writer.bind(three) == "a:add.3"
    assert writer.bind(Value("a:add.4@beam", TensorType(()))) == "a:add@beam"
    assert writer.bind(Value("layer.2", TensorType(()))) == "layer.2"
    assert writer.bind(Value("a:add", TensorType(()))) == "a:add.3"  # what a level binds is not read behind it


@given(drawn=graphs())
def test_no_two_values_that_can_be_read_have_one_name(drawn: Drawn) -> None:
    """A stack belongs to the level around: what it stacks may have its name."""
    levels: list[set[str]] = [set()]
    for line in str(drawn.graph).splitlines():
        left, _, right = line.split("  #")[0].strip().partition(" = ")
        if left.endswith("{"):
            levels.append(set())
        elif left == "}":
            levels.pop()
        elif right and not left.startswith("return "):
            names = left.split(", ")
            visible = levels[:-1] if right.startswith(("stack(", "final(")) else levels
            assert not any(name in level for name in names for level in visible), line
            visible[-1].update(names)


@given(drawn=graphs())
def test_no_line_is_wider_than_a_screen(drawn: Drawn) -> None:
    assert max(map(len, str(drawn.graph).splitlines())) <= WIDTH == 140


def test_the_golden_texts_are_narrow() -> None:
    texts = [path.read_text() for path in (TOP / "tests/golden").glob("**/*.txt")]
    assert texts
    assert max(len(line) for text in texts for line in text.splitlines()) <= WIDTH


def test_wide_lines_are_folded_at_commas_then_in_names_then_anywhere() -> None:
    writer = Writer()
    with writer.level():
        writer.line("y = dot(" + ", ".join(["x" * 30] * 6) + ")", [TensorType((F,))])
    assert writer.lines == [
        "  y = dot(" + ", ".join(["x" * 30] * 4) + ",",
        "      " + ", ".join(["x" * 30] * 2) + ")",
        "      # [F(2)]",
    ]
    for text in ("+".join(["name"] * 60), "x" * 400):
        writer = Writer()
        writer.line(text)
        assert "".join(line.strip() for line in writer.lines) == text
        assert len(writer.lines) > 1
        assert max(map(len, writer.lines)) <= WIDTH


def test_the_types_of_several_results_are_said_once() -> None:
    writer = Writer()
    writer.line("h, c = step(x)", [TensorType((F,)), TensorType((F,))], TensorType((G,)))
    writer.line("h, c = step(x)", [TensorType((F,)), TensorType((G,))], TensorType((G,)))
    writer.line("h, c = step(x)", [TensorType((F,)), TensorType((F,))], TensorType((F,)))
    assert [line.partition("  # ")[2] for line in writer.lines] == ["each [F(2)]", "[F(2)]; [G(3)]", ""]


@dataclass(frozen=True)
class Options:
    """Nested attributes."""

    scale: float = 1.0
    dims: tuple[Symbol, ...] = ()
    label: str = ""


def score(x: object) -> object:
    return x


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((F,), "F"),
        ((F, G), "(F, G)"),
        ("ijfo", "'ijfo'"),
        (Effect.CHECK, "check"),
        (frozenset({"b", "a"}), "{'a', 'b'}"),
        (Options(dims=(F,)), "{scale: 1.0, dims: F}"),
        (CombineScores(score, "mine", True), "{function: score, name: 'mine', one_at_first: True}"),
        (Dot((F,)), "dot(over=F)"),
        (tuple(range(12)), "(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)"),
        (tuple(range(1000)), "(0, 1, 2, 3, 4, 5, 6, 7, … 992 more)"),
    ],
)
def test_attributes(value: object, text: str) -> None:
    assert attribute_text(value) == text


PROGRAM = """
import pathlib
from returnn_lite.compiler import build, optimized
from returnn_lite.config.compose import read_composed
for case in ("attention_decoder", "masked_label_model"):
    config = read_composed(pathlib.Path("tests/golden") / case / "net.yaml").data
    for mode in ("train", "search"):
        print(optimized(build(config, mode)))
"""


def test_the_same_text_in_any_process() -> None:
    texts = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            cwd=TOP,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert texts[0] == texts[1] != ""
