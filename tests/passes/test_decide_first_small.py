"""What may follow a decision, and what stays before it: small graphs."""

from __future__ import annotations

from returnn_lite.dims import DimKind, Masked, Symbol, TensorType
from returnn_lite.ir import Graph, Value
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.elementwise import Elementwise
from returnn_lite.ir.ops.masks import Compress
from returnn_lite.ir.ops.reduction import Reduce, Softmax
from returnn_lite.ir.ops.search import Decide
from returnn_lite.ir.ops.sources import Iota
from returnn_lite.ir.verify import verify
from returnn_lite.passes.decide_first import decide_first
from tests.passes.meaning import B, F, T
from tests.passes.small import BEAM

LABELS = Symbol("labels", DimKind.SPATIAL, None, (B, BEAM))
"""As many as a hypothesis has."""
BEST = Symbol("best", DimKind.SPATIAL, None, (B,))


def decided(graph: Graph) -> list[str]:
    """What is computed behind the first decision."""
    result = verify(decide_first(verify(graph, "building")), "decide_first")
    assert set(result.outputs["best"].type.dims) == set(graph.outputs["best"].type.dims)
    nodes = result.nodes
    first = next(i for i, node in enumerate(nodes) if isinstance(node.op, Decide))
    return [node.op.label for node in nodes[first:] if not isinstance(node.op, Decide)]


class Hypotheses:
    """Values of hypotheses, and a decision for the best."""

    def __init__(self) -> None:
        self.b = Builder()
        self.scores = self.b.input("scores", TensorType((B, BEAM)))

    def input(self, name: str, *dims: Symbol, dtype: str = "float32") -> Value:
        return self.b.input(name, TensorType((B, BEAM, *dims), dtype))

    def labels(self) -> Value:
        """The frames of each hypothesis: [B, beam, labels]."""
        return self.b.apply(Compress(T, LABELS), self.input("x", T), self.input("mask", T, dtype="bool"))

    def graph(self, value: Value, *times: tuple[Symbol, Symbol], **others: Value) -> Graph:
        best = self.b.apply(Decide(BEAM, times), value, self.scores)
        return self.b.graph({"best": best, **others})


def test_what_each_hypothesis_has_for_itself_follows() -> None:
    h = Hypotheses()
    assert decided(h.graph(h.b.apply(Elementwise("tanh"), h.input("x", F)))) == ["tanh"]


def test_what_compares_hypotheses_does_not() -> None:
    h = Hypotheses()
    assert decided(h.graph(h.b.apply(Softmax(BEAM), h.input("x", F)))) == []


def test_frames_of_hypotheses_that_the_decision_does_not_know_stay() -> None:
    h = Hypotheses()
    total = h.b.apply(Reduce("sum", (LABELS,)), h.labels())
    assert decided(h.graph(total)) == []
    h = Hypotheses()
    moved = h.b.apply(Elementwise("tanh"), h.labels())
    assert decided(h.graph(moved, (LABELS, BEST))) == ["tanh"]


def test_what_makes_a_dim_stays_before_what_measures_it() -> None:
    h = Hypotheses()
    mask = h.b.input("mask", TensorType((B, T), "bool"))
    some = Masked(T, mask, "some", (B,))
    kept = h.b.apply(Compress(T, some), h.input("x", T), mask)
    numbers = h.b.apply(Iota(some))
    total = h.b.apply(Reduce("sum", (some,)), kept)
    assert "compress" not in decided(h.graph(total, numbers=numbers))


def test_what_lacks_the_beam_along_frames_of_hypotheses_is_renamed_with_them() -> None:
    h = Hypotheses()
    x = h.labels()
    numbers = h.b.cast(h.b.apply(Iota(LABELS)), "float32")
    x = h.b.apply(Elementwise("add"), x, numbers)
    assert "add" in decided(h.graph(x, (LABELS, BEST)))
