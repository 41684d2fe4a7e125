"""Beam search in the reference interpreter (SEMANTICS 3.8)."""

from __future__ import annotations

import numpy as np

from returnn_lite.ir.ops.search import BeamGather, Choose, Decide, FirstBeam
from tests.reference.named import Lengths, Named, union


def choose(op: Choose, lengths: Lengths, scores: Named, before: Named, ended: Named, step: Named) -> tuple[Named, ...]:
    """Labels, back-pointers and scores of the best extensions, one sequence after the other."""
    batch = tuple(dim for dim in union([scores, before, ended]) if dim not in (op.beam, op.classes))
    beam, classes = lengths.size(op.beam), lengths.size(op.classes)
    dims = (*batch, op.beam, op.classes)
    log_p = scores.full(dims, lengths).copy()
    over = ended.full((*batch, op.beam), lengths)
    log_p[over] = -1e30
    log_p[over, 0] = 0.0
    base = before.full((*batch, op.beam), lengths).copy()
    t = int(step.array)
    if op.rule.length_normalization and t > 0:
        base = np.where(over, base * ((t + 1) / t) ** op.rule.exponent, base)
    total = op.rule.prob_scale * log_p + op.rule.base_scale * base[..., None]
    assert not op.rule.keep_beams
    assert not op.rule.random_scale
    flat = total.reshape([*total.shape[:-2], beam * classes])
    order = np.argsort(-flat, -1, kind="stable")[..., :beam]
    found = (*batch, op.beam)
    return (
        Named((order % classes).astype("int32"), found),
        Named((order // classes).astype("int32"), found),
        Named(np.take_along_axis(flat, order, -1), found),
    )


def first_beam(op: FirstBeam, lengths: Lengths) -> Named:
    """0 for the first hypothesis, -inf for the others."""
    array = np.full(lengths.size(op.beam), -np.inf)
    array[0] = 0
    return Named(array, (op.beam,))


def beam_gather(op: BeamGather, lengths: Lengths, x: Named, pointers: Named) -> Named:
    """x in the order that the back-pointers say."""
    rest = tuple(dim for dim in union([x, pointers]) if dim != op.beam)
    dims = (*rest, op.beam)
    sizes = [next(v.array.shape[v.axis(d)] for v in (x, pointers) if d in v.dims) for d in dims]
    whole = np.broadcast_to(x.over(dims), sizes)
    index = np.broadcast_to(pointers.over(dims), sizes)
    return Named(np.take_along_axis(whole, index.astype(int), -1), dims)


def decide(op: Decide, lengths: Lengths, x: Named, scores: Named) -> Named:
    """x of the hypothesis with the highest score."""
    assert not op.length_normalization
    best = np.argmax(scores.array, scores.axis(op.beam))
    batch = tuple(dim for dim in scores.dims if dim != op.beam)

    def of_best(value: Named) -> Named:
        if op.beam not in value.dims:
            return value
        rest = tuple(dict.fromkeys((*(dim for dim in value.dims if dim != op.beam), *batch)))
        sizes = [next(v.array.shape[v.axis(d)] for v in (value, Named(best, batch)) if d in v.dims) for d in rest]
        whole = np.broadcast_to(value.over((*rest, op.beam)), [*sizes, value.array.shape[value.axis(op.beam)]])
        index = np.broadcast_to(Named(best, batch).over(rest), sizes)
        return Named(np.take_along_axis(whole, index[..., None], -1)[..., 0], rest)

    result = of_best(x)
    for old, new in op.times:
        lengths.known[new] = of_best(lengths.of(old))
        if old in result.dims:
            cut = result.array[(slice(None),) * result.axis(old) + (slice(0, lengths.size(new)),)]
            result = Named(cut, tuple(new if dim == old else dim for dim in result.dims))
    return result
