"""Lowerings of the primitives of beam search."""

from __future__ import annotations

import math

import tensorflow as tf

from returnn_lite.dims import Dim, DimKind, Symbol, TensorType, display_order
from returnn_lite.ir.host_calls import FunctionError
from returnn_lite.ir.ops.search import (
    NEVER,
    BeamGather,
    Choose,
    CombineScores,
    Decide,
    ExpectedOverBeam,
    FirstBeam,
    ScoreRule,
    SplitBeam,
    SumOverBeam,
)
from returnn_lite.tf.context import Context, Family
from returnn_lite.tf.gathers import take
from returnn_lite.tf.layout import Tensor, aligned, working_order
from returnn_lite.tf.mask import broadcast, masked, padded_dims, real_frames
from returnn_lite.tf.product import own_shape

lowers = Family()


@lowers(Choose)
def choose(
    c: Context, op: Choose, scores: Tensor, before: Tensor, ended: Tensor, step: Tensor, *others: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of all extensions, the hypotheses and classes as one axis, of which the best stay."""
    none = Symbol("1", DimKind.BEAM, 1)
    right, read = others[: bool(op.rule.cheating)], others[bool(op.rule.cheating) :]
    beam, incoming = (op.beam, op.incoming or op.beam) if op.explicit else (none, none)
    if not op.explicit:
        before = Tensor(tf.expand_dims(before.raw, 0), (incoming, *before.dims))
    own = {dim for t in (scores, before, ended, *right) for dim in t.dims} - {op.classes, incoming}
    batch = working_order(own)
    hypotheses = (incoming.size or 1) if any(incoming in t.dims for t in (scores, before, ended)) else 1
    dims = (*batch, incoming, op.classes)
    if op.combine is not None:
        extended = _combined(c, op, op.combine, dims, scores, before, ended, step, read)
    else:
        extended = _extension_scores(c, op.rule, dims, hypotheses, scores, before, ended, step)
    extended = _of_real_classes(c, op.classes, dims, extended)
    flat = _flat(extended)
    count, classes = beam.size or 1, c.size(op.classes)
    if right:
        over, labels = (one.aligned((*batch, incoming)) for one in (ended, right[0]))
        gold = _right_extension(tf.where(over, 0, labels), tf.shape(extended)[:-1], classes, step)
        best, index = _with_right(op.rule, flat, gold, count)
    else:
        best, index = _best(op.rule, extended, flat, count, step)
    pointer, label = index // classes, index % classes
    # A hypothesis that does not exist has no label either.
    exists = best > -math.inf
    label, pointer = tf.where(exists, label, 0), tf.where(exists, pointer, 0)
    results = [Tensor(raw, (*batch, beam)) for raw in (label, pointer, best)]
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
    dtype = scores.dtype
    if rule.combined:
        base = tf.expand_dims(before.aligned(dims[:-1]), -1)
        total = tf.where(base > -math.inf, scores.aligned(dims), tf.cast(-math.inf, dtype))
    else:
        own, base = _scores_and_base(c, dims, scores, before, ended)
        total = own * tf.cast(rule.prob_scale, dtype) + tf.cast(rule.base_scale, dtype) * base
    total = tf.broadcast_to(total, [*c.shape(dims[:-2]), hypotheses, c.size(dims[-1])])
    if rule.random_scale:
        seed = c.seed_of_step(c.random_seed(rule.seed))
        tiny = tf.cast(dtype.as_numpy_dtype(1e-20), dtype)
        uniform = tf.random.stateless_uniform(tf.shape(total), seed, tiny, 1, dtype)
        total = total - tf.cast(rule.random_scale, dtype) * tf.math.log(-tf.math.log(uniform))
    return total


def _of_real_classes(c: Context, classes: Dim, dims: tuple[Dim, ...], extended: tf.Tensor) -> tf.Tensor:
    """The scores of extensions by classes that a sequence has: frames that are chosen among have padding."""
    frames = real_frames(c.sizes, Tensor(extended, dims), {classes} if classes.size is None else set())
    return extended if frames is None else tf.where(frames.aligned(dims), extended, tf.cast(-math.inf, extended.dtype))


def _over(dims: tuple[Dim, ...], ended: Tensor) -> tf.Tensor:
    """Whether hypotheses have ended, with an axis of size 1 for the classes."""
    has_ended = ended.aligned(dims[:-1])
    return tf.expand_dims(has_ended, -1) if ended.dims else has_ended


def _scores_and_base(
    c: Context, dims: tuple[Dim, ...], scores: Tensor, before: Tensor, ended: Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The scores of the step, fixed for hypotheses that have ended, and those before, with an axis of size 1 for the
    classes."""
    dtype = scores.dtype
    first_class = tf.equal(tf.range(c.size(dims[-1])), 0)
    stay = tf.where(first_class, tf.cast(0, dtype), tf.cast(NEVER, dtype))
    base = tf.expand_dims(before.aligned(dims[:-1]), -1)
    return tf.where(_over(dims, ended), stay, scores.aligned(dims)), base


def _combined(
    c: Context,
    op: Choose,
    combine: CombineScores,
    dims: tuple[Dim, ...],
    scores: Tensor,
    before: Tensor,
    ended: Tensor,
    step: Tensor,
    read: tuple[Tensor, ...],
) -> tf.Tensor:
    """The score of each hypothesis extended by each class, by a function of the config, laid out as `dims`."""
    own, base = _scores_and_base(c, dims, scores, before, ended)
    *batch, hypotheses, classes = (c.size(dim) for dim in dims)
    full = [*batch, hypotheses, classes]
    count = tf.reduce_prod(tf.cast(batch, tf.int32)) if batch else tf.constant(1)
    beam = tf.where(step.raw > 0, hypotheses, 1) if combine.one_at_first else tf.constant(hypotheses)
    flat_base = tf.reshape(tf.broadcast_to(base, [*batch, hypotheses, 1]), [count, hypotheses, 1])
    flat_ended = tf.reshape(tf.broadcast_to(ended.aligned(dims[:-1]), full[:-1]), [count, hypotheses])
    assert c.node is not None
    types = [value.type for value in c.node.inputs[len(c.node.inputs) - len(read) :]]
    result = c.host(
        combine.function,
        combine.name,
        tuple(_flat_source(c, x, type_, dims[:-1], count * hypotheses) for x, type_ in zip(read, types, strict=True)),
        scores_in=tf.reshape(tf.broadcast_to(own, full), [count, hypotheses, classes])[:, :beam],
        scores_base=flat_base[:, :beam],
        end_flags=flat_ended[:, :beam],
        t=step.raw,
        batch_dim=count,
        scores_beam_in=tf.constant(hypotheses),
        base_beam_in=beam,
    )
    total = tf.cast(result, scores.dtype)
    if not total.shape.is_compatible_with([None, None, dims[-1].size]):
        wrong = f"{combine.name} returned shape {total.shape}, not [batch, hypotheses, classes]"
        raise FunctionError(f"{c.node.origin}: {wrong}")
    absent = tf.cast(-math.inf, scores.dtype)
    total = tf.where(flat_base[:, :beam] > -math.inf, tf.ensure_shape(total, [None, None, dims[-1].size]), absent)
    total = tf.pad(total, [[0, 0], [0, hypotheses - tf.shape(total)[1]], [0, 0]], constant_values=absent)
    return tf.ensure_shape(tf.reshape(total, full), [*(dim.size for dim in dims[:-2]), hypotheses, dims[-1].size])


def _flat_source(c: Context, x: Tensor, type_: TensorType, hypotheses: tuple[Dim, ...], count: tf.Tensor) -> tf.Tensor:
    """x with one axis for the sequences of the batch and their hypotheses in front of its others."""
    rest = tuple(dim for dim in display_order(type_) if dim not in hypotheses)
    whole = broadcast(c.sizes, masked(c.sizes, x, padded_dims(c.sizes, x)), (*hypotheses, *rest))
    return tf.reshape(whole.raw, [count, *c.shape(rest)])


def _flat(extended: tf.Tensor) -> tf.Tensor:
    """Hypotheses and classes as one axis."""
    hypotheses, classes = own_shape(extended)[-2:]
    flat = tf.reshape(extended, tf.concat([tf.shape(extended)[:-2], [hypotheses * classes]], 0))
    return tf.ensure_shape(flat, [*extended.shape[:-2], _product(*extended.shape[-2:])])


def _product(a: int | None, b: int | None) -> int | None:
    """The size of two axes as one, if it is known before."""
    return None if a is None or b is None else a * b


def _best(
    rule: ScoreRule, extended: tf.Tensor, flat: tf.Tensor, beam: int, step: Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The best extensions and their index among hypotheses times classes."""
    best, index = _top(flat, beam)
    hypotheses, classes = own_shape(extended)[-2:]
    if not rule.keep_beams or hypotheses == 1:
        return best, index
    # Each hypothesis has as many children of its own, but for the first step, when there is one hypothesis yet.
    scores, labels = _top(extended, beam // hypotheses)
    own = _flat(labels + tf.reshape(tf.range(hypotheses), [-1, 1]) * classes)
    later = step.raw > 0
    return tf.where(later, _flat(scores), best), tf.where(later, own, index)


def _right_extension(labels: tf.Tensor, shape: tf.Tensor, classes: int, step: Tensor) -> tf.Tensor:
    """The index of the extension of the last hypothesis, or of the only one in the first step, by the gold label."""
    hypotheses = shape[-1]
    last = tf.where(step.raw > 0, hypotheses - 1, 0)
    return last * classes + tf.gather(tf.broadcast_to(labels, shape), last, axis=-1)


def _with_right(rule: ScoreRule, flat: tf.Tensor, right: tf.Tensor, beam: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The best extensions with the right one in the last place."""
    is_right = tf.equal(tf.range(tf.shape(flat)[-1]), tf.expand_dims(right, -1))
    others = tf.where(is_right, tf.cast(-math.inf, flat.dtype), flat) if rule.cheating == "exclusive" else flat
    own = tf.expand_dims(tf.gather(flat, right, batch_dims=right.shape.rank), -1)
    if beam == 1:
        return own, tf.expand_dims(right, -1)
    best, index = _top(others, beam - 1)
    return tf.concat([best, own], -1), tf.concat([index, tf.expand_dims(right, -1)], -1)


def _top(flat: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The k largest numbers of the last axis, best first; where there are too few, -inf."""
    count = flat.shape[-1]
    if count is None or count < k:
        missing = tf.maximum(k - tf.shape(flat)[-1], 0) if count is None else k - count
        paddings = [[0, 0]] * (flat.shape.rank - 1) + [[0, missing]]
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
    if op.beam not in x.dims:
        return broadcast(c.sizes, x, (*back_pointers.dims, *(dim for dim in x.dims if dim not in back_pointers.dims)))
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
    if op.labels is not None:
        raws, dims = aligned([scores, c.sizes.lengths(op.labels)])
        # Per label, a hypothesis without labels is the worst of all.
        mean = raws[0] / tf.cast(tf.maximum(raws[1], 1), scores.dtype)
        scores = Tensor(tf.where(raws[1] > 0, mean, -math.inf), dims)
    best = tf.argmax(scores.raw, scores.axis(op.beam), tf.int32)
    return Tensor(best, tuple(dim for dim in scores.dims if dim is not op.beam))


@lowers(SplitBeam)
def split_beam(c: Context, op: SplitBeam, x: Tensor) -> Tensor:
    mapping = {op.beam: op.out, **dict(op.times)}
    for old, new in op.times:
        extent = c.sizes.extent(old)
        c.sizes.define(new, c.sizes.lengths(old).rename(mapping), extent.size, extent.exact)
    return x.rename(mapping)


@lowers(SumOverBeam)
def sum_over_beam(c: Context, op: SumOverBeam, x: Tensor) -> Tensor:
    if op.beam not in x.dims:
        return x
    rest = tuple(dim for dim in x.dims if dim is not op.beam)
    return Tensor(tf.reduce_sum(x.raw, x.axis(op.beam)), rest, finite=x.finite)


@lowers(ExpectedOverBeam)
def expected_over_beam(c: Context, op: ExpectedOverBeam, x: Tensor, scores: Tensor) -> Tensor:
    rest = tuple(dim for dim in working_order({*x.dims, *scores.dims}) if dim is not op.beam)
    dims = (*rest, op.beam)
    log_weights = broadcast(c.sizes, scores, dims).raw if op.beam in scores.dims else tf.expand_dims(scores.raw, -1)
    values = x.aligned(dims) if op.beam in x.dims else tf.expand_dims(x.aligned(rest), -1)
    values = tf.broadcast_to(values, tf.shape(log_weights))
    # A hypothesis that does not exist has the score -inf: neither it nor its gradient counts.
    exists = log_weights > -math.inf
    log_weights = tf.where(exists, log_weights, NEVER)
    if op.normalize:
        norm = tf.reduce_logsumexp(log_weights, -1, keepdims=True)
        log_weights = log_weights - (tf.stop_gradient(norm) if op.constant_norm else norm)
    if op.centered:
        count = tf.reduce_sum(tf.cast(exists, values.dtype), -1, keepdims=True)
        total = tf.reduce_sum(tf.where(exists, values, 0), -1, keepdims=True)
        values = values - tf.stop_gradient(total / count)
    return Tensor(tf.reduce_sum(tf.where(exists, tf.exp(log_weights) * values, 0), -1), rest)
