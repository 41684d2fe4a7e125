"""Small graphs of one loop, and what a pass makes of each as text: one case for each thing that a pass does.

The texts of a pass are in `texts/PASS.txt`, without types; `pytest --update-golden` rewrites them. A pass must not
change what a graph means, as far as the interpreter knows: that is checked beside.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from returnn_lite.dims import Dim, DimKind, Masked, Symbol, TensorType
from returnn_lite.ir import Ending, Graph, Value
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.open_body import OpenState
from returnn_lite.ir.ops.contraction import Dot
from returnn_lite.ir.ops.elementwise import Elementwise
from returnn_lite.ir.ops.reduction import Reduce, Softmax
from returnn_lite.ir.ops.search import Choose, FirstBeam, ScoreRule
from returnn_lite.ir.ops.sources import Parameter
from returnn_lite.ir.verify import verify
from returnn_lite.passes.clocks import clocks
from returnn_lite.passes.distribute_loops import distribute_loops
from tests.passes.meaning import CONSTANT, B, F, T, assert_same, meaning

TEXTS = pathlib.Path(__file__).parent / "texts"
MOST_LINES = 40
BEAM = Symbol("beam", DimKind.BEAM, 2)
G = Symbol("G", DimKind.FEATURE, 2)
Outputs = Mapping[str, Value]


@dataclass
class Small:
    """A graph that is being built: x [B, T, F], start [B, F] and mask [B, T] are given. The loop over T is open."""

    b: Builder = field(default_factory=Builder)

    def __post_init__(self) -> None:
        self.x = self.b.input("x", TensorType((B, T, F), "float64"))
        self.start = self.b.input("start", TensorType((B, F), "float64"))
        self.mask = self.b.input("m1", TensorType((B, T), "bool"))
        self.w = self.b.apply(Parameter("w", (F, G), CONSTANT, "float64"))
        self.b.open_loop(T)

    @property
    def frame(self) -> Value:
        """x at this step."""
        return self.b.element(self.x)

    @property
    def masked_steps(self) -> Dim:
        """The frames at which the mask is true."""
        return Masked(T, self.mask, "m1", (B,))

    def tanh(self, value: Value) -> Value:
        """A function of one value."""
        return self.b.apply(Elementwise("tanh"), value)

    def add(self, one: Value, other: Value) -> Value:
        """A function of two values."""
        return self.b.apply(Elementwise("add"), one, other)

    def dot(self, value: Value) -> Value:
        """A product with weights, [.., F] to [.., F]."""
        return self.b.relabel(self.b.apply(Dot((F,)), value, self.w), G, F)

    def total(self, value: Value) -> Value:
        """The sum over the features."""
        return self.b.apply(Reduce("sum", (F,)), value)

    def state(self, name: str = "h") -> OpenState:
        """A state that begins with `start`."""
        return self.b.delay(name, TensorType((B, F), "float64"), self.start)

    def cycle(self, value: Value, name: str = "h") -> Value:
        """tanh(value + itself one step before)."""
        before = self.state(name)
        before.next = self.tanh(self.add(value, before.now))
        return before.next

    def closed(self, **stacks: Value) -> Graph:
        """The graph, with these stacks as its outputs."""
        return self.b.graph(self.b.close_loop(list(stacks.items())))


@dataclass
class Searching:
    """A search that is being built, its loop open: `score` and `ended` are of the step before, as built."""

    b: Builder = field(default_factory=Builder)

    def __post_init__(self) -> None:
        self.classes = Symbol("classes", DimKind.FEATURE, 3)
        self.logits = self.b.input("logits", TensorType((B, self.classes)))
        first = self.b.apply(FirstBeam(BEAM))
        self.first = self.b.constant(0, "int32", sparse=self.classes)
        self.bound = self.b.constant(4, "int32")
        not_yet = self.b.constant(False, "bool")
        self.steps = Symbol("steps", varies_over=(B,))
        self.b.open_loop(self.steps)
        self.score = self.b.delay("score", first.type.with_dims(B), first)
        self.ended = self.b.delay("ended", not_yet.type.with_dims(B), not_yet)
        self.label = self.b.delay("label", self.first.type.with_dims(B), self.first)

    def choose(self, log_p: Value, score: Value | None = None) -> tuple[Value, Value]:
        """A label and its score."""
        before = self.score.now if score is None else score
        choice = Choose(self.classes, BEAM, ScoreRule())
        label, _, after = self.b.emit(choice, log_p, before, self.ended.now, self.b.constant(1, "int32"))
        return label, after

    def log_p(self, label: Value) -> Value:
        """Scores of the labels, by the one before."""
        moved = self.b.add(self.logits, self.b.cast(label, "float32"))
        return self.b.apply(Softmax(self.classes, log=True), moved)

    def closed(self, label: Value, score: Value, **stacks: Value) -> Graph:
        """The graph, which ends with label 0."""
        self.label.next, self.score.next = label, score
        is_end = self.b.binary("equal", label, 0)
        self.ended.next = self.b.binary("logical_or", self.ended.now, is_end)
        ending = Ending(self.ended.next, self.bound, False)
        return self.b.graph(self.b.close_loop([("labels", label), *stacks.items()], [("scores", score)], ending))


Case = Callable[[], Graph]


def without_types(graph: Graph) -> str:
    """IR text without the comments."""
    lines = (line.split("  #")[0].rstrip() for line in str(graph).splitlines())
    return "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))


def _sections(text: str) -> Iterator[tuple[str, str]]:
    for part in text.split("== ")[1:]:
        name, _, body = part.partition("\n")
        yield name, body.rstrip("\n")


def assert_text(name: str, case: Case, run: Callable[[Graph], Graph], request: pytest.FixtureRequest) -> None:
    """The pass makes of the case what its file says under the name of the case."""
    pass_name, _, case_name = name.partition("/")
    file = TEXTS / f"{pass_name}.txt"
    texts = dict(_sections(file.read_text())) if file.exists() else {}
    found = without_types(verify(run(case()), pass_name))
    assert found.count("\n") < MOST_LINES
    if request.config.getoption("--update-golden"):
        texts[case_name] = found
        file.write_text("\n".join(f"== {title}\n{text}\n" for title, text in sorted(texts.items())))
    assert found == texts.get(case_name)


def distributed(graph: Graph) -> Graph:
    """The graph with its loops distributed, in which masked and other values meet by conversions."""
    return distribute_loops(clocks(graph))


def assert_meaning(case: Case, run: Callable[[Graph], Graph]) -> None:
    """The pass keeps what the case means."""
    graph = case()
    assert_same(meaning(run(graph)), meaning(graph))
