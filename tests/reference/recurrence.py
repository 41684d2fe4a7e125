"""Meanings of the primitives that carry state from frame to frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from returnn_lite.dims import Dim
from returnn_lite.ir import Op
from returnn_lite.ir.ops.recurrence import (
    CumConcat,
    CumConcatStep,
    Cumsum,
    CumsumStep,
    Delay,
    EditDistanceStep,
    EditDistanceTable,
    EmptyHistory,
    Gru,
    GruCell,
    GruStep,
    Lstm,
    LstmCell,
    LstmStep,
    SimpleRnn,
    SimpleRnnCell,
    SimpleRnnStep,
)
from tests.reference.elementwise import FUNCTIONS, sigmoid
from tests.reference.named import Array, Lengths, Named, filled, union
from tests.reference.rule import Rule
from tests.reference.sequences import per_sequence


def lstm(cell: LstmCell, z: Array, w: Array, h: Array, c: Array) -> tuple[Array, ...]:
    """Output and cell state after one step."""
    blocks = dict(zip(cell.order, np.split(z + h @ w, 4, -1), strict=True))
    new = sigmoid(blocks["f"] + cell.forget_bias) * c + sigmoid(blocks["i"]) * np.tanh(blocks["j"])
    return sigmoid(blocks["o"]) * np.tanh(new), new


def gru(cell: GruCell, z: Array, candidate: Array, wg: Array, wc: Array, h: Array) -> tuple[Array, ...]:
    """The state after one step."""
    r, u = np.split(sigmoid(z + h @ wg), 2, -1)
    return (u * h + (1 - u) * np.tanh(candidate + (r * h) @ wc),)


def simple_rnn(cell: SimpleRnnCell, z: Array, w: Array, h: Array) -> tuple[Array, ...]:
    """The state after one step."""
    return (FUNCTIONS[cell.activation](z + h @ w),)


@dataclass(frozen=True)
class Cell:
    """A recurrence: its step on arrays, and the dims of its operands: inputs (one each), weights, states (one each)."""

    step: Callable[..., tuple[Array, ...]]
    inputs: Callable[[Any], tuple[Dim, ...]]
    weights: Callable[[Any], tuple[tuple[Dim, Dim], ...]]
    states: int

    def one_step(self, op: Any, lengths: Lengths, *operands: Named) -> tuple[Named, ...]:
        """All sequences at once."""
        moving, states = operands[: len(self.inputs(op.cell))], operands[-self.states :]
        rest = tuple(dim for dim in union([*moving, *states]) if dim not in (*self.inputs(op.cell), op.cell.hidden))
        arrays = [x.full((*rest, dim), lengths) for x, dim in zip(moving, self.inputs(op.cell), strict=True)]
        weights = operands[len(moving) : -self.states]
        arrays += [_of_any_sequence(x, dims).over(dims) for x, dims in zip(weights, self.weights(op.cell), strict=True)]
        arrays += [x.full((*rest, op.cell.hidden), lengths) for x in states]
        return tuple(Named(array, (*rest, op.cell.hidden)) for array in self.step(op.cell, *arrays))

    def whole(self, op: Any, lengths: Lengths, *operands: Named) -> tuple[Named, ...]:
        """Step by step, one sequence after the other."""
        moving = [(op.over, dim) for dim in self.inputs(op.cell)]
        seen = [*moving, *self.weights(op.cell), *[(op.cell.hidden,)] * self.states]

        def of_one(*arrays: Array) -> tuple[Array, ...]:
            inputs, weights = arrays[: len(moving)], arrays[len(moving) : -self.states]
            states = arrays[-self.states :]
            frames = []
            for now in zip(*(x[::-1] if op.reverse else x for x in inputs), strict=True):
                states = self.step(op.cell, *now, *weights, *states)
                frames.append(states)
            if op.reverse:
                frames.reverse()
            shape = (len(frames), lengths.size(op.cell.hidden))
            return tuple(np.array([frame[k] for frame in frames], float).reshape(shape) for k in range(self.states))

        outs = [(op.over, op.cell.hidden)] * self.states
        return per_sequence(lengths, list(zip(operands, seen, strict=True)), outs, of_one)


def _of_any_sequence(weight: Named, dims: tuple[Dim, ...]) -> Named:
    """Weights without the dims of a mask, which they have where they are taken apart under it: beyond the mask they are
    zero, elsewhere the same."""
    arrays = np.transpose(
        weight.array, [weight.axis(d) for d in weight.dims if d not in dims] + [weight.axis(d) for d in dims]
    )
    arrays = arrays.reshape(-1, *arrays.shape[-len(dims) :])
    return Named(arrays[np.abs(arrays).sum(axis=tuple(range(1, arrays.ndim))).argmax()], dims)


LSTM = Cell(lstm, lambda c: (c.gates,), lambda c: ((c.recurrent, c.gates),), 2)
GRU = Cell(gru, lambda c: (c.gates, c.hidden), lambda c: ((c.recurrent, c.gates), (c.recurrent, c.hidden)), 1)
SIMPLE_RNN = Cell(simple_rnn, lambda c: (c.hidden,), lambda c: ((c.recurrent, c.hidden),), 1)


def delay(op: Delay, lengths: Lengths, x: Named, init: Named) -> Named:
    """One frame later, the initial value first."""
    rest = tuple(dim for dim in union([x, init]) if dim != op.over)
    whole = x.full((op.over, *rest), lengths)
    first = np.broadcast_to(init.over(rest), whole.shape[1:])[None]
    return Named(np.concatenate([first, whole])[: len(whole)].astype(whole.dtype), (op.over, *rest))


def cumsum(op: Cumsum, lengths: Lengths, x: Named, init: Named) -> Named:
    """Sums of the frames so far; from each sequence's end if reversed."""
    over = (op.over, *(dim for dim in x.dims if dim != op.over))
    whole = Named(x.full(over, lengths), over)
    if op.reverse:
        whole = filled(whole, (op.over,), 0, lengths)
    dims = (op.over, *(dim for dim in union([whole, init]) if dim != op.over))
    array = whole.over(dims)
    return Named((np.cumsum(array[::-1], 0)[::-1] if op.reverse else np.cumsum(array, 0)) + init.over(dims), dims)


def cumsum_step(op: CumsumStep, lengths: Lengths, x: Named, state: Named) -> Named:
    """One more summand."""
    dims = union([x, state])
    return Named(x.over(dims) + state.over(dims), dims)


def next_row(blank: int | None, label: Array, reference: Array, before: Array) -> Array:
    """One row of the dynamic programme of Wagner and Fischer 1974, of one sequence."""
    if label == blank:
        return before
    row = [before[0] + 1]
    for j, right in enumerate(reference):
        row.append(min(before[j + 1] + 1, row[j] + 1, before[j] + (label != right)))
    return np.array(row)


def edit_distance_step(
    op: EditDistanceStep, lengths: Lengths, label: Named, reference: Named, before: Named
) -> tuple[Named, ...]:
    """The row after one label."""
    operands = [(label, ()), (reference, (op.labels,)), (before, (op.row,))]
    return per_sequence(lengths, operands, [(op.row,)], lambda *x: next_row(op.blank, *x))


def edit_distance_table(
    op: EditDistanceTable, lengths: Lengths, label: Named, reference: Named, before: Named
) -> tuple[Named, ...]:
    """The rows after each label."""
    moving = (op.over,) if op.over in reference.dims else ()

    def of_one(labels: Array, right: Array, row: Array) -> Array:
        rows = []
        for t, one in enumerate(labels):
            row = next_row(op.blank, one, right[t] if moving else right, row)
            rows.append(row)
        return np.array(rows, int).reshape(len(labels), len(row))

    operands = [(label, (op.over,)), (reference, (*moving, op.labels)), (before, (op.row,))]
    return per_sequence(lengths, operands, [(op.over, op.row)], of_one)


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
    Delay: delay,
    Lstm: LSTM.whole,
    LstmStep: LSTM.one_step,
    Gru: GRU.whole,
    GruStep: GRU.one_step,
    SimpleRnn: SIMPLE_RNN.whole,
    SimpleRnnStep: SIMPLE_RNN.one_step,
    Cumsum: cumsum,
    CumsumStep: cumsum_step,
    EditDistanceStep: edit_distance_step,
    EditDistanceTable: edit_distance_table,
    EmptyHistory: empty_history,
    CumConcatStep: cum_concat_step,
    CumConcat: cum_concat,
}
