"""Lowerings of the primitives of beam search."""

from __future__ import annotations

import math

import tensorflow as tf

from returnn_lite.dims import Dim, DimKind, Symbol
from returnn_lite.ir.ops.search import BeamGather, Choose, Decide, FirstBeam, ScoreRule
from returnn_lite.tf.context import Context, Family
from returnn_lite.tf.frames import take
from returnn_lite.tf.layout import Tensor, aligned, working_order

lowers = Family()

# What a class other than 0 scores once a hypothesis has ended: less than any real score, but no infinity.
NEVER = -1e30


@lowers(Choose)
def choose(
    c: Context, op: Choose, scores: Tensor, before: Tensor, ended: Tensor, step: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of all extensions, the hypotheses and classes as one axis, of which the best stay."""
    beam = op.beam if op.explicit else Symbol("1", DimKind.BEAM, 1)
    if not op.explicit:
        before = Tensor(tf.expand_dims(before.raw, 0), (beam, *before.dims))
    own = {dim for t in (scores, before, ended) for dim in t.dims} - {op.classes, beam}
    batch = working_order(own)
    dims = (*batch, beam, op.classes)
    incoming = (beam.size or 1) if any(beam in t.dims for t in (scores, before, ended)) else 1
    extended = _extension_scores(c, op.rule, dims, incoming, scores, before, ended, step)
    best, index = _best(op.rule, extended, incoming, beam.size or 1, op.classes.size or 1, step)
    pointer, label = index // op.classes.size, index % op.classes.size
    # A hypothesis that does not exist has no label either.
    exists = best > -math.inf
    label, pointer = tf.where(exists, label, 0), tf.where(exists, pointer, 0)
    layout = (*batch, beam)
    results = [Tensor(raw, layout) for raw in (label, pointer, best)]
    if not op.explicit:
        results = [Tensor(tf.squeeze(t.raw, -1), batch) for t in results]
    return results[0], results[1], results[2]


def _extension_scores(
    c: Context,
    rule: ScoreRule,
    dims: tuple[Dim, ...],
    hypotheses: int,
    scores: Tensor,
    before: Tensor,
    ended: Tensor,
    step: Tensor,
) -> tf.Tensor:
    """The score of each hypothesis extended by each class, laid out as `dims`, the beam second to last."""
    classes = dims[-1]
    dtype = scores.dtype
    first_class = tf.equal(tf.range(c.size(classes)), 0)
    stay = tf.where(first_class, tf.cast(0, dtype), tf.cast(NEVER, dtype))
    has_ended = ended.aligned(dims[:-1])
    raws = scores.aligned(dims)
    if ended.dims:
        has_ended = tf.expand_dims(has_ended, -1)
    scaled = tf.where(has_ended, stay, raws) * tf.cast(rule.prob_scale, dtype)
    base = before.aligned(dims[:-1])
    if rule.length_normalization:
        t = tf.cast(step.raw, dtype)
        growth = tf.where(step.raw > 0, ((t + 1) / tf.maximum(t, 1)) ** rule.exponent, tf.cast(1, dtype))
        base = tf.where(ended.aligned(dims[:-1]), base * growth, base)
    total = scaled + tf.cast(rule.base_scale, dtype) * tf.expand_dims(base, -1)
    total = tf.broadcast_to(total, [*c.shape(dims[:-2]), hypotheses, c.size(classes)])
    if rule.random_scale:
        seed = c.random_seed(rule.seed)
        if c.step is not None:
            seed = tf.random.experimental.stateless_fold_in(seed, c.step)
        tiny = tf.cast(dtype.as_numpy_dtype(1e-20), dtype)
        uniform = tf.random.stateless_uniform(tf.shape(total), seed, tiny, 1, dtype)
        total = total - tf.cast(rule.random_scale, dtype) * tf.math.log(-tf.math.log(uniform))
    return total


def _best(
    rule: ScoreRule, extended: tf.Tensor, hypotheses: int, beam: int, classes: int, step: Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The best extensions and their index among hypotheses times classes."""
    lead = tf.shape(extended)[:-2]
    flat = tf.reshape(extended, tf.concat([lead, [hypotheses * classes]], 0))
    flat = tf.ensure_shape(flat, [*extended.shape[:-2], hypotheses * classes])
    best, index = _top(flat, beam, hypotheses * classes)
    if not rule.keep_beams or hypotheses != beam:
        return best, index
    # Each hypothesis has a child of its own, but for the first step, when there is one hypothesis yet.
    own = tf.argmax(extended, -1, tf.int32) + tf.range(beam) * classes
    later = step.raw > 0
    return tf.where(later, tf.reduce_max(extended, -1), best), tf.where(later, own, index)


def _top(flat: tf.Tensor, k: int, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The k largest of `count` numbers, best first; where there are too few, -inf."""
    if count < k:
        paddings = [[0, 0]] * (flat.shape.rank - 1) + [[0, k - count]]
        flat = tf.pad(flat, paddings, constant_values=tf.cast(-math.inf, flat.dtype))
    values, indices = tf.math.top_k(flat, k)
    return values, indices


@lowers(FirstBeam)
def first_beam(c: Context, op: FirstBeam) -> Tensor:
    dtype = c.dtype(op.dtype)
    if not op.explicit:
        return Tensor(tf.constant(0, dtype), ())
    return Tensor(tf.constant([0.0, *[-math.inf] * ((op.beam.size or 1) - 1)], dtype), (op.beam,))


@lowers(BeamGather)
def beam_gather(c: Context, op: BeamGather, x: Tensor, back_pointers: Tensor) -> Tensor:
    return take(c, x, op.beam, back_pointers)


@lowers(Decide)
def decide(c: Context, op: Decide, x: Tensor, scores: Tensor) -> Tensor:
    mapping = dict(op.times)
    searched = op.beam in scores.dims
    best: Tensor | None = None
    if searched:
        best = _best_hypothesis(c, op, scores)
    for old, new in op.times:
        lengths, extent = c.sizes.lengths(old), c.sizes.extent(old)
        if best is not None and op.beam in lengths.dims:
            chosen = take(c, lengths, op.beam, best)
            c.sizes.define(new, chosen.rename(mapping), exact=False if chosen.dims else None)
        else:
            c.sizes.define(new, lengths.rename(mapping), extent.size, extent.exact)
    y = take(c, x, op.beam, best) if best is not None and op.beam in x.dims else x
    y = y.rename(mapping)
    raw = y.raw[tuple(slice(0, c.size(dim)) if dim in mapping.values() else slice(None) for dim in y.dims)]
    return Tensor(raw, y.dims, finite=y.finite)


def _best_hypothesis(c: Context, op: Decide, scores: Tensor) -> Tensor:
    if op.length_normalization and op.times:
        raws, dims = aligned([scores, c.sizes.lengths(op.times[0][0])])
        divisor = tf.cast(tf.maximum(raws[1], 1), scores.dtype)
        scores = Tensor(raws[0] / divisor, dims)
    best = tf.argmax(scores.raw, scores.axis(op.beam), tf.int32)
    return Tensor(best, tuple(dim for dim in scores.dims if dim is not op.beam))
