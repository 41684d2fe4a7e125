"""Edit distance tables, row by row; and what the labels that may come next would cost.

A row after a label is r[j] = min(c[j], r[j-1] + 1), where c[j] is what comes from the row before. So r[j] - j is the
least c[k] - k of k <= j: a running minimum, which takes a logarithmic number of steps.
"""

from __future__ import annotations

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.ir.ops.edit_distances import EditDistanceStep
from returnn_lite.ir.ops.losses import OptimalCompletions
from returnn_lite.ir.ops.recurrence import Recurrence
from returnn_lite.tf.context import Context
from returnn_lite.tf.gathers import flat_batch, unflat_batch
from returnn_lite.tf.layout import Tensor, merged_dims
from returnn_lite.tf.mask import broadcast, masked
from returnn_lite.tf.stacks import stack, step_array

FAR = 2**30
"""More than any distance, and still an int32 if one is added."""


def edit_distance_step(c: Context, op: EditDistanceStep, label: Tensor, reference: Tensor, before: Tensor) -> Tensor:
    """The row after one label."""
    batch = merged_dims([label.dims, _without(before, op.row), _without(reference, op.labels)])
    labels = _numbers(broadcast(c.sizes, label, batch).raw)[..., None]
    row = broadcast(c.sizes, before, (*batch, op.row)).raw
    raw = _next_row(row, _differs(labels, reference.aligned((*batch, op.labels))), _is_blank(labels, op.blank))
    return Tensor(raw, (*batch, op.row))


def edit_distance_table(
    c: Context, op: Recurrence[EditDistanceStep], label: Tensor, reference: Tensor, before: Tensor
) -> Tensor:
    """The rows after each label. What a label differs from is compared for all of them at once."""
    own = op.step
    dims = merged_dims([label.dims, _without(before, own.row), _without(reference, own.labels)])
    batch = tuple(dim for dim in dims if dim is not op.over)
    over = (op.over, *batch)
    labels = _numbers(broadcast(c.sizes, label, over).raw)[..., None]
    differs = _differs(labels, reference.aligned((*over, own.labels)))
    differs = tf.broadcast_to(differs, c.shape((*over, own.labels)))
    blank = _is_blank(labels, own.blank)
    first = broadcast(c.sizes, before, (*batch, own.row)).raw
    steps = c.size(op.over)
    rows = step_array(tf.int32, steps)

    def step(t: tf.Tensor, row: tf.Tensor, rows: tf.TensorArray) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray]:
        following = _next_row(row, differs[t], None if blank is None else blank[t])
        following = tf.ensure_shape(following, first.shape)
        return t + 1, following, rows.write(t, following)

    _, _, rows = tf.while_loop(lambda t, *_: t < steps, step, (tf.constant(0), first, rows))
    return Tensor(stack(rows, tf.int32, c.shape((*batch, own.row))), (*over, own.row))


def optimal_completions(c: Context, op: OptimalCompletions, row: Tensor, reference: Tensor) -> Tensor:
    """The least entry of the row that would follow, for each label: one more than the least of this row, but of a label
    of the reference no more than the entry before it."""
    lengths = c.sizes.lengths(op.labels).dims
    batch = merged_dims([_without(row, op.row), _without(reference, op.labels), lengths])
    entries = masked(c.sizes, broadcast(c.sizes, row, (*batch, op.row)), [op.row], FAR)
    least = tf.reduce_min(flat_batch(c, entries, batch, (op.row,)), -1)
    # Beyond its end the reference has no label that is right: the entries before them count nothing.
    right = broadcast(c.sizes, reference, (*batch, op.labels))
    before = Tensor(entries.raw[..., :-1], (*batch, op.labels))
    costs = flat_batch(c, masked(c.sizes, before, [op.labels], FAR), batch, (op.labels,))
    label = flat_batch(c, masked(c.sizes, right, [op.labels]), batch, (op.labels,))
    sequence = tf.broadcast_to(tf.range(tf.shape(label)[0])[:, None], tf.shape(label))
    result = tf.tile(least[:, None] + 1, [1, c.size(op.classes)])
    result = tf.tensor_scatter_nd_min(result, tf.stack([sequence, _numbers(label)], -1), costs)
    if op.blank is not None:
        result = tf.where(tf.equal(tf.range(c.size(op.classes)), op.blank), least[:, None], result)
    return unflat_batch(c, result, batch, (op.classes,))


def _without(x: Tensor, dim: Dim) -> tuple[Dim, ...]:
    return tuple(d for d in x.dims if d is not dim)


def _numbers(labels: tf.Tensor) -> tf.Tensor:
    """Labels of any integer type as int32."""
    return tf.cast(labels, tf.int32)


def _differs(labels: tf.Tensor, reference: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.not_equal(labels, _numbers(reference)), tf.int32)


def _is_blank(labels: tf.Tensor, blank: int | None) -> tf.Tensor | None:
    return None if blank is None else tf.equal(labels, blank)


def _next_row(row: tf.Tensor, differs: tf.Tensor, blank: tf.Tensor | None) -> tf.Tensor:
    """The row [.., n + 1] after a label, which `differs` [.., n] from those of the reference; where the label is blank
    [.., 1], the row before."""
    more = row + 1
    above = tf.minimum(more[..., 1:], row[..., :-1] + differs)
    places = tf.range(tf.shape(row)[-1])
    following = places + _running_minimum(tf.concat([more[..., :1], above], -1) - places)
    return following if blank is None else tf.where(blank, row, following)


def _running_minimum(x: tf.Tensor) -> tf.Tensor:
    """The least element so far, along the last axis: each step looks twice as far back."""
    size = tf.shape(x)[-1]
    rank = x.shape.rank

    def step(reach: tf.Tensor, least: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        earlier = tf.pad(least[..., :-reach], [*[[0, 0]] * (rank - 1), [reach, 0]], constant_values=FAR)
        return 2 * reach, tf.ensure_shape(tf.minimum(least, earlier), x.shape)

    return tf.while_loop(lambda reach, _: reach < size, step, (tf.constant(1), x))[1]
