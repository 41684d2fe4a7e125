"""Edit distances, a row of the table at each label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from returnn_lite.dims import Dim, TensorType, union_of_dims
from returnn_lite.ir.ops.recurrence import Step


@dataclass(frozen=True)
class EditDistanceStep(Step):
    """The next row of an edit distance table: of the labels so far, this one included, to each beginning of a
    reference (Wagner and Fischer 1974).

    Operands: label [..] (int), reference [labels] (int), the row before [row], row = labels + 1; result the row after,
    int32. A label that equals `blank` is none: the row stays.
    """

    state_inputs: ClassVar[tuple[int, ...]] = (2,)
    state_outputs: ClassVar[tuple[int, ...]] = (0,)
    whole_label: ClassVar[str] = "edit_distance_table"
    forwards_only: ClassVar[bool] = True
    works_along: ClassVar[tuple[str, ...]] = ("labels", "row")
    labels: Dim
    row: Dim
    blank: int | None = None

    def type_of(self, label: TensorType, reference: TensorType, before: TensorType) -> TensorType:
        return _row_type(self.labels, self.row, label, reference, before)

    @property
    def causal(self) -> bool:
        return True


def _row_type(labels: Dim, row: Dim, label: TensorType, reference: TensorType, before: TensorType) -> TensorType:
    for x in (label, reference, before):
        x.require_dtype("int", "an edit distance")
    dims = union_of_dims((label, reference.without(labels), before.without(row)))
    return TensorType((*dims, row), "int32")
