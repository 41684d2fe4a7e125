"""The gated recurrent unit (Cho et al. 2014)."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.config.options import Activation, option
from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.ops.recurrence import GruCell, GruStep
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.unit import States, Unit


class Gru(Cell, names=("gru", "grublock")):
    """r, u = sigmoid([x, h] W_gates + b); h' = u*h + (1-u)*activation([x, r*h] W_candidate + b).

    The reset comes before the product. gates/kernel [in+n, 2n] with r, u and bias 1; candidate/kernel [in+n, n].
    """

    paper = "Cho et al. 2014"

    activation: Activation | None = option("the activation function of the candidate", default="tanh")

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        recurrent = b.rows(out)
        gates = linear_dim([(out, 2)], 0)
        wx, wh = b.joint_kernel("gru_cell/gates/kernel", x, recurrent, gates)
        z = b.input_product(x, wx, b.param("gru_cell/gates/bias", (gates,), 1.0))
        cx, ch = b.joint_kernel("gru_cell/candidate/kernel", x, recurrent, out)
        candidate = b.input_product(x, cx, b.param("gru_cell/candidate/bias", (out,), b.inits.bias))
        activation = self.activation or "tanh"
        if activation == "tanh":
            return b.fused((z, candidate), (wh, ch), ("h",), out, GruStep(GruCell(out, recurrent, gates)))

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            old = before["h"]
            total = b.add(now[0], b.recurrent_product(old, wh, out, recurrent))
            r, u = b.blocks(b.unary("sigmoid", total), gates, out, "ru").values()
            seen = b.recurrent_product(b.mul(r, old), ch, out, recurrent)
            new = b.activation(activation, b.add(now[1], seen))
            h = b.add(b.mul(u, old), b.mul(b.sub(1.0, u), new))
            return h, {"h": h}

        return Unit((z, candidate), step)


CELLS = (Gru,)
