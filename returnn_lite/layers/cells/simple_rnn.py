"""The simple recurrent network (Elman 1990)."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.config.options import Activation, option
from returnn_lite.dims import Dim
from returnn_lite.ir.ops.recurrence import SimpleRnnCell, SimpleRnnStep
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.unit import States, Unit


class BasicRnn(Cell, names=("basicrnn", "rnn")):
    """h' = activation([x, h] kernel + bias)."""

    paper = "Elman 1990"

    activation: Activation | None = option("the activation function", default="tanh")

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        recurrent = b.rows(out)
        for_x, for_h = b.joint_kernel("basic_rnn_cell/kernel", x, recurrent, out)
        z = b.input_product(x, for_x, b.param("basic_rnn_cell/bias", (out,), b.inits.bias))
        activation = self.activation or "tanh"
        if activation == "tanh":
            return b.fused((z,), (for_h,), ("h",), out, SimpleRnnStep(SimpleRnnCell(out, recurrent)))

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            h = b.activation(activation, b.add(now[0], b.recurrent_product(before["h"], for_h, out, recurrent)))
            return h, {"h": h}

        return Unit((z,), step)


CELLS = (BasicRnn,)
