"""One step of each recurrence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.ir.ops.recurrent_cells import (
    GruStep,
    LstmCell,
    LstmStep,
    ResetAfterGruCell,
    ResetAfterGruStep,
    SimpleRnnStep,
)
from returnn_lite.tf.context import Context
from returnn_lite.tf.gradient_rules import with_gradient
from returnn_lite.tf.kernels.elementwise import UNARY
from returnn_lite.tf.layout import Tensor, aligned, common_layout
from returnn_lite.tf.mask import broadcast
from returnn_lite.tf.product import dot_masked


def lstm_step(
    c: Context, op: LstmStep, z: Tensor, w_re: Tensor, h: Tensor, cell_state: Tensor
) -> tuple[Tensor, Tensor]:
    """h', c' of `LstmCell`."""
    cell = op.cell
    gates = preactivation(c, z, h, w_re, cell.recurrent, cell.hidden, cell.gates)
    dims = (*gates.dims[:-1], cell.hidden)
    new_h, new_c = lstm_arithmetic(cell, gates.raw, broadcast(c.sizes, cell_state, dims).raw)
    return Tensor(new_h, dims), Tensor(new_c, dims)


@dataclass(frozen=True)
class LstmActivations:
    """What the gradient of an LSTM step needs: the gates i, f and o, the candidate j, tanh of the new state, the old
    state."""

    i: tf.Tensor
    f: tf.Tensor
    o: tf.Tensor
    j: tf.Tensor
    squashed: tf.Tensor
    old: tf.Tensor


def lstm_forward(
    cell: LstmCell, gates: Sequence[tf.Tensor], old: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, LstmActivations]:
    """h', c' from the pre-activations, in the order of the cell, and c."""
    parts = dict(zip(cell.order, gates, strict=True))
    if cell.forget_bias:
        parts["f"] = parts["f"] + tf.cast(cell.forget_bias, old.dtype)
    i, f, o = (tf.sigmoid(parts[name]) for name in "ifo")
    j = tf.tanh(parts["j"])
    new = f * old + i * j
    squashed = tf.tanh(new)
    return o * squashed, new, LstmActivations(i, f, o, j, squashed, old)


def lstm_backward(
    cell: LstmCell, kept: LstmActivations, dh: tf.Tensor, dc: tf.Tensor
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """The gradients of the pre-activations, in the order of the cell, and of c, from those of h' and c'."""
    dc = dc + tanh_gradient(kept.squashed, dh * kept.o)
    gates = {
        "i": sigmoid_gradient(kept.i, dc * kept.j),
        "f": sigmoid_gradient(kept.f, dc * kept.old),
        "o": sigmoid_gradient(kept.o, dh * kept.squashed),
        "j": tanh_gradient(kept.j, dc * kept.i),
    }
    return [gates[name] for name in cell.order], dc * kept.f


def lstm_arithmetic(cell: LstmCell, gates: tf.Tensor, old: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`lstm_forward` with `lstm_backward` as its gradient: a third of the operations of what TensorFlow derives."""
    h, c, kept = lstm_forward(cell, tf.split(gates, 4, -1), old)

    def gradient(dh: tf.Tensor, dc: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        d_gates, d_old = lstm_backward(cell, kept, dh, dc)
        return tf.concat(d_gates, -1), d_old

    h, c = with_gradient([h, c], [gates, old], gradient)
    return h, c


def sigmoid_gradient(y: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
    """The gradient of a sigmoid whose result was y."""
    return tf.raw_ops.SigmoidGrad(y=y, dy=dy)


def tanh_gradient(y: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
    """The gradient of a tanh whose result was y."""
    return tf.raw_ops.TanhGrad(y=y, dy=dy)


def preactivation(c: Context, z: Tensor, h: Tensor, weights: Tensor, recurrent: Dim, hidden: Dim, gates: Dim) -> Tensor:
    """z + h·W, the gate dim last."""
    recurrence = dot_masked(c, h.rename({hidden: recurrent}), weights, (recurrent,))
    # h may have the gate dim's name itself where both are one dim (a simple RNN), so it is renamed before.
    dims = common_layout([z, recurrence])
    dims = (*(dim for dim in dims if dim is not gates), gates)
    if set(z.dims) == set(recurrence.dims):
        return Tensor(tf.add_n([z.aligned(dims), recurrence.aligned(dims)]), dims)
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


def reset_after_gru_step(
    c: Context, op: ResetAfterGruStep, z: Tensor, weights: Tensor, bias: Tensor, h: Tensor
) -> Tensor:
    """h' of `ResetAfterGruCell`."""
    cell = op.cell
    product = dot_masked(c, h.rename({cell.hidden: cell.recurrent}), weights, (cell.recurrent,))
    raws, dims = aligned([product, bias])
    product = Tensor(raws[0] + raws[1], dims)
    batch = common_layout([z, product, h])
    batch = tuple(dim for dim in batch if dim not in (cell.gates, cell.hidden))
    of_x, of_h = (broadcast(c.sizes, one, (*batch, cell.gates)).raw for one in (z, product))
    before = broadcast(c.sizes, h, (*batch, cell.hidden)).raw
    new, _ = reset_after_gru_forward(cell, tf.split(of_x, 3, -1), tf.split(of_h, 3, -1), before)
    return Tensor(new, (*batch, cell.hidden))


def reset_after_gru_forward(
    cell: ResetAfterGruCell, of_x: Sequence[tf.Tensor], of_h: Sequence[tf.Tensor], h: tf.Tensor
) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]]:
    """h' from the products of x and of h with their biases, in the order of the cell; and r, u, the candidate and what
    r multiplies."""
    x_parts, h_parts = (dict(zip(cell.order, product, strict=True)) for product in (of_x, of_h))
    r, u = (tf.sigmoid(x_parts[name] + h_parts[name]) for name in "ru")
    candidate = tf.tanh(x_parts["c"] + r * h_parts["c"])
    return candidate + u * (h - candidate), (r, u, candidate, h_parts["c"])


def simple_rnn_step(c: Context, op: SimpleRnnStep, z: Tensor, w_re: Tensor, h: Tensor) -> Tensor:
    """h' of `SimpleRnnCell`."""
    cell = op.cell
    total = preactivation(c, z, h, w_re, cell.recurrent, cell.hidden, cell.hidden)
    return Tensor(UNARY[cell.activation](total.raw), total.dims)
