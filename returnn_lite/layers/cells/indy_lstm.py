"""The LSTM each of whose units sees only its own output of the step before (Gonnet and Deselaers 2019)."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.config.options import Activation, option
from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.lstm_arithmetic import LstmArithmetic
from returnn_lite.layers.cells.unit import States, Unit


class IndyLstm(Cell, names=("indylstm",)):
    """The LSTM whose recurrent weights are diagonal: z = x kernel_w + h * kernel_u + bias for each gate.

    kernel_w [in, 4n], kernel_u [4n], within -1 and 1 at first, bias [4n]; gates i, j, f, o.
    """

    paper = "Gonnet and Deselaers 2019"
    keys = ("h", "c")

    forget_bias: float = option("what is added to the forget gate", default=1.0)
    activation: Activation | None = option("that of the candidate and of the cell state", default="tanh")

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        gates = linear_dim([(out, 4)], 0)
        weights = b.param("kernel_w", (b.source(x), gates), b.inits.input)
        z = b.input_product(x, weights, b.param("bias", (gates,), b.inits.bias))
        kernel_u = b.param(
            "kernel_u", (gates,), b.inits.recurrent_or("random_uniform_initializer(minval=-1, maxval=1)")
        )
        for_h = b.blocks(kernel_u, gates, out, "ijfo")
        arithmetic = LstmArithmetic(out, self.forget_bias, self.activation or "tanh")

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            parts = {
                name: b.add(part, b.mul(before["h"], for_h[name]))
                for name, part in b.blocks(now[0], gates, out, "ijfo").items()
            }
            return arithmetic.after(b, parts, before["c"])

        return Unit((z,), step)


CELLS = (IndyLstm,)
