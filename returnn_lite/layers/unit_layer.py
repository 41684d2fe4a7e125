"""What the layers with a recurrent unit share: which cell that is, on which sources, with which states."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from returnn_lite.config.options import (
    CellSpec,
    LayerRef,
    NetDict,
    is_network,
    option,
)
from returnn_lite.dims import Copy, Dim
from returnn_lite.ir.layer_reads import CellRecord
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder, Outputs
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.decoding import unit_of
from returnn_lite.layers.cells.directions import BothDirections
from returnn_lite.layers.cells.given_states import GivenStates
from returnn_lite.layers.cells.records import records_of
from returnn_lite.layers.cells.references import Path, references_of
from returnn_lite.layers.cells.running import run_unit
from returnn_lite.layers.cells.unit import DimsOfStates, Steps, Unit
from returnn_lite.layers.cells.wrapping import unit_on
from returnn_lite.layers.errors import UNKNOWN_SIZE, LayerError


class UnitLayer(Layer):
    """A layer that runs a unit, unless that is a network: its states are those of the unit."""

    joins_sources = True
    inner_scope = "rec"

    unit: NetDict | CellSpec
    unit_opts: dict[str, Any] | None = option("options of a unit that is a name", default=None)
    in_loop: ClassVar[bool] = False
    """Whether names mean what they do in `rnn_cell`."""
    initial_state: LayerRef | float | int | dict[str, Any] | list[Any] | None = option("the state before", default=None)
    state: LayerRef | dict[str, Any] | None = option("the state before, at each step of the loop", default=None)

    def cell_records(self) -> tuple[CellRecord, ...]:
        if is_network(self.unit):
            return ()
        return tuple(records_of(self.cell, self.unit, ("unit",), unit_opts=self.unit_opts))

    def joins(self) -> bool:
        if is_network(self.unit):
            return True
        try:
            return len(self.runs.input_names()) == 1
        except LayerError:  # which `build` reports
            return True

    def state_keys(self) -> tuple[str, ...]:
        if is_network(self.unit):
            return ()
        try:
            return self.runs.state_keys()
        except LayerError:  # which `build` reports
            return ()

    def own_size(self) -> int | None:
        if is_network(self.unit):
            return None
        try:
            cell = self.runs
        except LayerError:  # which `build` reports
            return None
        return cell.out_size() if isinstance(cell, Cell) else None

    def mistakes(self) -> Iterator[LayerError]:
        if is_network(self.unit):
            return
        try:
            _ = self.runs
        except LayerError as error:
            yield from error.all

    @classmethod
    def references_inside(cls, options: Mapping[Any, Any]) -> Iterator[tuple[Path, str]]:
        return references_of(options)

    @functools.cached_property
    def cell(self) -> Cell:
        """The unit, if it is no network. Raises LayerError."""
        return unit_of(self.unit, self.unit_opts, in_loop=self.in_loop)

    @property
    def runs(self) -> Cell | BothDirections:
        """What has the states: the unit, or its copies in both directions. Raises LayerError."""
        return self.cell

    @property
    def given_states(self) -> GivenStates:
        """What the options say of the states."""
        return GivenStates(self.initial_state, self.state, self.state_keys())

    def on_sources(self, b: LayerBuilder, cells: CellBuilder, sources: Sequence[View], steps: Steps | None) -> Outputs:
        """The cell on its sources in these steps: the frames that `cells` has; or one step of the loop around."""
        sources = over_same_frames(b, sources, cells.frames)
        x = sources[-1]
        out = self._out(b, x)
        unit = unit_on(cells, self.cell, sources, out)
        states = self.cell.states(cells, x.type, out)
        return self.run_unit(b, x, unit, states, steps)

    def run_unit(self, b: LayerBuilder, x: View, unit: Unit, states: DimsOfStates, steps: Steps | None) -> Outputs:
        """A unit on a source, with the states that the options give it."""
        with self.running(b):
            return run_unit(b, x, unit, states, steps, self.given_states)

    def running(self, b: LayerBuilder) -> AbstractContextManager[None]:
        """The context in which the unit runs."""
        return nullcontext()

    def _out(self, b: LayerBuilder, x: View) -> Dim:
        """The feature dim of the output, of the size that the cell says or the options of the layer do."""
        size, out = self.cell.out_size_on(x.type), b.surroundings.out_feature()
        if out is None and size is None:
            b.fail(UNKNOWN_SIZE[0], f"{UNKNOWN_SIZE[1][:-1]}; or 'units' in each cell of the unit.", "")
        if out is None:
            assert size is not None
            return b.new_feature(size)
        if size is not None and out.size is not None and out.size != size:
            b.fail(f"the unit has {size} features, but n_out is {out.size}", "Leave one of them out.")
        return out

    def begins_with_state(self) -> bool:
        given = self.given_states
        return bool(self.state_keys()) and (given.streams is not None or given.initial not in (None, 0, "zeros"))


def over_same_frames(b: LayerBuilder, sources: Sequence[View], time: Dim | None) -> list[View]:
    """The sources with the same frames: of a sequence from around a loop each has a copy. Raises LayerError for other
    frames."""
    found = []
    for x in sources:
        own = x.type.default_time
        if time is None or own is None or time in x.type:
            found.append(x)
        elif isinstance(own, Copy) and isinstance(time, Copy) and own.of is time.of:
            found.append(b.relabel(x, own, time, f"sources of '{b.name}'"))
        else:
            hint = "Declare one of them with same_dim_tags_as, or use reinterpret_data with size_base."
            b.fail(f"the sources have other frames: {x.type}, and those of {time}", hint, "from")
    return found


def source_of_frames(sources: Sequence[View]) -> View:
    """The source that says what frames there are: the first one with a time axis."""
    return next((x for x in sources if x.type.default_time is not None), sources[0])
