"""The meaning of a row of edit distances."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from returnn_lite.ir import Op
from returnn_lite.ir.ops.edit_distances import EditDistanceStep
from tests.reference.named import Array, Lengths, Named
from tests.reference.rule import Rule
from tests.reference.sequences import per_sequence


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


RULES: Mapping[type[Op], Rule] = {EditDistanceStep: edit_distance_step}
