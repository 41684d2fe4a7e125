"""Meanings of the recurrences on a plane: frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from returnn_lite.ir import Op
from returnn_lite.ir.ops.planes import PlaneLstmStep
from tests.reference.elementwise import sigmoid
from tests.reference.named import Array, Lengths, Named
from tests.reference.rule import Rule
from tests.reference.sequences import per_sequence


def plane(z: Array, w_left: Array, w_above: Array, h: Array, c: Array) -> tuple[Array, Array]:
    """All h and c of z [rows, width, gates], below a row of h and c."""
    outputs, states = np.zeros((2, *z.shape[:2], h.shape[-1]))
    for y in range(z.shape[0]):
        h, c = (outputs[y - 1], states[y - 1]) if y else (h, c)
        left_h = left_c = np.zeros(h.shape[-1])
        for x in range(z.shape[1]):
            i, f, share, o, g = np.split(z[y, x] + left_h @ w_left + h[x] @ w_above, 5)
            share = sigmoid(share)
            left_c = sigmoid(i) * np.tanh(g) + sigmoid(f) * (share * c[x] + (1 - share) * left_c)
            left_h = sigmoid(o) * np.tanh(left_c)
            outputs[y, x], states[y, x] = left_h, left_c
    return outputs, states


def row(op: PlaneLstmStep, lengths: Lengths, *operands: Named) -> tuple[Named, ...]:
    """The row below."""
    cell = op.cell

    def of_one(z_along: Array, z_row: Array, *rest: Array) -> tuple[Array, ...]:
        outputs, states = plane((z_along + z_row)[None], *rest)
        return outputs[0], states[0]

    return _of_each(op, lengths, operands, (cell.along, cell.gates), (cell.gates,), (cell.along, cell.hidden), of_one)


def _of_each(op: Any, lengths: Lengths, operands: Any, along: Any, rows: Any, out: Any, of_one: Any) -> Any:
    cell = op.cell
    weights, states = (cell.recurrent, cell.gates), (cell.along, cell.hidden)
    seen = [along, rows, weights, weights, states, states]
    return per_sequence(lengths, list(zip(operands, seen, strict=True)), [out, out], of_one)


RULES: Mapping[type[Op], Rule] = {PlaneLstmStep: row}
