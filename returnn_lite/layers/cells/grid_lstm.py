"""Grid LSTMs over time and frequency (Kalchbrenner et al. 2015; Li and Sainath 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from returnn_lite.config.options import option
from returnn_lite.dims import Dim, MarkedType
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.frequency_steps import count_of_windows, windows
from returnn_lite.layers.cells.grid_block import GridArithmetic, block_unit
from returnn_lite.layers.cells.unit import DimsOfStates, States, Unit
from returnn_lite.layers.cells.wrapping import below


class Grid(Cell):
    """Base of the grid LSTMs: the features are cut into blocks, each with weights and states of its own."""

    paper = "Kalchbrenner et al. 2015; Li and Sainath 2016"
    old_options: ClassVar[Mapping[str, str]] = {**Cell.old_options, "use_peepholes": "peephole"}
    directions: ClassVar[int] = 1

    units: int | None = option("size at each step; default: what makes the layer's output", default=None, least=1)
    feature_size: int = option("how many features are in a window", least=1)
    frequency_skip: int = option("how many features further the next window begins", default=1, least=1)
    num_frequency_blocks: list[int] = option("how many windows each block has: all that fit into its features")
    start_freqindex_list: list[int] | None = option(
        "the first feature of each block; default: one of all", default=None
    )
    end_freqindex_list: list[int] | None = option("the feature behind the last of each block", default=None)
    share_time_frequency_weights: bool = option("the LSTM in time has the gates of that along frequency", default=False)
    couple_input_forget_gates: bool = option("the forget gate is what the input gate leaves", default=False)
    forget_bias: float = option("what is added to the forget gate", default=1.0)
    peephole: bool = option("whether gates see the cell states of both", default=False)
    cell_clip: float | None = option("the cell states are clipped to so much; not if 0 or less", default=None)
    num_unit_shards: int = option("has no influence on results: parameters are whole", default=1)

    def state_keys(self) -> tuple[str, ...]:
        return tuple(f"{block}/{key}" for block in range(len(self.num_frequency_blocks)) for key in ("h", "c"))

    def out_size(self) -> int | None:
        return None if self.units is None else self.units * self._outputs

    def states(self, b: CellBuilder, x: MarkedType, out: Dim) -> DimsOfStates:
        found: dict[str, tuple[Dim, ...]] = {}
        for block in range(len(self.num_frequency_blocks)):
            found |= below(str(block), dict.fromkeys(("h", "c"), self._dims(b, block, out)))
        return found

    def blocks(self, b: CellBuilder, x: View, starts: Sequence[Sequence[int]], out: Dim) -> Unit:
        """All blocks, whose windows of x begin at `starts`; the output has no dim `out` yet."""
        found: dict[str, Unit] = {}
        arithmetic = GridArithmetic(
            self.share_time_frequency_weights,
            self.couple_input_forget_gates,
            self.forget_bias,
            self.peephole,
            self.cell_clip,
        )
        for block, own in enumerate(starts):
            steps, hidden = self._dims(b, block, out)
            seen = windows(b, x, own, b.dim("window", self.feature_size), steps)
            found[str(block)] = block_unit(b.inside(str(block)), arithmetic, seen, steps, hidden)
        return side_by_side(b, found)

    def starts(self, b: CellBuilder, x: View) -> list[list[int]]:
        """Where the windows of each block begin. Fails if the options do not fit together, or the source."""
        b.require_input_projection()
        size = b.feature_of(x).size if x.type.sparse is None else None
        if size is None:
            b.fail(f"the source needs a static feature dim, the frequencies: {x.type}", "", "from")
        found = []
        for count, (start, end) in zip(self.num_frequency_blocks, self._spans(b, size), strict=True):
            fitting = count_of_windows(end - start, self.feature_size, self.frequency_skip)
            if not 0 <= start < end <= size:
                b.fail(f"a block has the features {start} to {end}, but the source has {size}")
            if count != fitting or count < 1:
                b.fail(f"num_frequency_blocks says {count} windows, but {fitting} fit into {end - start} features")
            found.append([start + k * self.frequency_skip for k in range(count)])
        return found

    def _spans(self, b: CellBuilder, size: int) -> list[tuple[int, int]]:
        """The features of each block."""
        starts, ends, count = self.start_freqindex_list, self.end_freqindex_list, len(self.num_frequency_blocks)
        if not starts and not ends and count == 1:
            return [(0, size)]
        if len(starts or ()) != count or len(ends or ()) != count:
            b.fail(f"start_freqindex_list and end_freqindex_list need an entry for each of {count} blocks")
        return list(zip(starts or (), ends or (), strict=True))

    @property
    def _outputs(self) -> int:
        """How many outputs are one after the other, each of `units` features."""
        return 2 * self.directions * sum(self.num_frequency_blocks)

    def _dims(self, b: CellBuilder, block: int, out: Dim) -> tuple[Dim, Dim]:
        """Those of the states of a block: steps along frequency, and units."""
        units = self.units or (out.size or 0) // self._outputs
        if units * self._outputs != out.size:
            b.fail(f"{self._outputs} outputs do not make {out.size} features", "Leave out n_out, and give units.")
        return b.inside(str(block)).dim("steps", self.num_frequency_blocks[block]), b.dim("units", units)


class GridLstm(Grid, names=("gridlstm",)):
    """One LSTM in time and one along frequency, which see each other, at windows of `feature_size` features.

    At step k of a frame the gates of both read window k, the output in time at step k in the frame before, and the
    output along frequency at step k-1. The output is, for all blocks and steps, that in time and then that along
    frequency. Block i has the states i/h and i/c [steps, units], those in time, and the parameters i/W_f, i/B_f of the
    gates along frequency, i/W_t, i/B_t of those in time, and i/W_I_diag_freqt (the input gate along frequency sees c in
    time) and so on; gates i, j, f, o (i, j, o if coupled). TensorFlow's state_is_tuple=False lets all blocks read the
    state of the first: not here.
    """

    state_is_tuple: bool = option("has no influence on results: states have names here", default=True)

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        return with_out(b, self.blocks(b, x, self.starts(b, x), out), out)


def side_by_side(b: CellBuilder, units: Mapping[str, Unit]) -> Unit:
    """Units that do not see each other as one: outputs one after the other, states below their names."""

    def step(now: Sequence[View], before: States) -> tuple[View, States]:
        outputs: list[View] = []
        after: dict[str, View] = {}
        rest = list(now)
        for name, unit in units.items():
            own = {key.removeprefix(f"{name}/"): value for key, value in before.items() if key.startswith(f"{name}/")}
            y, states = unit.step(rest[: len(unit.inputs)], own)
            rest = rest[len(unit.inputs) :]
            outputs.append(y)
            after |= {f"{name}/{key}": value for key, value in states.items()}
        return b.concat_features(outputs), after

    return Unit(tuple(value for unit in units.values() for value in unit.inputs), step)


def with_out(b: CellBuilder, unit: Unit, out: Dim) -> Unit:
    """A unit whose output has the dim `out`, of the same size as its own."""

    def step(now: Sequence[View], before: States) -> tuple[View, States]:
        y, after = unit.step(now, before)
        return b.relabel(y, b.feature_of(y), out, "the output of a cell"), after

    return Unit(unit.inputs, step)


CELLS = (GridLstm,)
