"""The LSTM whose states keep their old values in parts (Krueger et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.config.options import option
from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.ops.recurrent_cells import LstmCell, LstmStep
from returnn_lite.ir.ops.sources import RandomDraw
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.lstm_arithmetic import fused_lstm
from returnn_lite.layers.cells.unit import States, Unit


class ZoneoutLstm(Cell, names=("zoneoutlstm",)):
    """TensorFlow's LSTM whose states keep their old values in parts.

    In training each element of the state keeps its old value with the probability of its factor; else the state is
    that much the old one. The output is the state h after that with `use_zoneout_output`, else h before it.
    """

    paper = "Krueger et al. 2017"
    keys = ("h", "c")

    zoneout_factor_cell: float = option("of the cell state", default=0.0, least=0, below=1)
    zoneout_factor_output: float = option("of h", default=0.0, least=0, below=1)
    use_zoneout_output: bool | None = option("default: from behavior_version 17", default=None)

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        factors = {"c": self.zoneout_factor_cell, "h": self.zoneout_factor_output}
        zoned_output = b.behavior(17) if self.use_zoneout_output is None else self.use_zoneout_output
        recurrent = b.rows(out)
        gates = linear_dim([(out, 4)], 0)
        for_x, for_h = b.joint_kernel("lstm_cell/kernel", x, recurrent, gates)
        z = b.input_product(x, for_x, b.param("lstm_cell/bias", (gates,), b.inits.bias))
        cell = LstmCell(out, recurrent, gates, "ijfo", 1.0)
        if not any(factors.values()):
            return fused_lstm(b, z, for_h, cell)

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            h, c = b.emit(LstmStep(cell), now[0], for_h, before["h"], before["c"])
            states = {key: _zoned(b, key, factors[key], before[key], new) for key, new in (("h", h), ("c", c))}
            return states["h"] if zoned_output else h, states

        names = {"c": "zoneout_factor_cell", "h": "zoneout_factor_output"}
        return b.stepwise((z,), step, [names[key] for key, factor in factors.items() if factor])


def _zoned(b: CellBuilder, key: str, factor: float, old: View, new: View) -> View:
    """The new value, with the old one in its place for a part of its elements (in training), or mixed in."""
    if not factor:
        return new
    if not b.mode.train:
        return b.add(b.mul(old, factor), b.mul(new, 1.0 - factor))
    # The batch may not be among the dims yet, where a cycle is being built; each sequence has its own mask even so.
    dims = tuple(dict.fromkeys((b.batch, *new.type.dims)))
    drawn = b.apply(RandomDraw("uniform", 0.0, 1.0, dims, b.seed(f"zoneout_{key}"), fresh=True))
    return b.select(b.binary("less", drawn, factor), old, new)


CELLS = (ZoneoutLstm,)
