"""Meanings of the steps of recurrent cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from returnn_lite.dims import Dim
from returnn_lite.ir import Op
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
from tests.reference.elementwise import FUNCTIONS, sigmoid
from tests.reference.named import Array, Lengths, Named, union
from tests.reference.rule import Rule


def lstm(cell: LstmCell, z: Array, w: Array, h: Array, c: Array) -> tuple[Array, ...]:
    """Output and cell state after one step."""
    blocks = dict(zip(cell.order, np.split(z + h @ w, 4, -1), strict=True))
    new = sigmoid(blocks["f"] + cell.forget_bias) * c + sigmoid(blocks["i"]) * np.tanh(blocks["j"])
    return sigmoid(blocks["o"]) * np.tanh(new), new


def gru(cell: GruCell, z: Array, candidate: Array, wg: Array, wc: Array, h: Array) -> tuple[Array, ...]:
    """The state after one step."""
    r, u = np.split(sigmoid(z + h @ wg), 2, -1)
    return (u * h + (1 - u) * np.tanh(candidate + (r * h) @ wc),)


def reset_after_gru(cell: ResetAfterGruCell, z: Array, w: Array, b: Array, h: Array) -> tuple[Array, ...]:
    """The state after one step."""
    x, seen = (dict(zip(cell.order, np.split(product, 3, -1), strict=True)) for product in (z, h @ w + b))
    r, u = (sigmoid(x[gate] + seen[gate]) for gate in "ru")
    return (u * h + (1 - u) * np.tanh(x["c"] + r * seen["c"]),)


def simple_rnn(cell: SimpleRnnCell, z: Array, w: Array, h: Array) -> tuple[Array, ...]:
    """The state after one step."""
    return (FUNCTIONS[cell.activation](z + h @ w),)


@dataclass(frozen=True)
class Cell:
    """A recurrence: its step on arrays, and the dims of its operands: inputs (one each), weights, states (one each)."""

    step: Callable[..., tuple[Array, ...]]
    inputs: Callable[[Any], tuple[Dim, ...]]
    weights: Callable[[Any], tuple[tuple[Dim, ...], ...]]
    states: int

    def one_step(self, op: Any, lengths: Lengths, *operands: Named) -> tuple[Named, ...]:
        """All sequences at once."""
        moving, states = operands[: len(self.inputs(op.cell))], operands[-self.states :]
        rest = tuple(dim for dim in union([*moving, *states]) if dim not in (*self.inputs(op.cell), op.cell.hidden))
        arrays = [x.full((*rest, dim), lengths) for x, dim in zip(moving, self.inputs(op.cell), strict=True)]
        weights = operands[len(moving) : -self.states]
        arrays += [_of_any_sequence(x, dims).over(dims) for x, dims in zip(weights, self.weights(op.cell), strict=True)]
        arrays += [x.full((*rest, op.cell.hidden), lengths) for x in states]
        return tuple(Named(array, (*rest, op.cell.hidden)) for array in self.step(op.cell, *arrays))


def _of_any_sequence(weight: Named, dims: tuple[Dim, ...]) -> Named:
    """Weights without the dims of a mask, which they have where they are taken apart under it: beyond the mask they are
    zero, elsewhere the same."""
    arrays = np.transpose(
        weight.array, [weight.axis(d) for d in weight.dims if d not in dims] + [weight.axis(d) for d in dims]
    )
    arrays = arrays.reshape(-1, *arrays.shape[-len(dims) :])
    return Named(arrays[np.abs(arrays).sum(axis=tuple(range(1, arrays.ndim))).argmax()], dims)


LSTM = Cell(lstm, lambda c: (c.gates,), lambda c: ((c.recurrent, c.gates),), 2)
GRU = Cell(gru, lambda c: (c.gates, c.hidden), lambda c: ((c.recurrent, c.gates), (c.recurrent, c.hidden)), 1)
RESET_AFTER_GRU = Cell(reset_after_gru, lambda c: (c.gates,), lambda c: ((c.recurrent, c.gates), (c.gates,)), 1)
SIMPLE_RNN = Cell(simple_rnn, lambda c: (c.hidden,), lambda c: ((c.recurrent, c.hidden),), 1)


RULES: Mapping[type[Op], Rule] = {
    LstmStep: LSTM.one_step,
    GruStep: GRU.one_step,
    ResetAfterGruStep: RESET_AFTER_GRU.one_step,
    SimpleRnnStep: SIMPLE_RNN.one_step,
}
