"""Meanings of recurrences that are one primitive together: one recurrence after the other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from returnn_lite.dims import Dim
from returnn_lite.ir import Op
from returnn_lite.ir.ops.contraction import Dot
from returnn_lite.ir.ops.recurrence import Recurrence
from returnn_lite.ir.ops.reduction import Last
from returnn_lite.ir.ops.stacked_recurrence import Member, MemberOperands, StackedRecurrence
from tests.reference.contraction import dot
from tests.reference.named import Lengths, Named, union
from tests.reference.recurrence import scan
from tests.reference.reduction import last
from tests.reference.rule import Rule


def stacked(op: StackedRecurrence, lengths: Lengths, x: Named, *operands: Named) -> tuple[Named, ...]:
    """Layer by layer, each direction as a recurrence of its own."""
    given = iter(op.by_member(operands))
    sources, finals, outputs = [(x, op.source)], [], []
    for layer in op.layers:
        outputs = []
        for i, member in enumerate(layer):
            own, reverse = next(given), op.reverse if len(layer) == 1 else i == 1
            states = _states(op, member, reverse, lengths, _product(sources, member, own, lengths), own)
            outputs.append(states[0])
            finals += [
                _final(op, reverse, lengths, state, init) for state, init in zip(states, own.states, strict=True)
            ]
        sources = [(output, member.hidden) for output, member in zip(outputs, layer, strict=True)]
    return (*outputs, *finals)


def _product(sources: list[tuple[Named, Dim]], member: Member, own: MemberOperands[Named], lengths: Lengths) -> Named:
    """The weights times the sources, one after the other in their rows, and the bias."""
    axis, start, total = own.input_weights.axis(member.rows), 0, own.bias
    for source, dim in sources:
        size = lengths.size(dim)
        block = np.take(own.input_weights.array, np.arange(start, start + size), axis)
        rows = tuple(dim if d is member.rows else d for d in own.input_weights.dims)
        product = dot(Dot((dim,)), lengths, source, Named(block, rows))
        dims, start = union([product, total]), start + size
        total = Named(product.over(dims) + total.over(dims), dims)
    return total


def _states(
    op: StackedRecurrence, member: Member, reverse: bool, lengths: Lengths, z: Named, own: MemberOperands[Named]
) -> list[Named]:
    results = scan(Recurrence(member.step, op.over, reverse), lengths, z, *own.weights, *own.states)
    return [results[at] for at in member.step.state_outputs]


def _final(op: StackedRecurrence, reverse: bool, lengths: Lengths, state: Named, init: Named) -> Named:
    """The state after the last step; backwards that is the first frame."""
    if not reverse:
        return last(Last(op.over), lengths, state, init)
    rest = tuple(dim for dim in state.dims if dim is not op.over)
    if not lengths.size(op.over):
        return Named(init.full(rest, lengths), rest)
    length = lengths.of(op.over)
    dims = union([Named(np.zeros([1] * len(rest)), rest), length])
    first = Named(state.over((op.over, *rest))[0], rest)
    return Named(np.where(length.over(dims) > 0, first.over(dims), init.over(dims)), dims)


RULES: Mapping[type[Op], Rule] = {StackedRecurrence: stacked}
