"""Lowering of the steps of foreign cells: to them, all that is no feature is a row."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.ir.host_calls import called
from returnn_lite.ir.ops.foreign import CellStep
from returnn_lite.tf.context import Context, Family
from returnn_lite.tf.layout import Tensor
from returnn_lite.tf.mask import broadcast, masked, padded_dims

lowers = Family()


@lowers(CellStep)
def cell_step(c: Context, op: CellStep, x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    assert c.node is not None
    before, weights, seeds = op.parts(others)
    known, _, drawn = op.parts([value.type for value in c.node.inputs[1:]])
    rows = op.rows(c.node.inputs[0].type, known, drawn)
    frames = op.frames(rows)
    rows = (*frames, *(dim for dim in rows if dim not in frames))
    dims = (op.features, *op.states)
    operands = [_rows(c, one, rows, frames, dim) for one, dim in zip((x, *before), dims, strict=True)]
    results = _steps(c, op, operands, [one.in_order(dims) for one, dims in zip(weights, op.weights, strict=True)],
                     [_seeds(c, op, seed, frames) for seed in seeds])  # fmt: skip
    made = (op.out, *op.states)
    shape = c.shape(rows)
    return tuple(
        Tensor(tf.reshape(raw, [*shape, dim.size]), (*rows, dim), finite=False)
        for raw, dim in zip(results, made, strict=True)
    )


def _rows(c: Context, x: Tensor, rows: tuple[Dim, ...], frames: tuple[Dim, ...], features: Dim) -> tf.Tensor:
    """An operand as [rows, features], with frames as [frames, rows, features]; 0 in the padding, from which no number
    that is none may reach the gradients of the weights."""
    real = masked(c.sizes, x, padded_dims(c.sizes, x))
    raw = broadcast(c.sizes, real, (*rows, features)).raw
    return tf.reshape(raw, [*_frame_count(c, frames), -1, features.size])


def _frame_count(c: Context, frames: tuple[Dim, ...]) -> list[int | tf.Tensor]:
    return [tf.reduce_prod(tf.stack(c.shape(frames)))] if frames else []


def _seeds(c: Context, op: CellStep, seed: Tensor, frames: tuple[Dim, ...]) -> tf.Tensor:
    """[2], with frames [frames, 2]."""
    assert op.pair is not None
    raw = broadcast(c.sizes, seed, (*frames, op.pair)).raw
    return tf.reshape(raw, [*_frame_count(c, frames), 2]) if frames else raw


def _steps(
    c: Context, op: CellStep, operands: Sequence[tf.Tensor], weights: Sequence[tf.Tensor], seeds: Sequence[tf.Tensor]
) -> Sequence[tf.Tensor]:
    """The results [rows, size], with frames one after the other: [frames, rows, size]."""
    assert c.node is not None
    origin = c.node.origin

    def step(operands: Sequence[tf.Tensor], seeds: Sequence[tf.Tensor]) -> tuple[tf.Tensor, ...]:
        found = called(op.cell.step, op.name, origin, operands[0], operands[1:], weights, seeds, op.training)
        assert isinstance(found, tuple)
        return found

    if not seeds or operands[0].shape.rank == 2:
        return step(operands, seeds)
    made = [tf.TensorSpec([None, dim.size], operands[0].dtype) for dim in (op.out, *op.states)]
    parts = (tuple(operands), tuple(seeds))
    results: Sequence[tf.Tensor] = tf.map_fn(lambda one: step(*one), parts, fn_output_signature=tuple(made))
    return results
