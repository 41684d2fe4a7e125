"""Recurrences on a plane: each frame follows the one before it in its row, and the one above it in the row before.

The rows are the steps of a loop; a row is the state that the loop carries.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import ClassVar

from returnn_lite.dims import Dim, DimError, TensorType, require_one_dtype, union_of_dims
from returnn_lite.ir.kept import Kept
from returnn_lite.ir.ops.recurrence import Step


@dataclass(frozen=True)
class PlaneLstmCell:
    """A 2D LSTM with one forget gate, which lambda shares out between the two frames before:

        c' = s(i) tanh(g) + s(f) (s(l) c_above + (1 - s(l)) c_left),  h' = s(o) tanh(c')

    Leifert et al. 2016, "Cells in multidimensional recurrent neural networks" (the stable cell), as in Voigtlaender et
    al. 2016. Left is the frame before along `along`, above the same frame of the row before. `gates` has the blocks i,
    f, l, o, g; `recurrent` is the dim of the rows of both recurrent weights.
    """

    hidden: Dim
    recurrent: Dim
    gates: Dim
    along: Dim

    def type_of(
        self,
        z_along: TensorType,
        z_row: TensorType,
        w_left: TensorType,
        w_above: TensorType,
        h: TensorType,
        c: TensorType,
    ) -> TensorType:
        """The type of a row of outputs, or of cell states."""
        require_one_dtype("twod_lstm", (z_along, z_row, w_left, w_above, h, c), "float")
        for weights in (w_left, w_above):
            weights.require(self.recurrent, self.gates)
        for row in (z_along, h, c):
            row.require(self.along)
        for z in (z_along, z_row):
            z.require(self.gates)
        if self.along in z_row:
            raise DimError(f"what is the same for a row has no {self.along}: {z_row}")
        dims = union_of_dims((z_along, z_row, h, c))
        rest = (d for d in dims if d not in (self.gates, self.hidden))
        return TensorType((*rest, self.hidden), z_along.dtype)


@dataclass(frozen=True)
class PlaneLstmStep(Step):
    """One row. Operands: z_along [along, gates] and z_row [gates], whose sum is the input product; W_left and W_above
    [recurrent, gates]; h and c [along, hidden] of the row above; results h', c'."""

    state_inputs: ClassVar[tuple[int, ...]] = (4, 5)
    state_outputs: ClassVar[tuple[int, ...]] = (0, 1)
    forwards_only: ClassVar[bool] = True
    weights_at: ClassVar[tuple[int, ...]] = (2, 3)
    works_along: ClassVar[tuple[str, ...]] = ("cell",)
    cell: PlaneLstmCell

    @property
    def roles(self) -> tuple[str, ...]:
        return ("hidden", "cell")

    def type_of(self, *operands: TensorType) -> tuple[TensorType, TensorType]:
        return (self.cell.type_of(*operands),) * 2

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        return Kept(operands=(2, 3, 4, 5), inner=self.kept_by_kernel(self.type_of(*inputs)[0]))

    def kept_by_kernel(self, state: TensorType) -> tuple[TensorType, ...]:
        """Four gates, the candidate, tanh of the new cell state, both cell states and both outputs before."""
        return (state,) * 10

    def products(self, inputs: tuple[TensorType, ...]) -> tuple[tuple[Dim, ...], ...]:
        rows = self.type_of(*inputs)[0].without(self.cell.hidden).dims
        return tuple((*rows, *weights.dims) for weights in inputs[2:4])

    @property
    def causal(self) -> bool:
        return True
