"""Cells inside of other cells: their states and parameters have the name of the inner one before their own."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.config.options import option
from returnn_lite.dims import Dim, MarkedType
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell, InnerCell
from returnn_lite.layers.cells.unit import DimsOfStates, States, Unit


def unit_on(b: CellBuilder, cell: Cell, sources: View | Sequence[View], out: Dim) -> Unit:
    """The unit of a cell on any source, or on one for each of its inputs: a kernel can't have a dim twice, so a source
    that has the output's dim gets another name for it."""
    given, names = [sources] if isinstance(sources, View) else sources, cell.input_names()
    if len(given) != len(names):
        b.fail(
            f"the cell reads {len(names)} sources ({', '.join(names)}), but gets {len(given)}",
            "Give the layer that many in 'from'; a cell that reads the output of another gets one.",
        )
    own = [b.relabel(x, out, b.copy_of_dim(out)) if out in x.type else x for x in given]
    return cell.unit_of_inputs(b, own, out)


def below(name: str, states: DimsOfStates) -> DimsOfStates:
    """The states of a cell inside of another under their names there."""
    return {f"{name}/{key}": dims for key, dims in states.items()}


def named_states(name: str, unit: Unit) -> Unit:
    """A unit whose states have a name before their keys."""

    def bare(states: States) -> States:
        return {key.removeprefix(f"{name}/"): value for key, value in states.items()}

    def named(output: View, states: States) -> tuple[View, States]:
        return output, {f"{name}/{key}": value for key, value in states.items()}

    whole = unit.whole
    return Unit(
        unit.inputs,
        lambda now, before: named(*unit.step(now, bare(before))),
        None if whole is None else lambda steps, before: named(*whole(steps, bare(before))),
    )


def inner_step(
    b: CellBuilder, name: str, cell: Cell, x: View | Sequence[View], out: Dim, before: States
) -> tuple[View, States]:
    """One step of a cell inside of another, whose states have the name of the cell before theirs."""
    unit = unit_on(b, cell, x, out)
    own = {key: before[f"{name}/{key}"] for key in cell.state_keys()}
    y, after = unit.step(unit.inputs, own)
    return y, {f"{name}/{key}": value for key, value in after.items()}


class Wrapper(Cell):
    """Base of the cells around one other: its states are that one's, as `cell/KEY`, and its output is like that one's,
    unless a subclass says otherwise."""

    units: int | None = option(
        "of the cell inside", default=None, unsupported="a wrapper has no size of its own. Say it of the cell inside"
    )
    cell: InnerCell = option("the cell")

    def state_keys(self) -> tuple[str, ...]:
        return tuple(f"cell/{key}" for key in self.cell.state_keys())

    def input_names(self) -> tuple[str, ...]:
        return self.cell.input_names()

    def reads_labels(self) -> bool:
        return self.cell.reads_labels()

    def out_size(self) -> int | None:
        return self.cell.out_size()

    def out_size_on(self, x: MarkedType) -> int | None:
        return self.cell.out_size_on(x)

    def states(self, b: CellBuilder, x: MarkedType, out: Dim) -> DimsOfStates:
        return below("cell", self.cell.states(b.inside("cell"), x, out))

    def output(self, b: CellBuilder, x: MarkedType, out: Dim) -> tuple[Dim, ...]:
        return self.cell.output(b.inside("cell"), x, out)

    def inner_step(self, b: CellBuilder, x: View | Sequence[View], out: Dim, before: States) -> tuple[View, States]:
        """One step of the cell inside, whose output has the feature dim `out`."""
        return inner_step(b.inside("cell"), "cell", self.cell, x, out, before)
