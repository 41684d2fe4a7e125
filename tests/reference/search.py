"""Meanings of the primitives of beam search (SEMANTICS 3.8)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from returnn_lite.dims import DimKind
from returnn_lite.ir import Op
from returnn_lite.ir.ops.search import (
    BeamGather,
    Choose,
    CombineScores,
    Decide,
    ExpectedOverBeam,
    FirstBeam,
    SplitBeam,
    SumOverBeam,
)
from tests.reference.named import Array, Lengths, Named, union
from tests.reference.rule import Rule
from tests.reference.sequences import per_sequence


def choose(
    op: Choose, lengths: Lengths, scores: Named, before: Named, ended: Named, step: Named, *right: Named
) -> tuple[Named, ...]:
    """Labels, back-pointers and scores of the best extensions, one sequence after the other."""
    assert not op.rule.random_scale, "the reference draws no noise"
    assert op.combine is None or len(right) == bool(op.rule.cheating), "functions of configs see no layers here"
    t = int(step.array)
    beam = op.incoming or op.beam
    incoming = (beam,) if any(beam in x.dims for x in (scores, before, ended)) else ()

    def of_one(log_p: Array, base: Array, over: Array, *gold: Array) -> tuple[Array, ...]:
        rows = [np.atleast_2d(log_p), np.atleast_1d(base), np.atleast_1d(over)]
        total = _extensions(op, t, *rows)
        label, pointer, score = _best(op, t, total, lengths.size(op.beam) if op.explicit else 1)
        if gold:
            hypothesis = len(total) - 1 if t else 0
            label = 0 if rows[2][-1 if t else 0] else int(np.atleast_1d(gold[0])[-1 if t else 0])
            final = (label, hypothesis)
            label, pointer, score = _with_last(op, t, total, final, lengths.size(op.beam) if op.explicit else 1)
        results = (label.astype("int32"), pointer.astype("int32"), score)
        return results if op.explicit else tuple(x[0] for x in results)

    operands = [(scores, (*incoming, op.classes)), (before, incoming), (ended, incoming)]
    operands += [(x, tuple(dim for dim in incoming if dim in x.dims)) for x in right]
    outs = [(op.beam,) if op.explicit else ()] * 3
    return per_sequence(lengths, operands, outs, of_one)


def _with_last(op: Choose, t: int, total: Array, right: tuple[int, int], beam: int) -> tuple[Array, ...]:
    """The best extensions, the right one last."""
    label, hypothesis = right
    others = total.copy()
    if op.rule.cheating == "exclusive":
        others[hypothesis, label] = -np.inf
    labels, pointers, scores = _best(op, t, others, beam)
    return (
        np.append(labels[: beam - 1], label),
        np.append(pointers[: beam - 1], hypothesis),
        np.append(scores[: beam - 1], total[hypothesis, label]),
    )


def _extensions(op: Choose, t: int, log_p: Array, base: Array, over: Array) -> Array:
    """The score of each hypothesis with each class: one that has ended stays as it is, with class 0."""
    own = np.where(over[:, None], np.where(np.arange(log_p.shape[1]) == 0, 0.0, -1e30), log_p)
    if op.combine is not None:
        return _combined(op.combine, t, own, base, over)
    total = op.rule.prob_scale * own + op.rule.base_scale * base[:, None]
    if op.rule.combined:
        total = np.where(base[:, None] > -np.inf, log_p, -np.inf)
    return total


def _combined(combine: CombineScores, t: int, log_p: Array, base: Array, over: Array) -> Array:
    """By a function of the config, for a batch of this sequence alone."""
    count = 1 if combine.one_at_first and t == 0 else len(base)
    arrays = {
        "scores_in": log_p[None, :count],
        "scores_base": base[None, :count, None],
        "end_flags": over[None, :count],
    }
    numbers = {"t": t, "batch_dim": 1, "scores_beam_in": len(base), "base_beam_in": count}
    found = np.asarray(combine.function((), **arrays, **numbers))[0]
    total = np.full(log_p.shape, -np.inf)
    total[:count] = np.where(base[:count, None] > -np.inf, found, -np.inf)
    return total


def _best(op: Choose, t: int, total: Array, beam: int) -> tuple[Array, Array, Array]:
    if op.rule.keep_beams and t > 0 and len(total) > 1:
        each = [_largest(row[None], beam // len(total)) for row in total]
        pointer = np.repeat(np.arange(len(total)), beam // len(total))
        return np.concatenate([x[0] for x in each]), pointer, np.concatenate([x[2] for x in each])
    return _largest(total, beam)


def _largest(total: Array, beam: int) -> tuple[Array, Array, Array]:
    classes = total.shape[1]
    order = np.argsort(-total.ravel(), kind="stable")[:beam]
    score = np.append(total.ravel()[order], [-np.inf] * (beam - len(order)))
    order = np.append(order, [0] * (beam - len(order)))
    exists = score > -np.inf
    return np.where(exists, order % classes, 0), np.where(exists, order // classes, 0), score


def first_beam(op: FirstBeam, lengths: Lengths) -> Named:
    """0 for the first hypothesis, -inf for the others."""
    if not op.explicit:
        return Named(np.array(0.0), ())
    return Named(np.where(np.arange(lengths.size(op.beam)) == 0, 0.0, -np.inf), (op.beam,))


def beam_gather(op: BeamGather, lengths: Lengths, x: Named, pointers: Named) -> Named:
    """x in the order that the back-pointers say. Sizes are the operands' own: those of a history change in a loop."""
    (beam,) = (dim for dim in pointers.dims if dim.kind is DimKind.BEAM)
    rest = tuple(dim for dim in union([x, pointers]) if dim not in (op.beam, beam))
    sizes = [next(v.array.shape[v.axis(d)] for v in (x, pointers) if d in v.dims) for d in rest]
    index = np.broadcast_to(pointers.over((*rest, beam)), [*sizes, pointers.array.shape[pointers.axis(beam)]])
    if op.beam not in x.dims:
        return Named(np.broadcast_to(x.over((*rest, beam)), index.shape), (*rest, beam))
    whole = np.broadcast_to(x.over((*rest, op.beam)), [*sizes, x.array.shape[x.axis(op.beam)]])
    return Named(np.take_along_axis(whole, index.astype(int), -1), (*rest, beam))


def decide(op: Decide, lengths: Lengths, x: Named, scores: Named) -> Named:
    """x of the hypothesis with the highest score."""
    best = _best_hypothesis(op, lengths, scores) if op.beam in scores.dims else None
    result = _of_best(op, x, best)
    for old, new in op.times:
        lengths.known[new] = _of_best(op, lengths.of(old), best)
        if old in result.dims:
            cut = result.array[(slice(None),) * result.axis(old) + (slice(0, lengths.size(new)),)]
            result = Named(cut, tuple(new if dim == old else dim for dim in result.dims))
    return result


def _best_hypothesis(op: Decide, lengths: Lengths, scores: Named) -> Named:
    if op.labels is not None:
        length = lengths.of(op.labels)
        dims = union([scores, length])
        count = length.over(dims)
        scores = Named(np.where(count > 0, scores.over(dims) / np.maximum(count, 1), -np.inf), dims)
    best = np.argmax(scores.array, scores.axis(op.beam))
    return Named(best, tuple(dim for dim in scores.dims if dim != op.beam))


def _of_best(op: Decide, value: Named, best: Named | None) -> Named:
    if best is None or op.beam not in value.dims:
        return value
    picked = beam_gather(BeamGather(op.beam), Lengths(), value, Named(best.array[..., None], (*best.dims, op.beam)))
    return Named(picked.array[..., 0], picked.dims[:-1])


def split_beam(op: SplitBeam, lengths: Lengths, x: Named) -> Named:
    """Other names for the dims; a number for each hypothesis even if it is the same for all."""
    mapping = {op.beam: op.out, **dict(op.times)}
    for old, new in op.times:
        length = lengths.of(old)
        lengths.known[new] = Named(length.array, tuple(mapping.get(dim, dim) for dim in length.dims))
    result = Named(x.array, tuple(mapping.get(dim, dim) for dim in x.dims))
    dims = (*result.dims, *(() if op.beam in x.dims else (op.out,)))
    return Named(result.full(dims, lengths), dims)


def sum_over_beam(op: SumOverBeam, lengths: Lengths, x: Named) -> Named:
    """One hypothesis after the other."""
    if op.beam not in x.dims:
        return x
    return Named(x.array.sum(x.axis(op.beam)), tuple(dim for dim in x.dims if dim != op.beam))


def expected_over_beam(op: ExpectedOverBeam, lengths: Lengths, x: Named, scores: Named) -> Named:
    """Weights times values; hypotheses that do not exist have no weight and do not count in the average."""
    rest = tuple(dim for dim in union([x, scores]) if dim != op.beam)
    log_p, values = np.broadcast_arrays(*(one.over((*rest, op.beam)) for one in (scores, x)))
    weights = np.exp(log_p)
    if op.normalize:
        weights = weights / weights.sum(-1, keepdims=True)
    if op.centered:
        real = weights > 0
        values = values - (values * real).sum(-1, keepdims=True) / real.sum(-1, keepdims=True)
    return Named((weights * values).sum(-1), rest)


RULES: Mapping[type[Op], Rule] = {
    Choose: choose,
    FirstBeam: first_beam,
    BeamGather: beam_gather,
    Decide: decide,
    SplitBeam: split_beam,
    SumOverBeam: sum_over_beam,
    ExpectedOverBeam: expected_over_beam,
}
