"""Meanings of the primitives that carry state from frame to frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from returnn_lite.dims import Dim
from returnn_lite.ir import Op
from returnn_lite.ir.ops.recurrence import (
    CumConcat,
    CumConcatStep,
    CumsumStep,
    Delay,
    EditDistanceStep,
    EmptyHistory,
    GruCell,
    GruStep,
    LstmCell,
    LstmStep,
    Recurrence,
    ResetAfterGruCell,
    ResetAfterGruStep,
    SimpleRnnCell,
    SimpleRnnStep,
    Step,
)
from tests.reference import language_model, planes
from tests.reference.elementwise import FUNCTIONS, sigmoid
from tests.reference.named import Array, Lengths, Named, union
from tests.reference.rule import Rule
from tests.reference.sequences import per_sequence
from tests.reference.steps import chosen, frame, stacked


def lstm(cell: LstmCell, z: Array, w: Array, h: Array, c: Array) -> tuple[Array, ...]:
    """Output and cell state after one step."""
    blocks = dict(zip(cell.order, np.split(z + h @ w, 4, -1), strict=True))
    new = sigmoid(blocks["f"] + cell.forget_bias) * c + sigmoid(blocks["i"]) * np.tanh(blocks["j"])
    return sigmoid(blocks["o"]) * np.tanh(new), new


def gru(cell: GruCell, z: Array, candidate: Array, wg: Array, wc: Array, h: Array) -> tuple[Array, ...]:
    """The state after one step."""
    r, u = np.split(sigmoid(z + h @ wg), 2, -1)
    return (u * h + (1 - u) * np.tanh(candidate + (r * h) @ wc),)


def reset_after_gru(cell: ResetAfterGruCell, z: Array, w: Array, b: Array, h: Array) -> tuple[Array, ...]:
    """The state after one step."""
    x, seen = (dict(zip(cell.order, np.split(product, 3, -1), strict=True)) for product in (z, h @ w + b))
    r, u = (sigmoid(x[gate] + seen[gate]) for gate in "ru")
    return (u * h + (1 - u) * np.tanh(x["c"] + r * seen["c"]),)


def simple_rnn(cell: SimpleRnnCell, z: Array, w: Array, h: Array) -> tuple[Array, ...]:
    """The state after one step."""
    return (FUNCTIONS[cell.activation](z + h @ w),)


@dataclass(frozen=True)
class Cell:
    """A recurrence: its step on arrays, and the dims of its operands: inputs (one each), weights, states (one each)."""

    step: Callable[..., tuple[Array, ...]]
    inputs: Callable[[Any], tuple[Dim, ...]]
    weights: Callable[[Any], tuple[tuple[Dim, ...], ...]]
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
RESET_AFTER_GRU = Cell(reset_after_gru, lambda c: (c.gates,), lambda c: ((c.recurrent, c.gates), (c.gates,)), 1)
SIMPLE_RNN = Cell(simple_rnn, lambda c: (c.hidden,), lambda c: ((c.recurrent, c.hidden),), 1)


def delay(op: Delay, lengths: Lengths, x: Named, init: Named) -> Named:
    """One frame later, the initial value first."""
    rest = tuple(dim for dim in union([x, init]) if dim != op.over)
    whole = x.full((op.over, *rest), lengths)
    first = np.broadcast_to(init.over(rest), whole.shape[1:])[None]
    return Named(np.concatenate([first, whole])[: len(whole)].astype(whole.dtype), (op.over, *rest))


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


def scan(op: Recurrence[Step], lengths: Lengths, *operands: Named) -> tuple[Named, ...]:
    """The step at each frame; where a sequence has none, its states stay."""
    size = lengths.size(op.over)
    whole = Named(np.zeros(size), (op.over,))
    there = lengths.mask(op.over) if lengths.is_ragged(op.over) else Named(np.ones(size, bool), whole.dims)
    states = {at: operands[at] for at in op.step.state_inputs}
    results: list[tuple[Named, ...]] = [()] * size
    for t in reversed(range(size)) if op.reverse else range(size):
        results[t] = _one_step(op, lengths, operands, states, t)
        for at, result in zip(op.step.state_inputs, op.step.state_outputs, strict=True):
            states[at] = chosen(frame(there, op.over, t), results[t][result], states[at])
    if not size:
        blank = [Named(np.zeros_like(x.array, shape=_with_a_frame(x, op.over)), x.dims) for x in operands]
        results = [_one_step(op, lengths, blank, states, 0)]
    stacks = [stacked(frames, op.over) for frames in zip(*results, strict=True)]
    return tuple(Named(stack.array[:size], stack.dims) for stack in stacks)


def _one_step(
    op: Recurrence[Step], lengths: Lengths, operands: Sequence[Named], states: Mapping[int, Named], t: int
) -> tuple[Named, ...]:
    rules = {**STEPS, **planes.RULES, **language_model.RULES}
    now = [states[at] if at in states else frame(x, op.over, t) for at, x in enumerate(operands)]
    at_step = Lengths(
        {dim: frame(length, op.over, t) if length.array.size else length for dim, length in lengths.known.items()}
    )
    found = rules[type(op.step)](op.step, at_step, *now)
    return found if isinstance(found, tuple) else (found,)


def _with_a_frame(x: Named, over: Dim) -> list[int]:
    return [1 if dim == over else n for dim, n in zip(x.dims, x.array.shape, strict=True)]


STEPS: Mapping[type[Op], Rule] = {
    LstmStep: LSTM.one_step,
    GruStep: GRU.one_step,
    ResetAfterGruStep: RESET_AFTER_GRU.one_step,
    SimpleRnnStep: SIMPLE_RNN.one_step,
    CumsumStep: cumsum_step,
    EditDistanceStep: edit_distance_step,
}
RULES: Mapping[type[Op], Rule] = {
    **STEPS,
    Recurrence: scan,
    Delay: delay,
    EmptyHistory: empty_history,
    CumConcatStep: cum_concat_step,
    CumConcat: cum_concat,
}
