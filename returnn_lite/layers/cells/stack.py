"""Cells one on top of the other."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.config.options import option
from returnn_lite.dims import Dim, MarkedType
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell, InnerCells
from returnn_lite.layers.cells.unit import DimsOfStates, States, Unit
from returnn_lite.layers.cells.wrapping import below, inner_step


class Stack(Cell, names=("stack", "multirnn")):
    """Each cell reads the output of the one before in the same step; the output is that of the last.

    The states of cell i are `i/KEY`, its parameters `i/NAME`.
    """

    paper = "Graves et al. 2013"
    lists_of_cells = ("cells",)

    cells: InnerCells = option("the cells, the one that reads the source first")

    def state_keys(self) -> tuple[str, ...]:
        return tuple(f"{i}/{key}" for i, cell in enumerate(self.cells) for key in cell.state_keys())

    def out_size(self) -> int | None:
        return self.cells[-1].out_size()

    def states(self, b: CellBuilder, x: MarkedType, out: Dim) -> DimsOfStates:
        found: dict[str, tuple[Dim, ...]] = {}
        for name, cell, dim in self._parts(b, out):
            found |= below(name, cell.states(b.inside(name), x, dim))
            x = MarkedType(cell.output(b.inside(name), x, dim), feature=dim)
        return found

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            y = now[0]
            after: dict[str, View] = {}
            for name, cell, dim in self._parts(b, out):
                y, own = inner_step(b.inside(name), name, cell, y, dim, before)
                after |= own
            return y, after

        return Unit((x,), step)

    def _parts(self, b: CellBuilder, out: Dim) -> list[tuple[str, Cell, Dim]]:
        """Each cell with its name and the feature dim of its output: as large as that of the last, unless it says."""
        last = len(self.cells) - 1
        dims = [out if i == last else b.dim(f"{i}", self._size(cell, out)) for i, cell in enumerate(self.cells)]
        return [(str(i), cell, dim) for i, (cell, dim) in enumerate(zip(self.cells, dims, strict=True))]

    def _size(self, cell: Cell, out: Dim) -> int:
        size = cell.out_size() or out.size
        assert size is not None
        return size


CELLS = (Stack,)
