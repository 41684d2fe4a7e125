"""Which frames take part where a primitive compares or sums over dims: the real ones, in the per-step view, too.

What has the same value for all sequences has no batch dim, but along a dim whose length differs from sequence to
sequence each reduces its own part of it. And over the batch, a step of a loop has only the sequences that have not
ended before: those are all that it has where the layer leaves the loop.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from returnn_lite.dims import Dim
from returnn_lite.ir import Op, Value
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.expressions import Expressions
from returnn_lite.ir.ops.reduction import ArgReduce, Reduce, Softmax

INF = float("inf")
NEUTRAL: Mapping[str, float | bool] = {
    "sum": 0.0, "mean": 0.0, "prod": 1.0, "max": -INF, "min": INF, "logsumexp": -INF, "any": False, "all": True,
}  # fmt: skip
"""What changes no result of a reduction."""


def dims_compared(op: Op) -> tuple[Dim, ...]:
    """The dims along which a primitive compares or sums; none for one that does neither."""
    if isinstance(op, Reduce):
        return op.over
    return (op.over,) if isinstance(op, ArgReduce | Softmax) else ()


def with_lengths(b: Builder, x: Value, over: Collection[Dim]) -> Value:
    """x with the dims that the lengths of `over` vary over, but for those of open loops: a step is one frame."""
    needed = (other for dim in over if dim in x.type and dim.size is None for other in b.lengths_over(dim))
    return b.expand(x, *dict.fromkeys(dim for dim in needed if dim not in b.loops and dim not in over))


def over_sequences(b: Expressions, op: Op, x: Value, ended: Value) -> Value:
    """What a primitive over the batch makes of the sequences that have not ended before this step."""
    if isinstance(op, Reduce) and op.kind == "mean":
        goes_on = b.select(ended, b.like(0.0, x), b.like(1.0, x))
        count = b.reduce("sum", b.expand(goes_on, *op.over), op.over)
        total = b.reduce("sum", b.select(ended, b.like(0.0, x), x), op.over)
        return b.binary("truediv", total, b.binary("maximum", count, 1.0))
    return b.apply(op, b.select(ended, b.like(_neutral(op, x), x), x))


def _neutral(op: Op, x: Value) -> float | int | bool:
    kind = op.kind if isinstance(op, Reduce | ArgReduce) else "max"
    number = NEUTRAL[kind]
    if x.type.is_float or isinstance(number, bool):
        return number
    return {INF: 2**31 - 1, -INF: -(2**31)}.get(number, int(number))
