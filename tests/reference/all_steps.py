"""Meanings of the primitives that see all steps of their loop at once: a step cannot compute them alone.

The interpreter runs a loop again and again. In each run these primitives give what the run before says; as they are in
no cycle, one more run than there are such primitives makes all of them right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from returnn_lite.dims import Dim
from returnn_lite.ir import Op
from returnn_lite.ir.ops.axes import AllSteps, WindowOfSteps
from tests.reference.named import Array, Lengths, Named, union

ALL_STEPS: tuple[type[Op], ...] = (WindowOfSteps, AllSteps)


@dataclass(frozen=True)
class Foreseen:
    """What a primitive gives at each step, and the length of the dim of all steps, if it makes one."""

    frames: Sequence[Named]
    length: Mapping[Dim, Named]


def foreseen(op: Op, x: Named, active: Named, over: Dim) -> Foreseen:
    """At each of the active steps what `op` makes of x at all of them. `x` has the values of all steps along `over`,
    `active` which of them a sequence has."""
    batch = tuple(dim for dim in active.dims if dim != over)
    rest = tuple(dim for dim in x.dims if dim not in active.dims)
    on = active.over((over, *batch))
    sizes = [x.array.shape[x.axis(dim)] for dim in rest]
    values = np.broadcast_to(x.over((over, *batch, *rest)), [*on.shape, *sizes])
    if isinstance(op, WindowOfSteps):
        width = op.window.size or 0
        array = np.zeros([*on.shape, width, *sizes], values.dtype)
        for at, steps, frames in _sequences(on, values):
            for k, step in enumerate(steps):
                first = k - op.left
                for i in range(max(-first, 0), min(width, len(steps) - first)):
                    array[(step, *at, i)] = frames[first + i]
        return Foreseen([Named(frame, (*batch, op.window, *rest)) for frame in array], {})
    assert isinstance(op, AllSteps)
    count = on.sum(0)
    array = np.zeros([*on.shape[1:], int(count.max(initial=0)), *sizes], values.dtype)
    for at, steps, frames in _sequences(on, values):
        array[at][: len(steps)] = frames
    whole = Named(array, (*batch, op.frames, *rest))
    return Foreseen([whole] * len(on), {op.frames: Named(count, batch)})


def _sequences(on: Array, values: Array) -> list[tuple[tuple[int, ...], Array, Array]]:
    """For each sequence its index, the steps that it has, and its values at these."""
    found = []
    for at in np.ndindex(on.shape[1:]):
        steps = np.flatnonzero(on[(slice(None), *at)])
        found.append((at, steps, values[(steps, *at)]))
    return found


def nothing_yet(op: Op, x: Named, lengths: Lengths) -> Named:
    """What a primitive gives in the first run, when nothing is known of other steps."""
    if isinstance(op, WindowOfSteps):
        return Named(np.zeros((op.window.size or 0, *x.array.shape), x.array.dtype), (op.window, *x.dims))
    assert isinstance(op, AllSteps)
    lengths.known.setdefault(op.frames, Named(np.array(0), ()))
    return Named(np.zeros((0, *x.array.shape), x.array.dtype), (op.frames, *x.dims))


def active_steps(ticks: Sequence[Named], real: Named, over: Dim) -> Named:
    """At which steps a mask is true, of those that a sequence has."""
    dims = (over, *(dim for dim in union([*ticks, real]) if dim != over))
    inner = dims[1:]
    each = np.broadcast_arrays(*(tick.over(inner) for tick in ticks))
    return Named(np.stack(each) & real.over(dims), dims)
