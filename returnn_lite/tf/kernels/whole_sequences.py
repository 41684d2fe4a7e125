"""LSTM, both GRUs and simple RNN over whole sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from returnn_lite.ir.ops.recurrence import Recurrence
from returnn_lite.ir.ops.recurrent_cells import (
    GruCell,
    GruStep,
    LstmCell,
    LstmStep,
    ResetAfterGruCell,
    ResetAfterGruStep,
    SimpleRnnCell,
    SimpleRnnStep,
)
from returnn_lite.tf.context import Context
from returnn_lite.tf.kernels.cells import (
    LstmActivations,
    lstm_backward,
    lstm_forward,
    reset_after_gru_forward,
    sigmoid_gradient,
    tanh_gradient,
)
from returnn_lite.tf.kernels.elementwise import UNARY
from returnn_lite.tf.kernels.recurrences import Kernel, Operand, Sequences, Tensors, run
from returnn_lite.tf.layout import Tensor

Stacker = Callable[[int], tf.Tensor]


def _all_steps(
    c: Context,
    op: Recurrence[Any],
    inputs: Sequence[Operand],
    states: Sequence[Operand],
    weights: Sequence[tf.Tensor],
    kernel: Callable[[Sequence[tf.Tensor]], Kernel],
) -> tuple[Tensor, ...]:
    """The states after each step, by a kernel made of the weights."""
    wanted = c.wanted(len(states))
    return tuple(run(c, Sequences(op.over, op.reverse, inputs, states, weights, kernel, wanted, op.unroll)))


class StepProduct:
    """The product of a state with weights in each step, as products with equal parts of their columns: cores that each
    do some of the small products of a step are faster than if they share one.

    Weights [features, columns]. Parts are whole vectors of the machine, so that one row is computed as several are.
    """

    def __init__(self, weights: tf.Tensor, most: int) -> None:
        self.count = most if weights.shape[1] % (VECTOR * most) == 0 else 1
        self.columns = tf.split(weights, self.count, 1)
        # Transposed once, not in each step: the product runs faster.
        self.rows = tf.split(tf.transpose(weights), self.count, 0)

    def whole(self, x: tf.Tensor) -> tf.Tensor:
        """The product."""
        return _joined([tf.matmul(x, columns) for columns in self.columns])

    def blocks(self, x: tf.Tensor, plus: tf.Tensor, count: int) -> Tensors:
        """So many equal blocks of the product and what is added to it."""
        added = tf.split(plus, self.count, -1)
        parts = [one + tf.matmul(x, columns) for one, columns in zip(added, self.columns, strict=True)]
        return [block for part in parts for block in tf.split(part, count // self.count, -1)]

    def gradient(self, blocks: Tensors) -> tf.Tensor:
        """The gradient of x from those of blocks of the product, or of all of it."""
        if len(blocks) < self.count:
            (whole,) = blocks
            blocks = tf.split(whole, self.count, -1)
        each = len(blocks) // self.count
        parts = [_joined(blocks[i * each : (i + 1) * each]) for i in range(self.count)]
        return tf.add_n([tf.matmul(part, rows) for part, rows in zip(parts, self.rows, strict=True)])


VECTOR = 16
"""Columns that a machine computes at once."""


def _joined(blocks: Tensors) -> tf.Tensor:
    return tf.concat(blocks, -1) if len(blocks) > 1 else blocks[0]


def lstm_sequence(
    c: Context, op: Recurrence[LstmStep], z: Tensor, w_re: Tensor, h: Tensor, cell_state: Tensor
) -> tuple[Tensor, ...]:
    """All h' and c' of `LstmCell`."""
    cell = op.step.cell
    weights = [w_re.in_order((cell.recurrent, cell.gates))]
    states = [Operand(h, cell.hidden), Operand(cell_state, cell.hidden)]
    return _all_steps(c, op, [Operand(z, cell.gates)], states, weights, lambda w: lstm_kernel(cell, w[0]))


def lstm_kernel(cell: LstmCell, weights: tf.Tensor) -> Kernel:
    """Saved: `LstmActivations`, and h before. Weights [hidden, gates]."""
    size = _static(cell.hidden.size)
    product = StepProduct(weights, 2)

    def forward(inputs: Tensors, states: Tensors) -> tuple[Tensors, Tensors]:
        h, c = states
        new_h, new_c, kept = lstm_forward(cell, product.blocks(h, inputs[0], 4), c)
        return [new_h, new_c], [kept.i, kept.f, kept.o, kept.j, kept.squashed, kept.old, h]

    def backward(kept: Tensors, gradients: Tensors) -> tuple[Tensors, Tensors]:
        d_gates, dc = lstm_backward(cell, LstmActivations(*kept[:6]), *gradients)
        return [tf.concat(d_gates, -1)], [product.gradient(d_gates), dc]

    def weight_gradients(kept: Stacker, d_inputs: Tensors) -> Tensors:
        return [tf.matmul(kept(6), d_inputs[0], transpose_a=True)]

    return Kernel((size,) * 7, {6: 0}, forward, backward, weight_gradients)


def gru_sequence(
    c: Context,
    op: Recurrence[GruStep],
    z_gates: Tensor,
    z_candidate: Tensor,
    w_gates: Tensor,
    w_candidate: Tensor,
    h: Tensor,
) -> tuple[Tensor, ...]:
    """All h' of `GruCell`."""
    cell = op.step.cell
    weights = [w_gates.in_order((cell.recurrent, cell.gates)), w_candidate.in_order((cell.recurrent, cell.hidden))]
    inputs = [Operand(z_gates, cell.gates), Operand(z_candidate, cell.hidden)]
    return _all_steps(c, op, inputs, [Operand(h, cell.hidden)], weights, lambda w: gru_kernel(cell, w[0], w[1]))


def gru_kernel(cell: GruCell, w_gates: tf.Tensor, w_candidate: tf.Tensor) -> Kernel:
    """Saved: r, u, the candidate, the state before, and r times it."""
    size = _static(cell.hidden.size)
    of_gates, of_candidate = StepProduct(w_gates, 2), StepProduct(w_candidate, 2)

    def forward(inputs: Tensors, states: Tensors) -> tuple[Tensors, Tensors]:
        (h,) = states
        r, u = (tf.sigmoid(gate) for gate in of_gates.blocks(h, inputs[0], 2))
        reset = r * h
        candidate = tf.tanh(inputs[1] + of_candidate.whole(reset))
        return [candidate + u * (h - candidate)], [r, u, candidate, h, reset]

    def backward(kept: Tensors, gradients: Tensors) -> tuple[Tensors, Tensors]:
        r, u, candidate, h, _ = kept
        (dh,) = gradients
        d_candidate = tanh_gradient(candidate, dh * (1 - u))
        d_reset = of_candidate.gradient([d_candidate])
        d_gates = [sigmoid_gradient(r, d_reset * h), sigmoid_gradient(u, dh * (h - candidate))]
        return [tf.concat(d_gates, -1), d_candidate], [dh * u + d_reset * r + of_gates.gradient(d_gates)]

    def weight_gradients(kept: Stacker, d_inputs: Tensors) -> Tensors:
        return [
            tf.matmul(kept(3), d_inputs[0], transpose_a=True),
            tf.matmul(kept(4), d_inputs[1], transpose_a=True),
        ]

    return Kernel((size,) * 5, {3: 0, 4: None}, forward, backward, weight_gradients)


def reset_after_gru_sequence(
    c: Context, op: Recurrence[ResetAfterGruStep], z: Tensor, weights: Tensor, bias: Tensor, h: Tensor
) -> tuple[Tensor, ...]:
    """All h' of `ResetAfterGruCell`."""
    cell = op.step.cell
    inputs, states = [Operand(z, cell.gates)], [Operand(h, cell.hidden)]
    of_product = [weights.in_order((cell.recurrent, cell.gates)), bias.in_order((cell.gates,))]
    return _all_steps(c, op, inputs, states, of_product, lambda w: reset_after_gru_kernel(cell, w[0], w[1]))


def reset_after_gru_kernel(cell: ResetAfterGruCell, weights: tf.Tensor, bias: tf.Tensor) -> Kernel:
    """Saved: r, u, the candidate, the state before, and what r multiplies."""
    size = _static(cell.hidden.size)
    product = StepProduct(weights, 3)

    def in_order(r: tf.Tensor, u: tf.Tensor, candidate: tf.Tensor) -> Tensors:
        return [{"r": r, "u": u, "c": candidate}[name] for name in cell.order]

    def forward(inputs: Tensors, states: Tensors) -> tuple[Tensors, Tensors]:
        (h,) = states
        of_h = product.blocks(h, bias, 3)
        new, kept = reset_after_gru_forward(cell, tf.split(inputs[0], 3, -1), of_h, h)
        return [new], [*kept[:3], h, kept[3]]

    def backward(kept: Tensors, gradients: Tensors) -> tuple[Tensors, Tensors]:
        r, u, candidate, h, seen = kept
        (dh,) = gradients
        d_candidate = tanh_gradient(candidate, dh * (1 - u))
        d_r = sigmoid_gradient(r, d_candidate * seen)
        d_u = sigmoid_gradient(u, dh * (h - candidate))
        d_product = product.gradient(in_order(d_r, d_u, d_candidate * r))
        return [tf.concat(in_order(d_r, d_u, d_candidate), -1)], [dh * u + d_product]

    def weight_gradients(kept: Stacker, d_inputs: Tensors) -> Tensors:
        parts = dict(zip(cell.order, tf.split(d_inputs[0], 3, -1), strict=True))
        d_product = tf.concat(in_order(parts["r"], parts["u"], parts["c"] * kept(0)), -1)
        return [tf.matmul(kept(3), d_product, transpose_a=True), tf.reduce_sum(d_product, 0)]

    return Kernel((size,) * 5, {0: None, 3: 0}, forward, backward, weight_gradients)


def simple_rnn_sequence(
    c: Context, op: Recurrence[SimpleRnnStep], z: Tensor, w_re: Tensor, h: Tensor
) -> tuple[Tensor, ...]:
    """All h' of `SimpleRnnCell`."""
    cell = op.step.cell
    inputs, states = [Operand(z, cell.hidden)], [Operand(h, cell.hidden)]
    weights = [w_re.in_order((cell.recurrent, cell.hidden))]
    return _all_steps(c, op, inputs, states, weights, lambda w: simple_rnn_kernel(cell, w[0]))


def simple_rnn_kernel(cell: SimpleRnnCell, weights: tf.Tensor) -> Kernel:
    """Saved: the pre-activation and the state before."""
    size = _static(cell.hidden.size)
    activation = UNARY[cell.activation]
    product = StepProduct(weights, 2)

    def forward(inputs: Tensors, states: Tensors) -> tuple[Tensors, Tensors]:
        total = inputs[0] + product.whole(states[0])
        return [activation(total)], [total, states[0]]

    def backward(kept: Tensors, gradients: Tensors) -> tuple[Tensors, Tensors]:
        (dz,) = tf.gradients(activation(kept[0]), [kept[0]], gradients, unconnected_gradients="zero")
        return [dz], [product.gradient([dz])]

    def weight_gradients(kept: Stacker, d_inputs: Tensors) -> Tensors:
        return [tf.matmul(kept(1), d_inputs[0], transpose_a=True)]

    return Kernel((size, size), {1: 0}, forward, backward, weight_gradients)


def _static(size: int | None) -> int:
    assert size is not None, "the hidden dim of a recurrence is static"
    return size
