"""The recurrent unit whose gates see the source only (Lei et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.config.options import Activation, option
from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.unit import States, Unit


class SimpleRecurrentUnit(Cell, names=("sru",)):
    """x kernel has the blocks v, f, r, s; f and r are sigmoids of theirs and bias.

    c' = f*c + (1-f)*v; the output is r*activation(c') + (1-r)*s. kernel [in, 4n], bias [2n].
    """

    paper = "Lei et al. 2017"
    keys = ("c",)

    activation: Activation | None = option("the activation function of the state", default="tanh")

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        blocks, gates = linear_dim([(out, 4)], 0), linear_dim([(out, 2)], 0)
        z = b.input_product(x, b.param("kernel", (b.source(x), blocks), b.inits.input))
        parts = b.blocks(z, blocks, out, "vfrs")
        biases = b.blocks(b.param("bias", (gates,), b.inits.bias), gates, out, "fr")
        f, r = (b.unary("sigmoid", b.add(parts[gate], biases[gate])) for gate in "fr")
        added, deeper = (b.mul(b.sub(1.0, gate), parts[name]) for gate, name in ((f, "v"), (r, "s")))

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            f, added, r, deeper = now
            c = b.add(b.mul(f, before["c"]), added)
            return b.add(b.mul(r, b.activation(self.activation or "tanh", c)), deeper), {"c": c}

        return Unit((f, added, r, deeper), step)


CELLS = (SimpleRecurrentUnit,)
