"""Units in both directions over a sequence (Schuster and Paliwal 1997): each has parameters and states of its own, and
their outputs are merged. Of several, one on top of the other, each reads what the one below has merged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from returnn_lite.dims import Dim
from returnn_lite.ir.layer_reads import CellRecord
from returnn_lite.ir.views import View
from returnn_lite.layers.builder import LayerBuilder
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.records import records_of
from returnn_lite.layers.cells.unit import DimsOfStates, Steps, Unit
from returnn_lite.layers.cells.wrapping import below, named_states, unit_on
from returnn_lite.layers.errors import UNKNOWN_SIZE
from returnn_lite.layers.surroundings import Outputs

Merge = Literal["concat", "sum", "mul", "ave", "none"]
DIRECTIONS = ("forward", "backward")
BuilderOf = Callable[[str], CellBuilder]
"""The builder of the cell below `rec` with a name."""
RunUnit = Callable[[View, Unit, DimsOfStates, Steps], Outputs]
"""Runs a unit on a source in its steps; the dims of its states are given."""


@dataclass(frozen=True)
class BothDirections:
    """The cells of each direction, the one that reads the source first; parameters and states are called after
    `forward` and `backward`, and if they are `stacked` after the number of the layer, too: `forward/0/h`."""

    forward: Sequence[Cell]
    backward: Sequence[Cell]
    merge: Merge
    stacked: bool

    def state_keys(self) -> tuple[str, ...]:
        """All states, those of the forward direction first."""
        cells = zip(DIRECTIONS, (self.forward, self.backward), strict=True)
        return tuple(
            f"{self._name(direction, place)}/{key}"
            for direction, own in cells
            for place, cell in enumerate(own)
            for key in cell.state_keys()
        )

    def input_names(self) -> tuple[str, ...]:
        """What the first layer reads."""
        return self.forward[0].input_names()

    def cell_records(
        self, unit: object, backward: object, unit_opts: Mapping[str, Any] | None
    ) -> tuple[CellRecord, ...]:
        """The cells, of what the config says of the unit, and of that backwards if it is another."""
        specs = [(unit, "unit"), (unit, "unit") if backward is None else (backward, "unit_backward")]
        found: list[CellRecord] = []
        for direction, cells, (spec, option) in zip(DIRECTIONS, (self.forward, self.backward), specs, strict=True):
            for place, cell in enumerate(cells):
                own, at = (spec[place], (option, place)) if isinstance(spec, list | tuple) else (spec, (option,))
                options = unit_opts if option == "unit" else None
                found += records_of(cell, own, at, self._name(direction, place), options)
        return tuple(found)

    def run(
        self, b: LayerBuilder, builders: BuilderOf, sources: Sequence[View], steps: Steps, run_unit: RunUnit
    ) -> Outputs:
        """The merged output of the last layer, with that of each direction as a part; the states after each sequence's
        last frame, and its first. Raises LayerError."""
        outputs = Outputs(sources[-1])
        state: dict[str, View] = {}
        for place in range(len(self.forward)):
            outputs = self._layer(place, b, builders, sources, steps, run_unit)
            state |= outputs.state
            sources = [outputs.value]
        return replace(outputs, state={key: state[key] for key in self.state_keys()})

    def _name(self, direction: str, place: int) -> str:
        return f"{direction}/{place}" if self.stacked else direction

    def _layer(
        self,
        place: int,
        b: LayerBuilder,
        builders: BuilderOf,
        sources: Sequence[View],
        steps: Steps,
        run_unit: RunUnit,
    ) -> Outputs:
        cells = (self.forward[place], self.backward[place])
        names = [self._name(direction, place) for direction in DIRECTIONS]
        is_last = place == len(self.forward) - 1
        out = b.surroundings.out_feature()
        sizes = self._sizes(b, cells, sources[-1], out)
        parts: list[View] = []
        held: list[View | None] = []
        state: dict[str, View] = {}
        for name, cell, size in zip(names, cells, sizes, strict=True):
            own, dim = builders(name), b.new_feature(size, name)
            unit = named_states(name, unit_on(own, cell, sources, dim))
            states = below(name, cell.states(own, sources[-1].type, dim))
            outputs = run_unit(sources[-1], unit, states, replace(steps, reverse=name == names[1]))
            parts.append(outputs.value)
            held.append(outputs.held)
            state |= outputs.state
        of_last = out if is_last else None
        known = [state for state in held if state is not None]
        return Outputs(
            self._merged(b, parts, of_last),
            dict(zip(DIRECTIONS, parts, strict=True)),
            state,
            held=self._merged(b, known, of_last) if len(known) == len(parts) else None,
        )

    def _sizes(self, b: LayerBuilder, cells: tuple[Cell, Cell], x: View, out: Dim | None) -> list[int]:
        """The features of each direction: as its cell says, or so that both make the output."""
        known = [cell.out_size_on(x.type) for cell in cells]
        joined = self.merge in ("concat", "none")
        total = None if out is None else out.size
        if None in known and joined and total is not None:
            rest = total - sum(size or 0 for size in known)
            missing = known.count(None)
            if rest <= 0 or rest % missing:
                hint = "Say 'units' in the unit, or give an n_out that both make together."
                b.fail(f"both directions can't make {total} features together", hint, "n_out")
            known = [size or rest // missing for size in known]
        elif None in known:
            size = total or next((size for size in known if size is not None), None)
            known = [one or size for one in known]
        sizes = [size for size in known if size is not None]
        if len(sizes) < 2:
            b.fail(*UNKNOWN_SIZE, "")
        if not joined and sizes[0] != sizes[1]:
            b.fail(
                f"'{self.merge}' of {sizes[0]} and {sizes[1]} features", "Use concat, or units of one size.", "merge"
            )
        return sizes

    def _merged(self, b: LayerBuilder, parts: Sequence[View], out: Dim | None) -> View:
        """What both directions make; with the feature dim of the layer, if it has one."""
        merged = self._joined(b, parts)
        if out is None:
            return merged
        made = b.feature_of(merged).size
        if made != out.size:
            b.fail(f"both directions make {made} features, but n_out is {out.size}", "Leave one of them out.")
        reason = f"both directions of '{b.name}'"
        return b.with_feature(b.relabel(merged, b.feature_of(merged), out, reason), out)

    def _joined(self, b: LayerBuilder, parts: Sequence[View]) -> View:
        forward, backward = parts
        if self.merge in ("concat", "none"):
            return b.concat_features(parts)
        same = b.relabel(backward, b.feature_of(backward), b.feature_of(forward), "directions that are merged")
        if self.merge == "mul":
            return b.mul(forward, same)
        total = b.add(forward, same)
        return b.mul(total, 0.5) if self.merge == "ave" else total
