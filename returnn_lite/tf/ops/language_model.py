"""Lowerings of n-gram language models: calls of the host."""

from __future__ import annotations

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.ir.ops.language_model import NgramScoreStep
from returnn_lite.ir.ops.recurrence import Recurrence
from returnn_lite.tf.context import Context, Family
from returnn_lite.tf.kernels.language_models import Scorer
from returnn_lite.tf.layout import Tensor, common_layout
from returnn_lite.tf.mask import broadcast
from returnn_lite.tf.product import multiplied

lowers = Family()


@lowers(NgramScoreStep)
def ngram_score_step(
    c: Context, op: NgramScoreStep, label: Tensor, state: Tensor, *counts: Tensor
) -> tuple[Tensor, Tensor]:
    return _scored(c, op, (), label, state, *counts)


def ngram_scores(
    c: Context, op: Recurrence[NgramScoreStep], label: Tensor, state: Tensor, *counts: Tensor
) -> tuple[Tensor, Tensor]:
    """The results of all frames."""
    return _scored(c, op.step, (op.over,), label, state, *counts)


def _scored(
    c: Context, op: NgramScoreStep, over: tuple[Dim, ...], label: Tensor, state: Tensor, *counts: Tensor
) -> tuple[Tensor, Tensor]:
    """The results for the frames of `over`, or for the only one."""
    batch = tuple(d for d in common_layout([label, state, *counts]) if d is not op.state and d not in over)
    rows, steps = multiplied(c.shape(batch)), c.size(over[0]) if over else 1
    labels = tf.reshape(broadcast(c.sizes, label, (*over, *batch)).raw, [steps, rows])
    states = tf.reshape(broadcast(c.sizes, state, (*batch, op.state)).raw, [rows, op.state.size])
    counting = counts[0] if counts else Tensor(tf.constant(True), ())
    used = tf.reshape(broadcast(c.sizes, counting, (*over, *batch)).raw, [steps, rows])
    scorer = Scorer(op.model, op.dense is not None)
    function = scorer.score if op.dense is None else scorer.score_all
    arguments = [tf.cast(labels, tf.int32), states, used]
    scores, after = tf.numpy_function(function, arguments, [tf.float32, tf.int32], stateful=False)
    dense = () if op.dense is None else (op.dense,)
    return (
        _shaped(c, tf.cast(scores, c.dtype("float32")), (*over, *batch, *dense)),
        _shaped(c, after, (*over, *batch, op.state)),
    )


def _shaped(c: Context, raw: tf.Tensor, dims: tuple[Dim, ...]) -> Tensor:
    shape = c.shape(dims)
    return Tensor(tf.ensure_shape(tf.reshape(raw, shape), [dim.size for dim in dims]), dims)
