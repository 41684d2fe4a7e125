"""Recurrences over whole sequences: of no frames, and from the end of shorter sequences."""

from __future__ import annotations

import numpy as np
import pytest

from returnn_lite.dims import DimKind, Symbol, TensorType
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.recurrence import Delay, Recurrence
from returnn_lite.ir.ops.recurrent_cells import SimpleRnnCell, SimpleRnnStep
from returnn_lite.ir.ops.reduction import Reduce
from returnn_lite.ir.ops.sources import Initializer, Parameter
from returnn_lite.tf.executable import Executable
from tests.tf.cases import B, F, T
from tests.tf.more_cases import H, R

X = np.random.default_rng(1).normal(size=(3, 4, H.size or 0))
LENGTHS = [4, 1, 2]


def test_the_step_before_of_no_frames() -> None:
    """Of a dim that is as long for all sequences, so that nothing is masked."""
    b, over = Builder(), Symbol("U", DimKind.SPATIAL, None, ())
    before = b.apply(Delay(over), b.input("x", TensorType((B, over, F), "float32")), b.constant(1.0))
    total = b.apply(Reduce("sum", (over,)), before)
    found = Executable(b.graph({"before": before, "total": total}), B).run({"x": np.zeros((2, 0, F.size or 0))}, {})
    assert found["before"].value.shape == (2, 0, F.size)
    assert not found["total"].value.any()


def backwards() -> Executable:
    """The sum of the states of a recurrence from the end, with an initial state that is learned."""
    b = Builder()
    z = b.input("x", TensorType((B, T, H), "float32"))
    weights = b.apply(Parameter("w", (R, H), Initializer("constant", (("value", 0.3),))))
    start = b.apply(Parameter("start", (H,), Initializer("constant", (("value", 0.2),))))
    states = b.apply(Recurrence(SimpleRnnStep(SimpleRnnCell(H, R)), T, reverse=True), z, weights, start)
    return Executable(b.graph({"total": b.apply(Reduce("sum", (T, H, B)), states)}), B, "float64")


@pytest.mark.parametrize("parameter", ["w", "start"])
def test_gradients_of_a_batch_are_those_of_its_sequences(parameter: str) -> None:
    """Beyond the end of a shorter one the state is held, and so is its gradient."""
    program = backwards()
    together = program.run_with_gradients({"x": X}, {T: LENGTHS}, of="total")[1][parameter]
    feeds = [({"x": X[i : i + 1, :n]}, {T: [n]}) for i, n in enumerate(LENGTHS)]
    alone = [program.run_with_gradients(*feed, of="total")[1][parameter] for feed in feeds]
    assert all(np.abs(one).max() > 1e-3 for one in alone)
    np.testing.assert_allclose(together, sum(alone), rtol=1e-9)
