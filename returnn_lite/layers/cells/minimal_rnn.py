"""Small cells: the minimal recurrent network (Chen 2017) and the chaos free one (Laurent and von Brecht 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.config.options import Activation, option
from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.unit import States, Unit


class MinimalRnn(Cell, names=("minimalrnn",)):
    """z = activation(x kernel + bias); u = sigmoid([z, h] gate/kernel + gate/bias); h' = u*h + (1-u)*z.

    kernel [in, n], gate/kernel [2n, n].
    """

    paper = "Chen 2017"

    activation: Activation | None = option("the activation function of what the source says", default="tanh")

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        bias = b.param("bias", (out,), b.inits.bias)
        z = b.input_product(x, b.param("kernel", (b.source(x), out), b.inits.input), bias)
        z = b.activation(self.activation or "tanh", z)
        said, recurrent = b.rows(out, "said"), b.rows(out)
        for_z, for_h = b.kernel_parts("gate/kernel", (said, recurrent), out)
        of_z = b.add(b.recurrent_product(z, for_z, out, said), b.param("gate/bias", (out,), b.inits.bias))

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            u = b.unary("sigmoid", b.add(now[1], b.recurrent_product(before["h"], for_h, out, recurrent)))
            h = b.mixture(u, before["h"], now[0])
            return h, {"h": h}

        return Unit((z, of_z), step)


class ChaosFreeNetwork(Cell, names=("cfn", "chaosfreenetwork")):
    """t, i = sigmoid(x W + h U + bias); h' = t*activation(h) + i*activation(x V).

    kernel [in, 3n] is W for t and i, and V; recurrent_kernel [n, 2n], bias [2n].
    """

    paper = "Laurent and von Brecht 2017"

    activation: Activation | None = option("the activation function", default="tanh")

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        recurrent = b.rows(out)
        blocks, gates = linear_dim([(out, 3)], 0), linear_dim([(out, 2)], 0)
        product = b.input_product(x, b.param("kernel", (b.source(x), blocks), b.inits.input))
        assert out.size is not None
        z = b.with_feature(b.slice(product, blocks, 0, gates), gates)
        z = b.add(z, b.param("bias", (gates,), b.inits.bias))
        new = b.with_feature(b.slice(product, blocks, 2 * out.size, out), out)
        weights = b.param("recurrent_kernel", (recurrent, gates), b.inits.recurrent)
        activation = self.activation or "tanh"

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            total = b.add(now[0], b.recurrent_product(before["h"], weights, out, recurrent))
            t, i = b.blocks(b.unary("sigmoid", total), gates, out, "ti").values()
            h = b.add(b.mul(t, b.activation(activation, before["h"])), b.mul(i, now[1]))
            return h, {"h": h}

        return Unit((z, b.activation(activation, new)), step)


CELLS = (MinimalRnn, ChaosFreeNetwork)
