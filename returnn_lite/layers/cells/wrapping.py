"""Cells inside of other cells: their states and parameters have the name of the inner one before their own."""

from __future__ import annotations

from returnn_lite.dims import Dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.unit import DimsOfStates, States, Unit


def unit_on(b: CellBuilder, cell: Cell, x: View, out: Dim) -> Unit:
    """The unit of a cell on any source: a kernel can't have a dim twice, so a source that has the output's dim gets
    another name for it."""
    return cell.unit(b, b.relabel(x, out, b.copy_of_dim(out)) if out in x.type else x, out)


def below(name: str, states: DimsOfStates) -> DimsOfStates:
    """The states of a cell inside of another under their names there."""
    return {f"{name}/{key}": dims for key, dims in states.items()}


def inner_step(b: CellBuilder, name: str, cell: Cell, x: View, out: Dim, before: States) -> tuple[View, States]:
    """One step of a cell inside of another, whose states have the name of the cell before theirs."""
    unit = unit_on(b, cell, x, out)
    own = {key: before[f"{name}/{key}"] for key in cell.state_keys()}
    y, after = unit.step(unit.inputs, own)
    return y, {f"{name}/{key}": value for key, value in after.items()}
