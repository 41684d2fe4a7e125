"""The backend and the reference interpreter give the same for loops and searches; `test_primitives.py`: for each
primitive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from returnn_lite.dims import Dim, DimKind, Symbol, TensorType
from returnn_lite.ir import Graph
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.search import BeamGather, Choose, ExpectedOverBeam, ScoreRule, SumOverBeam
from returnn_lite.tf.executable import Executable
from returnn_lite.tf.outputs import RunOutput
from tests.reference.interpreter import interpret
from tests.reference.named import Array, Lengths, Named, real
from tests.tf import network
from tests.tf.cases import B
from tests.tf.test_loops import decoder, history_attention
from tests.tf.test_search import LabelSearch


def assert_same(graph: Graph, feeds: Mapping[str, Array], lengths: Mapping[Dim, list[int]], batch: int) -> None:
    """Compares all outputs at real frames, and the lengths of their dims."""
    batch_dim = network.B if any(network.B in v.type.dims for v in graph.inputs) else B
    assert_interpreted(Executable(graph, batch_dim, "float64"), feeds, lengths, batch)


def assert_interpreted(
    executable: Executable, feeds: Mapping[str, Array], lengths: Mapping[Dim, list[int]], batch: int
) -> None:
    """The same of a graph that is compiled already."""
    known = Lengths({dim: Named(np.array(n), dim.over) for dim, n in lengths.items()})
    known.known |= {executable.batch: Named(np.array(batch), ())}
    parameters = {name: variable.numpy() for name, variable in executable.params.items()}
    expected = interpret(executable.graph, feeds, known, parameters)
    for name, output in executable.run(feeds, lengths).items():
        compare(output, expected[name], known, name)


def compare(output: RunOutput, expected: Named, known: Lengths, name: str) -> None:
    frames = real(expected, known).over(output.dims)
    values = expected.over(output.dims)
    assert values.shape == output.value.shape, name
    np.testing.assert_allclose(
        np.where(frames, output.value, 0), np.where(frames, values, 0), rtol=1e-6, atol=1e-9, err_msg=name
    )
    for dim, lengths in output.lengths.items():
        np.testing.assert_array_equal(lengths, known.of(dim).over(output.length_dims[dim]), err_msg=str(dim))


def test_loop_with_history() -> None:
    feeds = {"x": np.random.default_rng(1).standard_normal((3, 5, 3))}
    graph = history_attention()
    # A final is the value after the loop's last step, which of shorter sequences nobody may look at.
    kept = {name: value for name, value in graph.outputs.items() if name not in ("final", "last")}
    assert_same(replace(graph, outputs=kept), feeds, {network.T: [5, 2, 3]}, 3)


@pytest.mark.parametrize("kind", ["lstm", "gru", "gru after"])
def test_loop_with_attention(kind: str) -> None:
    generator = np.random.default_rng(2)
    feeds = {"x": generator.standard_normal((3, 4, 3)), "encoder": generator.standard_normal((3, 5, 3))}
    assert_same(decoder(kind), feeds, {network.T: [4, 1, 3], network.S: [2, 5, 4]}, 3)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_search(beam_size: int) -> None:
    generator = np.random.default_rng(beam_size)
    search = LabelSearch(beam_size, 4, ScoreRule())
    feeds = {"logits": generator.standard_normal((2, 4, 4)), "drift": generator.standard_normal(4)}
    assert_same(search.graph, feeds, {}, 2)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("centered", [True, False])
def test_expected_over_beam(normalize: bool, centered: bool) -> None:
    """A hypothesis that does not exist has no influence."""
    b, beam = Builder(), Symbol("beam", DimKind.BEAM, 3)
    scores = b.input("scores", TensorType((network.B, beam)))
    values, shared = b.input("values", TensorType((network.B, beam))), b.input("shared", TensorType((network.B,)))
    op = ExpectedOverBeam(beam, normalize, centered=centered)
    outputs = {"own": b.apply(op, values, scores), "shared": b.apply(op, shared, scores)}
    outputs |= {"sum": b.apply(SumOverBeam(beam), values), "same": b.apply(SumOverBeam(beam), shared)}
    generator = np.random.default_rng(3)
    feeds = {"scores": generator.standard_normal((2, 3)), "values": generator.standard_normal((2, 3))}
    feeds["scores"][0, 2] = -np.inf
    assert_same(b.graph(outputs), feeds | {"shared": generator.standard_normal(2)}, {}, 2)


@pytest.mark.parametrize("cheating", ["", "replace", "exclusive"])
@pytest.mark.parametrize(("before", "beam"), [(2, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize("t", [0, 2])
def test_choose_between_beams(cheating: str, before: int, beam: int, t: int) -> None:
    """Hypotheses of one beam are extended to another; the last place may be that of given labels."""
    b, classes = Builder(), Symbol("classes", DimKind.FEATURE, 5)
    incoming, out = Symbol("incoming", DimKind.BEAM, before), Symbol("out", DimKind.BEAM, beam)
    scores = b.input("scores", TensorType((network.B, incoming, classes)))
    base, ended = b.input("base", TensorType((network.B, incoming))), b.input("ended", TensorType((incoming,), "bool"))
    labels = b.input("labels", TensorType((network.B,), "int32", classes))
    for keep_beams, combined in {(False, False), (False, True), (beam % before == 0 and not cheating, False)}:
        rule = ScoreRule(cheating=cheating, keep_beams=keep_beams, combined=combined)
        op = Choose(classes, out, rule, True, incoming)
        label, pointers, score = b.emit(
            op, scores, base, ended, b.constant(t, "int32"), *([labels] if cheating else [])
        )
        moved = b.apply(BeamGather(incoming), base, pointers)
        outputs = {"label": label, "pointers": pointers, "score": score, "moved": moved}
        generator = np.random.default_rng(before)
        feeds = {"scores": generator.standard_normal((2, before, 5)), "base": generator.standard_normal((2, before))}
        feeds["base"][1, 1:] += -np.inf if combined and not cheating else 0
        feeds |= {"ended": np.arange(before) == 1, "labels": np.array([1, 4])}
        assert_same(b.graph(outputs), feeds, {}, 2)


@pytest.mark.parametrize("combined", [False, True])
def test_choose_for_more_places_than_hypotheses(combined: bool) -> None:
    """One hypothesis has ended, another does not exist."""
    b, classes = Builder(), Symbol("classes", DimKind.FEATURE, 3)
    incoming, out = Symbol("incoming", DimKind.BEAM, 2), Symbol("out", DimKind.BEAM, 5)
    scores = b.input("scores", TensorType((network.B, incoming, classes)))
    base, ended = b.input("base", TensorType((network.B, incoming))), b.input("ended", TensorType((incoming,), "bool"))
    op = Choose(classes, out, ScoreRule(combined=combined), True, incoming)
    label, pointers, score = b.emit(op, scores, base, ended, b.constant(3, "int32"))
    feeds = {
        "scores": np.random.default_rng(1).standard_normal((2, 2, 3)),
        "base": np.array([[-3.0, -1.0], [-2.0, -9]]),
    }
    feeds["base"][1, 1] = -np.inf
    feeds["ended"] = np.array([True, False])
    assert_same(b.graph({"label": label, "pointers": pointers, "score": score}), feeds, {}, 2)
