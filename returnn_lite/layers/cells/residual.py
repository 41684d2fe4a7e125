"""A cell whose source is added to its output (He et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.config.options import option
from returnn_lite.dims import Dim, MarkedType
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell, InnerCell
from returnn_lite.layers.cells.unit import DimsOfStates, States, Unit
from returnn_lite.layers.cells.wrapping import below, inner_step


class Residual(Cell, names=("residual",)):
    """y = x + cell(x). The source has as many features as the cell's output."""

    paper = "He et al. 2016"

    cell: InnerCell = option("the cell")

    def state_keys(self) -> tuple[str, ...]:
        return tuple(f"cell/{key}" for key in self.cell.state_keys())

    def out_size(self) -> int | None:
        return self.cell.out_size()

    def states(self, b: CellBuilder, x: MarkedType, out: Dim) -> DimsOfStates:
        return below("cell", self.cell.states(b.inside("cell"), x, out))

    def output(self, b: CellBuilder, x: MarkedType, out: Dim) -> tuple[Dim, ...]:
        return self.cell.output(b.inside("cell"), x, out)

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        if x.type.sparse is not None or b.feature_of(x).size != out.size:
            b.fail(f"a residual needs a source of {out.size} features, not {x.type}", "Put a linear layer before it.")

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            y, after = inner_step(b.inside("cell"), "cell", self.cell, now[0], out, before)
            same = b.relabel(now[0], b.feature_of(now[0]), out, "the source of a residual")
            return b.add(b.with_feature(same, out), y), after

        return Unit((x,), step)


CELLS = (Residual,)
