"""Meanings of the primitives that make histories."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from returnn_lite.dims import Dim
from returnn_lite.ir import Op
from returnn_lite.ir.ops.histories import CumConcat, CumConcatStep, EmptyHistory
from tests.reference.named import Lengths, Named, union
from tests.reference.rule import Rule


def empty_history(op: EmptyHistory, lengths: Lengths, like: Named) -> Named:
    """No frames."""
    lengths.known.setdefault(op.history, Named(np.array(0), ()))
    return Named(np.zeros((0, *like.array.shape), like.array.dtype), (op.history, *like.dims))


def cum_concat_step(
    op: CumConcatStep, lengths: Lengths, x: Named, before: Named, count: Named, *mask: Named
) -> tuple[Named, Named]:
    """One more frame, at the end of each sequence's own."""
    appended = mask[0] if mask else Named(np.array(True), ())
    counting = union([count, appended])
    after = Named(count.over(counting) + appended.over(counting), counting)
    rest = tuple(dim for dim in union([before, x, appended, count]) if dim != op.history)
    size = before.array.shape[before.axis(op.history)]
    sizes = [_size(dim, (before, x, appended, count), lengths) for dim in rest]
    old = np.broadcast_to(before.over((op.history, *rest)), [size, *sizes])
    new = np.concatenate([old, np.zeros([1, *sizes], old.dtype)])
    at = np.arange(size + 1).reshape([-1, *[1] * len(rest)]) == count.over(rest)
    new = np.where(at & appended.over(rest), x.over(rest), new)
    lengths.known[op.history] = after
    return Named(new[: int(after.array.max(initial=0))], (op.history, *rest)), after


def _size(dim: Dim, values: tuple[Named, ...], lengths: Lengths) -> int:
    found = [value.array.shape[value.axis(dim)] for value in values if dim in value.dims]
    return found[0] if found else lengths.size(dim)


def cum_concat(op: CumConcat, lengths: Lengths, x: Named, before: Named, count: Named) -> tuple[Named, Named]:
    """All frames, of which frame t sees the first t + 1."""
    seen = Named(np.arange(lengths.size(op.over)) + 1, (op.over,))
    lengths.known[op.history] = seen
    return Named(x.array, tuple(op.history if dim == op.over else dim for dim in x.dims)), seen


RULES: Mapping[type[Op], Rule] = {
    EmptyHistory: empty_history,
    CumConcatStep: cum_concat_step,
    CumConcat: cum_concat,
}
