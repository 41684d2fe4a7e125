"""Gradients of expected values over hypotheses: what is subtracted, and the sum of the weights, may have none."""

from __future__ import annotations

import numpy as np
import pytest

from returnn_lite.dims import DimKind, Symbol, TensorType
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.elementwise import Elementwise
from returnn_lite.ir.ops.reduction import Reduce
from returnn_lite.ir.ops.search import Decide, ExpectedOverBeam
from returnn_lite.ir.ops.sources import Initializer, Parameter
from returnn_lite.tf.executable import Executable
from tests.tf.cases import B

BEAM = Symbol("beam", DimKind.BEAM, 3)
VALUES = np.array([[0.5, -1.0, 2.0], [1.0, 3.0, 0.0]])
SCORES = np.array([[-1.0, -2.0, -0.5], [-0.3, -4.0, -1.2]])


@pytest.mark.parametrize("constant_norm", [True, False])
@pytest.mark.parametrize("centered", [True, False])
def test_gradients(centered: bool, constant_norm: bool) -> None:
    """Of scales of the values and of the scores, at 1, written down."""
    b = Builder()
    one = Initializer("constant", (("value", 1.0),))
    values, scores = (b.input(name, TensorType((B, BEAM), "float32")) for name in ("values", "scores"))
    scaled = [
        b.apply(Elementwise("mul"), x, b.apply(Parameter(name, (), one)))
        for name, x in (("of_values", values), ("of_scores", scores))
    ]
    expected = b.apply(ExpectedOverBeam(BEAM, True, constant_norm, centered), *scaled)
    program = Executable(b.graph({"total": b.apply(Reduce("sum", (B,)), expected)}), B, "float64")
    found = program.run_with_gradients({"values": VALUES, "scores": SCORES}, {}, of="total")[1]
    weights = np.exp(SCORES) / np.exp(SCORES).sum(1, keepdims=True)
    centre = VALUES - VALUES.mean(1, keepdims=True) if centered else VALUES
    slopes = SCORES if constant_norm else SCORES - (weights * SCORES).sum(1, keepdims=True)
    np.testing.assert_allclose(found["of_values"], (weights * VALUES).sum(), rtol=1e-6)
    np.testing.assert_allclose(found["of_scores"], (weights * slopes * centre).sum(), rtol=1e-6)


def test_a_hypothesis_without_labels_is_the_worst() -> None:
    """Per label; it is taken where there is no other."""
    b, labels = Builder(), Symbol("labels", DimKind.SPATIAL, None, (B, BEAM))
    x = b.input("x", TensorType((B, BEAM, labels), "float32"))
    scores = b.input("scores", TensorType((B, BEAM), "float32"))
    number = b.input("number", TensorType((B, BEAM), "int32"))
    best = b.apply(Decide(BEAM, (), labels), number, scores)
    program = Executable(b.graph({"best": best, "sum": b.apply(Reduce("sum", (labels,)), x)}), B)
    feed = {"x": np.zeros((3, 3, 4)), "scores": [[0, -4, -3], [0, 0, 0], [-1, -2, -9]], "number": [[0, 1, 2]] * 3}
    lengths = {labels: [[0, 4, 2], [0, 0, 0], [1, 4, 3]]}
    assert program.run(feed, lengths)["best"].value.tolist() == [1, 0, 1]
