"""The steps of a GRU and a simple RNN with another activation function than the primitives' tanh."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.ir.ops.recurrence import GruCell, SimpleRnnCell
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder
from returnn_lite.layers.unit_parts import States, Unit, recurrent_product


def activated_gru(
    b: LayerBuilder, inputs: tuple[View, View], weights: tuple[View, View], cell: GruCell, activation: str
) -> Unit:
    """`GruCell` with an activation: h' = u*h + (1-u)*activation(z_candidate + (r*h) W_candidate)."""

    def step(now: Sequence[View], before: States) -> tuple[View, States]:
        old = before["h"]
        gates = b.add(now[0], recurrent_product(b, old, weights[0], cell.hidden, cell.recurrent))
        blocks = b.split(b.unary("sigmoid", gates), cell.gates, [cell.hidden, cell.hidden])
        r, u = (b.with_feature(block, cell.hidden) for block in blocks)
        seen = recurrent_product(b, b.mul(r, old), weights[1], cell.hidden, cell.recurrent)
        candidate = b.activation(activation, b.add(now[1], seen))
        h = b.add(b.mul(u, old), b.mul(b.sub(1.0, u), candidate))
        return h, {"h": h}

    return Unit(inputs, {"h": cell.hidden}, step)


def activated_rnn(b: LayerBuilder, z: View, weights: View, cell: SimpleRnnCell, activation: str) -> Unit:
    """`SimpleRnnCell` with any activation of layers."""

    def step(now: Sequence[View], before: States) -> tuple[View, States]:
        total = b.add(now[0], recurrent_product(b, before["h"], weights, cell.hidden, cell.recurrent))
        h = b.activation(activation, total)
        return h, {"h": h}

    return Unit((z,), {"h": cell.hidden}, step)
