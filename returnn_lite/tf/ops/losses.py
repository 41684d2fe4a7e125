"""Lowerings of the primitives of losses and error measures."""

from __future__ import annotations

import math

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.ir.ops.losses import (
    Ctc,
    CtcBeamDecode,
    CtcGreedyDecode,
    EditDistance,
    FrameCount,
    OptimalCompletions,
    SigmoidCrossEntropy,
    SparseCrossEntropy,
)
from returnn_lite.tf.context import Context, Family
from returnn_lite.tf.gathers import flat_batch, unflat_batch
from returnn_lite.tf.kernels.edit_distances import optimal_completions
from returnn_lite.tf.layout import Tensor, aligned, merged_dims, move_last
from returnn_lite.tf.mask import broadcast, count_frames, masked
from returnn_lite.tf.ops.masks import compressed
from returnn_lite.tf.product import reshaped

lowers = Family()

lowers(OptimalCompletions)(optimal_completions)


@lowers(SparseCrossEntropy)
def sparse_cross_entropy(c: Context, op: SparseCrossEntropy, logits: Tensor, target: Tensor) -> Tensor:
    labels = _clipped(c, target, op.classes)  # in the padding it may be anything
    last = move_last(logits, op.classes)
    dims = merged_dims([last.dims[:-1], labels.dims])
    # TensorFlow's own wrapper of this adds a dozen operations that compare the shapes.
    raw, _ = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(
        features=tf.reshape(broadcast(c.sizes, last, (*dims, op.classes)).raw, [-1, c.size(op.classes)]),
        labels=tf.reshape(broadcast(c.sizes, labels, dims).raw, [-1]),
    )
    return Tensor(reshaped(raw, c.shape(dims)), dims, finite=logits.finite)


def _clipped(c: Context, labels: Tensor, classes: Dim) -> Tensor:
    """Labels as they are where they are classes; `CheckIndex` says if they are not. TensorFlow's kernel stops without a
    word about the sequence, and on a GPU it gives no number."""
    return labels.with_raw(tf.clip_by_value(labels.raw, 0, tf.cast(c.size(classes) - 1, labels.dtype)))


@lowers(SigmoidCrossEntropy)
def sigmoid_cross_entropy(c: Context, op: SigmoidCrossEntropy, logits: Tensor, target: Tensor) -> Tensor:
    raws, dims = aligned([logits, target])
    x, t = raws
    # max(x, 0) - x t + log(1 + exp(-|x|)), with the first term weighted: Keras' and TensorFlow's stable form.
    weight = 1 + (tf.cast(op.positive_weight, x.dtype) - 1) * t
    raw = (1 - t) * x + weight * (tf.math.log1p(tf.exp(-tf.abs(x))) + tf.nn.relu(-x))
    return Tensor(raw, dims, finite=logits.finite)


@lowers(Ctc)
def ctc(c: Context, op: Ctc, logits: Tensor, target: Tensor) -> Tensor:
    kept = [tuple(d for d in logits.dims if d not in (op.time, op.classes))]
    kept += [tuple(d for d in target.dims if d is not op.labels)]
    kept += [c.sizes.lengths(op.time).dims, c.sizes.lengths(op.labels).dims]
    batch = merged_dims(sorted(kept, key=lambda dims: -len(dims)))
    classes = c.size(op.classes)
    # Logits in the padding may be infinite or no numbers, and 0 times their gradient is no number either.
    flat = flat_batch(c, masked(c.sizes, logits, [op.time]), batch, (op.time, op.classes))
    target = masked(c.sizes, target, [op.labels])
    labels = flat_batch(c, target, batch, (op.labels,))
    if op.blank != classes - 1:
        flat = _blank_last(flat, op.blank, classes)
        labels = tf.where(labels > op.blank, labels - 1, labels)
    frames = flat_batch(c, c.sizes.lengths(op.time), batch, ())
    count = flat_batch(c, c.sizes.lengths(op.labels), batch, ())
    labels = tf.where(tf.sequence_mask(count, tf.shape(labels)[1]), labels, 0)
    # `CheckIndex` says if others are among them: TensorFlow's kernel then reads and writes what is not its own.
    labels = tf.clip_by_value(labels, 0, tf.cast(classes - 2, labels.dtype))
    if op.collapse_repeated:
        labels, count = _collapsed(labels, count)
    needed = count
    if op.merge_repeated:
        needed += tf.reduce_sum(tf.cast(_repetitions(labels, count), tf.int32), 1)
    fits = tf.logical_and(needed <= frames, frames > 0)
    usual = tf.logical_and(fits, count > 0)
    kernel = _best_path_loss if op.best_path else _ctc_loss
    loss = kernel(flat, labels, tf.where(usual, count, 1), tf.where(usual, frames, 1), op.merge_repeated)
    unfit = tf.cast(0 if op.zero_infinity else math.inf, loss.dtype)
    others = tf.where(tf.equal(count, 0), _all_blank(flat, frames), unfit)
    return unflat_batch(c, tf.where(usual, loss, others), batch, ())


def _blank_last(logits: tf.Tensor, blank: int, classes: int) -> tf.Tensor:
    return tf.gather(logits, [*range(blank), *range(blank + 1, classes), blank], axis=-1)


def _all_blank(logits: tf.Tensor, frames: tf.Tensor) -> tf.Tensor:
    """The loss of no labels, which the kernel refuses: every frame is the blank, the last class."""
    blank = -tf.nn.log_softmax(logits)[..., -1]
    present = tf.sequence_mask(frames, tf.shape(logits)[1])
    return tf.reduce_sum(tf.where(present, blank, tf.zeros_like(blank)), 1)


def _ctc_loss(logits: tf.Tensor, labels: tf.Tensor, count: tf.Tensor, frames: tf.Tensor, merge: bool) -> tf.Tensor:
    """TensorFlow's kernel on [batch, time, classes], the blank last; at least one label and frame a sequence."""
    # The kernel wants axes that long, too.
    logits = tf.pad(tf.transpose(logits, [1, 0, 2]), [[0, 1], [0, 0], [0, 0]])
    labels = tf.pad(labels, [[0, 0], [0, 1]])
    present = tf.sequence_mask(count, tf.shape(labels)[1])
    loss = tf.raw_ops.CTCLoss(
        inputs=logits,
        labels_indices=tf.where(present),
        labels_values=tf.cast(tf.boolean_mask(labels, present), tf.int32),
        sequence_length=frames,
        ctc_merge_repeated=merge,
    )
    return loss[0]


def _best_path_loss(
    logits: tf.Tensor, labels: tf.Tensor, count: tf.Tensor, frames: tf.Tensor, merge: bool
) -> tf.Tensor:
    """As `_ctc_loss`, with the maximum over the paths in place of the sum (Viterbi); its gradient is that of the best
    path.

    A state is a label or one of the blanks around the labels: 2 labels + 1 of them.
    """
    labels = tf.pad(labels, [[0, 0], [0, 1]])
    blanks = tf.fill(tf.shape(labels), tf.cast(tf.shape(logits)[-1] - 1, labels.dtype))
    states = tf.reshape(tf.stack([blanks, labels], -1), [tf.shape(labels)[0], -1])
    is_label = tf.equal(tf.range(tf.shape(states)[1]) % 2, 1)
    can_stay = tf.logical_or(merge, tf.logical_not(is_label))
    differs = tf.not_equal(states, tf.roll(states, 2, 1))
    can_skip = tf.logical_and(is_label, tf.logical_or(differs, not merge))
    emitted = tf.gather(tf.nn.log_softmax(logits), states, batch_dims=1, axis=2)
    never = tf.cast(-math.inf, logits.dtype)

    def step(scores: tf.Tensor, frame: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        emission, present = frame
        before = tf.pad(scores, [[0, 0], [2, 0]], constant_values=never)
        best = tf.maximum(tf.where(can_stay, scores, never), before[:, 1:-1])
        best = tf.maximum(best, tf.where(can_skip, before[:, :-2], never))
        return tf.where(present[:, None], best + emission, scores)

    present = tf.transpose(tf.sequence_mask(frames, tf.shape(logits)[1]))
    # Before the first frame a path stands on the first blank.
    start = tf.where(tf.range(tf.shape(states)[1]) > 0, never, tf.zeros(tf.shape(states), logits.dtype))
    scores = tf.foldl(step, (tf.transpose(emitted, [1, 0, 2]), present), start)
    ends = tf.gather(scores, tf.stack([2 * count - 1, 2 * count], -1), batch_dims=1)
    return -tf.reduce_max(ends, -1)


def _repetitions(labels: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Where a label equals the one before."""
    same = tf.equal(labels[:, 1:], labels[:, :-1])
    same = tf.concat([tf.zeros_like(labels[:, :1], tf.bool), same], 1)
    return tf.logical_and(same, tf.sequence_mask(count, tf.shape(labels)[1]))


def _collapsed(labels: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Labels without those that equal the one before."""
    kept = tf.logical_and(tf.sequence_mask(count, tf.shape(labels)[1]), tf.logical_not(_repetitions(labels, count)))
    order = tf.argsort(tf.cast(tf.logical_not(kept), tf.int32), axis=1, stable=True)
    return tf.gather(labels, order, batch_dims=1), tf.reduce_sum(tf.cast(kept, tf.int32), 1)


@lowers(CtcGreedyDecode)
def ctc_greedy_decode(c: Context, op: CtcGreedyDecode, logits: Tensor) -> Tensor:
    best = Tensor(
        tf.argmax(logits.raw, logits.axis(op.classes), tf.int32), tuple(d for d in logits.dims if d is not op.classes)
    )
    axis = best.axis(op.time)
    before = tf.pad(best.raw, [[1, 0] if d is op.time else [0, 0] for d in best.dims], constant_values=-1)
    before = before[(slice(None),) * axis + (slice(0, -1),)]
    kept = tf.logical_and(tf.not_equal(best.raw, before), tf.not_equal(best.raw, op.blank))
    return compressed(c, best, Tensor(kept, best.dims), op.time, op.out)


@lowers(CtcBeamDecode)
def ctc_beam_decode(c: Context, op: CtcBeamDecode, logits: Tensor) -> Tensor:
    lengths = c.sizes.lengths(op.time)
    batch = merged_dims([tuple(d for d in logits.dims if d not in (op.time, op.classes)), lengths.dims])
    flat = flat_batch(c, masked(c.sizes, logits, [op.time]), batch, (op.time, op.classes))
    flat = _blank_last(flat, op.blank, c.size(op.classes))
    # The kernel refuses no frames and no sequences: there is one more of each.
    frames = tf.pad(flat_batch(c, lengths, batch, ()), [[0, 1]])
    flat = tf.pad(flat, [[0, 1], [0, 1], [0, 0]])
    indices, values, _, _ = tf.raw_ops.CTCBeamSearchDecoder(
        inputs=tf.transpose(flat, [1, 0, 2]),
        sequence_length=frames,
        beam_width=op.width,
        top_paths=1,
        merge_repeated=False,
    )
    found, index = tf.cast(values[0], tf.int32), tf.cast(indices[0], tf.int32)
    found = tf.where(found >= op.blank, found + 1, found)
    sequences = tf.shape(frames)[0] - 1
    count = tf.math.unsorted_segment_sum(tf.ones_like(found), index[:, 0], sequences)
    c.sizes.define(op.out, unflat_batch(c, count, batch, ()))
    labels = tf.scatter_nd(index, found, [sequences, c.size(op.out)])
    return unflat_batch(c, labels, batch, (op.out,))


@lowers(EditDistance)
def edit_distance(c: Context, op: EditDistance, a: Tensor, b: Tensor) -> Tensor:
    kept = [tuple(d for d in x.dims if d not in (op.a_time, op.b_time)) for x in (a, b)]
    kept += [c.sizes.lengths(dim).dims for dim in (op.a_time, op.b_time)]
    batch = merged_dims(sorted(kept, key=lambda dims: -len(dims)))
    sequences = [
        _sparse(flat_batch(c, x, batch, (dim,)), flat_batch(c, c.sizes.lengths(dim), batch, ()))
        for x, dim in ((a, op.a_time), (b, op.b_time))
    ]
    distance = tf.edit_distance(sequences[0], sequences[1], normalize=False)
    count = tf.shape(flat_batch(c, c.sizes.lengths(op.a_time), batch, ()))[0]
    return unflat_batch(c, tf.cast(distance[:count], tf.int32), batch, ())


def _sparse(labels: tf.Tensor, lengths: tf.Tensor) -> tf.SparseTensor:
    present = tf.sequence_mask(lengths, tf.shape(labels)[1])
    shape = tf.cast(tf.shape(labels), tf.int64)
    return tf.SparseTensor(tf.where(present), tf.boolean_mask(labels, present), shape)


@lowers(FrameCount)
def frame_count(c: Context, op: FrameCount, x: Tensor) -> Tensor:
    count = count_frames(c.sizes, x, x.dims)
    return Tensor(tf.cast(count.raw, c.dtype("float32")), ())
