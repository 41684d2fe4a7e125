"""Cells one on top of the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from returnn_lite.config.options import option
from returnn_lite.dims import Dim, DimKind, MarkedType, Symbol
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell, InnerCells
from returnn_lite.layers.cells.unit import DimsOfStates, States, Unit
from returnn_lite.layers.cells.wrapping import below, inner_step


class Stack(Cell, names=("stack", "multirnn", "stackedrnn")):
    """Each cell reads the output of the one before in the same step; the output is that of the last.

    The states of cell i are `i/KEY`, its parameters `i/NAME`.
    """

    paper = "Graves et al. 2013"
    lists_of_cells = ("cells",)

    units: int | None = option(
        "of the cells", default=None, unsupported="a stack has no size of its own. Say it of the last cell"
    )
    cells: InnerCells = option("the cells, the one that reads the source first")
    state_is_tuple: bool = option("has no influence on results: states have names", default=True)
    reverse_state_order: bool = option("has no influence on results: states have names", default=False)

    def state_keys(self) -> tuple[str, ...]:
        return tuple(f"{i}/{key}" for i, cell in enumerate(self.cells) for key in cell.state_keys())

    def input_names(self) -> tuple[str, ...]:
        return self.cells[0].input_names()

    def reads_labels(self) -> bool:
        return self.cells[0].reads_labels()

    def out_size(self) -> int | None:
        return self.cells[-1].out_size()

    def out_size_on(self, x: MarkedType) -> int | None:
        for cell in self.cells[:-1]:
            size = cell.out_size_on(x)
            if size is None:
                return self.out_size()
            source = Symbol("source", DimKind.FEATURE, size)
            x = MarkedType((source,), feature=source)
        return self.cells[-1].out_size_on(x)

    def states(self, b: CellBuilder, x: MarkedType, out: Dim) -> DimsOfStates:
        found: dict[str, tuple[Dim, ...]] = {}
        for name, cell, source, dim in self._sources(b, x, out):
            found |= below(name, cell.states(b.inside(name), source, dim))
        return found

    def output(self, b: CellBuilder, x: MarkedType, out: Dim) -> tuple[Dim, ...]:
        *_, (name, cell, source, dim) = self._sources(b, x, out)
        return cell.output(b.inside(name), source, dim)

    def _sources(self, b: CellBuilder, x: MarkedType, out: Dim) -> Iterator[tuple[str, Cell, MarkedType, Dim]]:
        """Each cell with its name, what it reads, and the feature dim of its output."""
        for name, cell in self._named():
            dim = self._dim(b, name, cell, x, out)
            yield name, cell, x, dim
            x = MarkedType(cell.output(b.inside(name), x, dim), feature=dim)

    def unit_of_inputs(self, b: CellBuilder, inputs: Sequence[View], out: Dim) -> Unit:
        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            below_it = now
            after: dict[str, View] = {}
            for name, cell in self._named():
                dim = self._dim(b, name, cell, below_it[-1].type, out)
                y, own = inner_step(b.inside(name), name, cell, below_it, dim, before)
                below_it = [y]
                after |= own
            return y, after

        return Unit(tuple(inputs), step)

    def _named(self) -> list[tuple[str, Cell]]:
        return [(str(i), cell) for i, cell in enumerate(self.cells)]

    def _dim(self, b: CellBuilder, name: str, cell: Cell, x: MarkedType, out: Dim) -> Dim:
        """The feature dim of a cell's output on a source: as large as that of the last, unless the cell says."""
        if cell is self.cells[-1]:
            return out
        size = cell.out_size_on(x) or out.size
        assert size is not None
        return b.dim(name, size)


CELLS = (Stack,)
