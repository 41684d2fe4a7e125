"""The recurrent network whose only gate says what is updated (Collins et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.config.options import Activation, option
from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.unit import States, Unit


class UpdateGateRnn(Cell, names=("ugrnn",)):
    """g, c = [x, h] kernel + bias; u = sigmoid(g + forget_bias); h' = u*h + (1-u)*activation(c).

    kernel [in+n, 2n], bias [2n].
    """

    paper = "Collins et al. 2016"

    forget_bias: float = option("what is added to the gate", default=1.0)
    activation: Activation | None = option("the activation function of the candidate", default="tanh")

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        recurrent = b.rows(out)
        gates = linear_dim([(out, 2)], 0)
        for_x, for_h = b.joint_kernel("kernel", x, recurrent, gates)
        z = b.input_product(x, for_x, b.param("bias", (gates,), b.inits.bias))

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            total = b.add(now[0], b.recurrent_product(before["h"], for_h, out, recurrent))
            g, c = b.blocks(total, gates, out, "gc").values()
            u = b.unary("sigmoid", b.add(g, self.forget_bias))
            h = b.mixture(u, before["h"], b.activation(self.activation or "tanh", c))
            return h, {"h": h}

        return Unit((z,), step)


CELLS = (UpdateGateRnn,)
