"""One step of each recurrence."""

from __future__ import annotations

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.ir.ops.recurrence import GruStep, LstmCell, LstmStep, SimpleRnnStep
from returnn_lite.tf.context import Context
from returnn_lite.tf.layout import Tensor, aligned, common_layout
from returnn_lite.tf.mask import broadcast
from returnn_lite.tf.ops.elementwise import UNARY
from returnn_lite.tf.product import dot_masked


def lstm_step(
    c: Context, op: LstmStep, z: Tensor, w_re: Tensor, h: Tensor, cell_state: Tensor
) -> tuple[Tensor, Tensor]:
    """h', c' of `LstmCell`."""
    cell = op.cell
    gates = preactivation(c, z, h, w_re, cell.recurrent, cell.hidden, cell.gates)
    parts = gate_parts(cell, gates.raw)
    states = Tensor(gates.raw[..., : cell.hidden.size], (*gates.dims[:-1], cell.hidden))
    dims = states.dims
    old = broadcast(c.sizes, cell_state, dims).raw if set(cell_state.dims) != set(dims) else cell_state.in_order(dims)
    new = tf.sigmoid(parts["f"]) * old + tf.sigmoid(parts["i"]) * tf.tanh(parts["j"])
    return Tensor(tf.sigmoid(parts["o"]) * tf.tanh(new), dims), Tensor(new, dims)


def gate_parts(cell: LstmCell, gates: tf.Tensor) -> dict[str, tf.Tensor]:
    """The pre-activations by name, the forget bias added."""
    parts = dict(zip(cell.order, tf.split(gates, 4, -1), strict=True))
    if cell.forget_bias:
        parts["f"] = parts["f"] + tf.cast(cell.forget_bias, gates.dtype)
    return parts


def preactivation(c: Context, z: Tensor, h: Tensor, weights: Tensor, recurrent: Dim, hidden: Dim, gates: Dim) -> Tensor:
    """z + h·W, the gate dim last."""
    recurrence = dot_masked(c, h.rename({hidden: recurrent}), weights, (recurrent,))
    # h may have the gate dim's name itself where both are one dim (a simple RNN), so it is renamed before.
    dims = common_layout([z, recurrence])
    dims = (*(dim for dim in dims if dim is not gates), gates)
    return Tensor(z.aligned(dims) + recurrence.aligned(dims), dims)


def gru_step(
    c: Context, op: GruStep, z_gates: Tensor, z_candidate: Tensor, w_gates: Tensor, w_candidate: Tensor, h: Tensor
) -> Tensor:
    """h' of `GruCell`."""
    cell = op.cell
    gates = preactivation(c, z_gates, h, w_gates, cell.recurrent, cell.hidden, cell.gates)
    reset, update = tf.split(tf.sigmoid(gates.raw), 2, -1)
    dims = (*gates.dims[:-1], cell.hidden)
    r, u = Tensor(reset, dims), Tensor(update, dims)
    raws, layout = aligned([r, h])
    kept = Tensor(raws[0] * raws[1], layout)
    candidate = preactivation(c, z_candidate, kept, w_candidate, cell.recurrent, cell.hidden, cell.hidden)
    raws, layout = aligned([u, h, Tensor(tf.tanh(candidate.raw), candidate.dims)])
    return Tensor(raws[0] * raws[1] + (1 - raws[0]) * raws[2], layout)


def simple_rnn_step(c: Context, op: SimpleRnnStep, z: Tensor, w_re: Tensor, h: Tensor) -> Tensor:
    """h' of `SimpleRnnCell`."""
    cell = op.cell
    total = preactivation(c, z, h, w_re, cell.recurrent, cell.hidden, cell.hidden)
    return Tensor(UNARY[cell.activation](total.raw), total.dims)
