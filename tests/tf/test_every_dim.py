"""Each primitive that works along a dim, along every dim of a ragged tensor: the backend gives what it means."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from returnn_lite.dims import Dim, TensorType
from returnn_lite.ir import Op, Value
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops import axes, contraction, indexing, recurrence, reduction
from tests.tf.cases import LENGTHS, B, F, S, T, W
from tests.tf.test_reference import assert_same

SHAPES = [(B, T, F), (B, T, S, F)]


def alone(over: Dim) -> Iterator[tuple[str, Op]]:
    """Primitives of one operand along a dim."""
    for kind in ("sum", "mean", "max", "min", "prod", "logsumexp"):
        yield kind, reduction.Reduce(kind, (over,))
    for kind in ("max", "min"):
        yield f"arg{kind}", reduction.ArgReduce(kind, over)
    yield "softmax", reduction.Softmax(over)
    yield "log softmax", reduction.Softmax(over, log=True)
    yield "normalize", reduction.Normalize((over,), 1e-3)
    yield "moments", reduction.Moments((over,))
    yield "top k", reduction.TopK(over, W)
    yield "reverse", axes.Reverse(over)
    yield "window", axes.Window(over, over, W, 1)
    yield "shift", axes.ShiftFrames(over, over, 1, 0.5)
    for kind in ("max", "avg"):
        spatial = contraction.SpatialDim(over, over, W, 1, 1, "same")
        yield f"{kind} pool", contraction.Pool(kind, (spatial,))


def with_start(over: Dim) -> Iterator[tuple[str, Op]]:
    """Primitives of an operand and a number to start with."""
    yield "cumsum", recurrence.Recurrence(recurrence.CumsumStep(), over)
    yield "cumsum from the end", recurrence.Recurrence(recurrence.CumsumStep(), over, reverse=True)
    yield "delay", recurrence.Delay(over)
    yield "last", reduction.Last(over)


def outputs_along(b: Builder, x: Value, over: Dim) -> dict[str, Value]:
    """What each primitive makes of x along a dim."""
    found = {}
    start = b.constant(0.25)
    for name, op in alone(over):
        found |= {f"{name} {index}": value for index, value in enumerate(b.emit(op, x))}
    for name, op in with_start(over):
        found |= {f"{name} {index}": value for index, value in enumerate(b.emit(op, x, start))}
    found["product"] = b.apply(contraction.Dot((over,)), x, b.unary("square", x))
    if over is not B:
        found["slice"] = b.apply(indexing.Slice(over, over - 1, 1), x)
    return found


@pytest.mark.one_in(2)
@pytest.mark.parametrize("dims", SHAPES, ids=lambda dims: ",".join(dim.name for dim in dims))
@pytest.mark.parametrize("over", [B, T, S, F], ids=str)
def test_along_every_dim(dims: tuple[Dim, ...], over: Dim) -> None:
    if over not in dims:
        pytest.skip("the tensor lacks the dim")
    b = Builder()
    x = b.input("x", TensorType(dims, "float32"))
    shifted = b.add(x, 2.0)  # padding is something else than zero
    graph = b.graph(outputs_along(b, shifted, over))
    lengths = {dim: LENGTHS[dim] for dim in dims if dim in LENGTHS}
    shape = [4 if dim is B else dim.size or max(LENGTHS[dim]) for dim in dims]
    feed = {"x": np.random.default_rng(len(dims)).normal(size=shape)}
    assert_same(graph, feed, lengths, 4)
