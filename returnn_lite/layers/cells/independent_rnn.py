"""Cells whose units see of the state only their own (Li et al. 2018; Gonnet and Deselaers 2019)."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.config.options import Activation, option
from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.unit import States, Unit

RECURRENT_INIT = "random_uniform(minval=-1, maxval=1)"
"""What recurrent weights start with."""


class IndRnn(Cell, names=("indrnn",)):
    """h' = activation(x kernel_w + kernel_u*h + bias); kernel_w [in, n], kernel_u [n], from -1 to 1 at first."""

    paper = "Li et al. 2018"

    activation: Activation | None = option("the activation function", default="tanh")

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        weights = b.param("kernel_w", (b.source(x), out), b.inits.input)
        own = b.param("kernel_u", (out,), b.inits.recurrent_or(RECURRENT_INIT))
        z = b.input_product(x, weights, b.param("bias", (out,), b.inits.bias))

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            h = b.activation(self.activation or "tanh", b.add(now[0], b.mul(own, before["h"])))
            return h, {"h": h}

        return Unit((z,), step)


class IndyGru(Cell, names=("indygru",)):
    """r, u = sigmoid(x gates/kernel_w + gates/kernel_u*[h, h] + gates/bias); h' = u*h + (1-u)*activation(x
    candidate/kernel + candidate/kernel_u*r*h + candidate/bias).

    gates/kernel_w [in, 2n], gates/kernel_u [2n], gates/bias of 1; kernel_u from -1 to 1 at first.
    """

    paper = "Gonnet and Deselaers 2019"

    activation: Activation | None = option("the activation function of the candidate", default="tanh")

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        gates, source = linear_dim([(out, 2)], 0), b.source(x)
        start = b.inits.recurrent_or(RECURRENT_INIT)
        own = b.blocks(b.param("gates/kernel_u", (gates,), start), gates, out, "ru")
        own["candidate"] = b.param("candidate/kernel_u", (out,), start)
        bias = b.param("gates/bias", (gates,), b.inits.bias_or(1.0))
        z = b.input_product(x, b.param("gates/kernel_w", (source, gates), b.inits.input), bias)
        weights = b.param("candidate/kernel", (source, out), b.inits.input)
        candidate = b.input_product(x, weights, b.param("candidate/bias", (out,), b.inits.bias))

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            h, parts = before["h"], b.blocks(now[0], gates, out, "ru")
            r, u = (b.unary("sigmoid", b.add(parts[gate], b.mul(own[gate], h))) for gate in "ru")
            total = b.add(now[1], b.mul(own["candidate"], b.mul(r, h)))
            h = b.mixture(u, h, b.activation(self.activation or "tanh", total))
            return h, {"h": h}

        return Unit((z, candidate), step)


CELLS = (IndRnn, IndyGru)
