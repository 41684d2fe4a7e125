"""The LSTM that goes along the frequency axis in each frame (Sainath and Li 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from returnn_lite.config.options import option
from returnn_lite.dims import Dim, MarkedType, linear_dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.frequency_steps import at_steps, by_step, count_of_windows, windows
from returnn_lite.layers.cells.lstm_arithmetic import LstmArithmetic
from returnn_lite.layers.cells.unit import DimsOfStates, States, Unit


class TimeFrequencyLstm(Cell, names=("timefrequencylstm", "timefreqlstm")):
    """One LSTM at windows of `feature_size` features that begin `frequency_skip` apart, the lowest first.

    At step k of a frame it reads window k, its output at step k in the frame before, and its output at step k-1 in this
    frame; c is that of step k in the frame before. The output is that of all steps, one after the other: `units` for
    each. The states h and c are [steps, units]. W [window + 2 units, 4 units], B; gates i, j, f, o.
    """

    paper = "Sainath and Li 2016"
    keys = ("h", "c")
    old_options: ClassVar[Mapping[str, str]] = {**Cell.old_options, "use_peepholes": "peephole"}

    units: int | None = option("size at each step; default: what makes the layer's output", default=None, least=1)
    feature_size: int = option("how many features are in a window", least=1)
    frequency_skip: int = option("how many features further the next window begins", default=1, least=1)
    forget_bias: float = option("what is added to the forget gate", default=1.0)
    peephole: bool = option("whether gates see the cell state: W_I_diag, W_F_diag, W_O_diag", default=False)
    cell_clip: float | None = option("the cell state is clipped to so much; not if 0 or less", default=None)
    num_unit_shards: int = option("has no influence on results: parameters are whole", default=1)

    def out_size(self) -> int | None:
        return None

    def out_size_on(self, x: MarkedType) -> int | None:
        size = None if x.feature is None else x.feature.size
        if self.units is None or size is None:
            return None
        return self.units * max(1, count_of_windows(size, self.feature_size, self.frequency_skip))

    def states(self, b: CellBuilder, x: MarkedType, out: Dim) -> DimsOfStates:
        return dict.fromkeys(self.keys, self._dims(b, x, out))

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        steps, hidden = self._dims(b, x.type, out)
        window, gates = b.dim("window", self.feature_size), linear_dim([(hidden, 4)], 0)
        in_time, in_frequency = b.rows(hidden, "time"), b.rows(hidden, "frequency")
        for_x, for_time, for_frequency = b.kernel_parts("W", (window, in_time, in_frequency), gates)
        starts = [k * self.frequency_skip for k in range(steps.size or 1)]
        z = b.input_product(windows(b, x, starts, window, steps), for_x, b.param("B", (gates,), b.inits.bias))
        names = {gate: f"W_{gate.upper()}_diag" for gate in "fio"} if self.peephole else {}
        peepholes = {gate: b.param(name, (hidden,), b.inits.input) for gate, name in names.items()}
        lstm = LstmArithmetic(hidden, self.forget_bias, peepholes=peepholes, cell_clip=self.cell_clip)

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            totals = b.add(now[0], b.recurrent_product(before["h"], for_time, hidden, in_time))
            below: View | None = None
            found: list[States] = []
            both = zip(by_step(b, totals, steps, gates), by_step(b, before["c"], steps, hidden), strict=True)
            for total, c in both:
                if below is not None:
                    total = b.add(total, b.recurrent_product(below, for_frequency, hidden, in_frequency))
                below, states = lstm.after(b, b.blocks(total, gates, hidden, "ijfo"), c)
                found.append(states)
            y = b.concat([(states["h"], hidden) for states in found], out)
            after = {key: at_steps(b, [states[key] for states in found], steps, hidden) for key in self.keys}
            return b.with_feature(y, out), after

        return Unit((z,), step)

    def _dims(self, b: CellBuilder, x: MarkedType, out: Dim) -> tuple[Dim, Dim]:
        """Those of the states: steps along frequency, and units."""
        size = None if x.feature is None else x.feature.size
        if size is None:
            b.fail(f"the source needs a static feature dim, the frequencies: {x}", "", "from")
        count = count_of_windows(size, self.feature_size, self.frequency_skip)
        if count < 1:
            b.fail(f"a window has {self.feature_size} features, but the source only {size}", "", "from")
        units = self.units or (out.size or 0) // count
        if units * count != out.size:
            hint = "Leave out n_out, and give 'units' to this cell and those below it."
            b.fail(f"{count} steps along frequency do not make {out.size} features", hint)
        return b.dim("steps", count), b.dim("units", units)


CELLS = (TimeFrequencyLstm,)
