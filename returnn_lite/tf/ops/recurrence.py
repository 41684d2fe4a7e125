"""Lowerings of the primitives that carry state: single steps, and whole sequences."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from returnn_lite.ir.ops.edit_distances import EditDistanceStep
from returnn_lite.ir.ops.language_model import NgramScoreStep
from returnn_lite.ir.ops.planes import PlaneLstmStep
from returnn_lite.ir.ops.recurrence import CumsumStep, Delay, Recurrence, Step
from returnn_lite.ir.ops.recurrent_cells import GruStep, LstmStep, ResetAfterGruStep, SimpleRnnStep
from returnn_lite.tf.context import Context, Family, Lowering
from returnn_lite.tf.kernels.edit_distances import edit_distance_table
from returnn_lite.tf.kernels.planes import whole_plane
from returnn_lite.tf.kernels.whole_sequences import (
    gru_sequence,
    lstm_sequence,
    reset_after_gru_sequence,
    simple_rnn_sequence,
)
from returnn_lite.tf.layout import Tensor, aligned, common_layout
from returnn_lite.tf.mask import broadcast, masked
from returnn_lite.tf.ops.language_model import ngram_scores

lowers = Family()


@lowers(Delay)
def delay(c: Context, op: Delay, x: Tensor, init: Tensor) -> Tensor:
    rest = common_layout([x, init])
    dims = (op.over, *(dim for dim in rest if dim is not op.over))
    first = tf.broadcast_to(init.aligned(dims[1:]), [1, *c.shape(dims[1:])])[: c.size(op.over)]
    frames = broadcast(c.sizes, x, dims).raw
    raw = tf.concat([first, frames[:-1]], 0)
    return Tensor(raw, dims, x.zero_beyond & init.zero_beyond, x.finite and init.finite)


@lowers(CumsumStep)
def cumsum_step(c: Context, op: CumsumStep, x: Tensor, state: Tensor) -> Tensor:
    raws, dims = aligned([x, state])
    return Tensor(raws[0] + raws[1], dims)


def cumsum(c: Context, op: Recurrence[CumsumStep], x: Tensor, init: Tensor) -> Tensor:
    if op.over not in x.dims:
        x = broadcast(c.sizes, x, (op.over, *x.dims))
    if op.reverse:
        x = masked(c.sizes, x, [op.over])
    total = Tensor(tf.cumsum(x.raw, x.axis(op.over), reverse=op.reverse), x.dims)
    raws, dims = aligned([total, init])
    return Tensor(raws[0] + raws[1], dims)


WHOLE: Mapping[type[Step], Lowering] = {
    LstmStep: lstm_sequence,
    GruStep: gru_sequence,
    ResetAfterGruStep: reset_after_gru_sequence,
    SimpleRnnStep: simple_rnn_sequence,
    CumsumStep: cumsum,
    EditDistanceStep: edit_distance_table,
    PlaneLstmStep: whole_plane,
    NgramScoreStep: ngram_scores,
}
"""All steps of each recurrence at once."""


@lowers(Recurrence)
def recurrence(c: Context, op: Recurrence[Step], *operands: Tensor) -> Tensor | tuple[Tensor, ...]:
    return WHOLE[type(op.step)](c, op, *operands)
