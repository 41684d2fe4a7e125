"""Meanings of recurrences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from returnn_lite.dims import Dim
from returnn_lite.ir import Op
from returnn_lite.ir.ops.recurrence import CumsumStep, Delay, Recurrence, Step
from tests.reference import edit_distances, language_model, planes, recurrent_cells
from tests.reference.named import Lengths, Named, union
from tests.reference.rule import Rule
from tests.reference.steps import chosen, frame, stacked


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
    now = [states[at] if at in states else frame(x, op.over, t) for at, x in enumerate(operands)]
    at_step = Lengths(
        {dim: frame(length, op.over, t) if length.array.size else length for dim, length in lengths.known.items()}
    )
    found = STEPS[type(op.step)](op.step, at_step, *now)
    return found if isinstance(found, tuple) else (found,)


def _with_a_frame(x: Named, over: Dim) -> list[int]:
    return [1 if dim == over else n for dim, n in zip(x.dims, x.array.shape, strict=True)]


RULES: Mapping[type[Op], Rule] = {CumsumStep: cumsum_step, Recurrence: scan, Delay: delay}
STEPS: Mapping[type[Op], Rule] = {
    rule: meaning
    for family in (recurrent_cells, edit_distances, planes, language_model)
    for rule, meaning in family.RULES.items()
} | {CumsumStep: cumsum_step}
