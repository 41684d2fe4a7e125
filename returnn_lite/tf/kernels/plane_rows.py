"""The 2D LSTM: the arithmetic of a frame, and one row of frames.

Pre-activations have the gates i, f, l, o, then the candidate g.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from returnn_lite.ir.ops.planes import PlaneLstmStep
from returnn_lite.tf.context import Context
from returnn_lite.tf.kernels.cells import sigmoid_gradient, tanh_gradient
from returnn_lite.tf.kernels.recurrences import Kernel, Operand, Sequences, Tensors, run
from returnn_lite.tf.layout import Tensor, aligned
from returnn_lite.tf.product import dot_masked


@dataclass(frozen=True)
class Activations:
    """What the gradient of a frame needs: the gates i, f, l, o, the candidate, tanh of the new state, and the states to
    the left and above."""

    gates: tf.Tensor
    candidate: tf.Tensor
    squashed: tf.Tensor
    left: tf.Tensor
    above: tf.Tensor

    @property
    def tensors(self) -> Tensors:
        return [self.gates, self.candidate, self.squashed, self.left, self.above]


def forward(z: tf.Tensor, left: tf.Tensor, above: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Activations]:
    """h', c' of `PlaneLstmCell` from all pre-activations and the states to the left and above."""
    size = z.shape[-1] // 5
    gates, candidate = tf.sigmoid(z[..., : 4 * size]), tf.tanh(z[..., 4 * size :])
    i, f, share, o = tf.split(gates, 4, -1)
    new = i * candidate + f * (left + share * (above - left))
    squashed = tf.tanh(new)
    return o * squashed, new, Activations(gates, candidate, squashed, left, above)


def backward(kept: Activations, dh: tf.Tensor, dc: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The gradients of the pre-activations, and of the states to the left and above, from those of h' and c'."""
    i, f, share, o = tf.split(kept.gates, 4, -1)
    dc = dc + tanh_gradient(kept.squashed, dh * o)
    difference = kept.above - kept.left
    d_old = dc * f
    d_gates = [dc * kept.candidate, dc * (kept.left + share * difference), d_old * difference, dh * kept.squashed]
    dz = [sigmoid_gradient(kept.gates, tf.concat(d_gates, -1)), tanh_gradient(kept.candidate, dc * i)]
    d_above = d_old * share
    return tf.concat(dz, -1), d_old - d_above, d_above


def plane_row(
    c: Context,
    op: PlaneLstmStep,
    z_along: Tensor,
    z_row: Tensor,
    w_left: Tensor,
    w_above: Tensor,
    h: Tensor,
    old: Tensor,
) -> tuple[Tensor, Tensor]:
    """The row below a row: what comes from above is one product for all frames, then there is a loop along the row."""
    cell = op.cell
    from_above = dot_masked(c, h.rename({cell.hidden: cell.recurrent}), w_above, (cell.recurrent,))
    raws, dims = aligned([z_along, z_row, from_above])
    z = Tensor(raws[0] + raws[1] + raws[2], dims)
    zero = Tensor(tf.zeros([cell.hidden.size], z.dtype), (cell.hidden,))
    outputs, states = run(
        c,
        Sequences(
            cell.along,
            False,
            [Operand(z, cell.gates), Operand(old, cell.hidden)],
            [Operand(zero, cell.hidden), Operand(zero, cell.hidden)],
            [w_left.in_order((cell.recurrent, cell.gates))],
            lambda weights: row_kernel(weights[0]),
            c.wanted(2),
        ),
    )
    return outputs, states


def row_kernel(weights: tf.Tensor) -> Kernel:
    """Saved: `Activations`, and h to the left. Inputs: pre-activations without what comes from the left; c above."""
    size = weights.shape[0]
    transposed = tf.transpose(weights)

    def step(inputs: Tensors, states: Tensors) -> tuple[Tensors, Tensors]:
        h, c = states
        new_h, new_c, kept = forward(inputs[0] + tf.matmul(h, weights), c, inputs[1])
        return [new_h, new_c], [*kept.tensors, h]

    def gradient(kept: Tensors, gradients: Tensors) -> tuple[Tensors, Tensors]:
        dz, d_left, d_above = backward(Activations(*kept[:5]), *gradients)
        return [dz, d_above], [tf.matmul(dz, transposed), d_left]

    def weight_gradients(kept: Callable[[int], tf.Tensor], d_inputs: Tensors) -> Tensors:
        return [tf.matmul(kept(5), d_inputs[0], transpose_a=True)]

    return Kernel((4 * size, size, size, size, size, size), {5: 0}, step, gradient, weight_gradients)
