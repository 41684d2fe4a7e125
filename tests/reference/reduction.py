"""Meanings of the primitives that reduce or normalise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from returnn_lite.dims import Dim
from returnn_lite.ir import Op
from returnn_lite.ir.ops.reduction import ArgReduce, Last, Moments, Normalize, Reduce, Softmax, TopK
from tests.reference.named import Array, Lengths, Named, filled, union
from tests.reference.rule import Rule
from tests.reference.sequences import per_sequence


def real_along(x: Named, over: tuple[Dim, ...], lengths: Lengths) -> tuple[Named, Array]:
    """The value with the dims that lengths vary over, and where its frames along `over` are real."""
    true = filled(Named(np.ones(x.array.shape, bool), x.dims), over, False, lengths)
    return Named(x.full(true.dims, lengths), true.dims), true.array


def mean(x: Named, over: tuple[Dim, ...], lengths: Lengths) -> Named:
    """The mean of real frames, 0 where there is none."""
    x, where = real_along(x, over, lengths)
    axes = tuple(x.axis(dim) for dim in over)
    total, count = np.where(where, x.array, 0).sum(axes), np.maximum(where.sum(axes), 1)
    mean_ = total // count if x.array.dtype.kind == "i" else total / count
    return Named(mean_, tuple(dim for dim in x.dims if dim not in over))


def _lowest(dtype: np.dtype[Any]) -> float:
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def _highest(dtype: np.dtype[Any]) -> float:
    return np.iinfo(dtype).max if dtype.kind in "iu" else np.inf


def reduce(op: Reduce, lengths: Lengths, x: Named) -> Named:
    """Over real frames; of none, the number that changes nothing."""
    if op.kind == "mean":
        return mean(x, op.over, lengths)
    x, where = real_along(x, op.over, lengths)
    axes = tuple(x.axis(dim) for dim in op.over)
    dims = tuple(dim for dim in x.dims if dim not in op.over)
    dtype = x.array.dtype
    nothing: Mapping[str, Any] = {
        "sum": 0,
        "prod": 1,
        "max": _lowest(dtype) if dtype.kind in "iuf" else False,
        "min": _highest(dtype) if dtype.kind in "iuf" else True,
        "logsumexp": -np.inf,
        "any": False,
        "all": True,
    }
    array = np.where(where, x.array, nothing[op.kind])
    if op.kind == "logsumexp":
        flat = np.moveaxis(array, axes, range(-len(axes), 0)).reshape([*(lengths.size(d) for d in dims), -1])
        return Named(np.logaddexp.reduce(flat, -1), dims)
    if op.kind in ("max", "min"):
        return Named(getattr(array, op.kind)(axes, initial=nothing[op.kind]), dims)
    return Named(getattr(array, op.kind)(axes), dims)


def arg_reduce(op: ArgReduce, lengths: Lengths, x: Named) -> Named:
    """NumPy's, of each sequence; 0 of an empty one."""
    find = {"max": np.argmax, "min": np.argmin}[op.kind]
    worst = {"max": _lowest, "min": _highest}[op.kind](x.array.dtype)
    x = filled(x, (op.over,), worst, lengths)
    return per_sequence(lengths, [(x, (op.over,))], [()], lambda one: find(one) if len(one) else 0)[0]


def softmax(op: Softmax, lengths: Lengths, x: Named) -> Named:
    """exp(x - max) / sum, 0 beyond each sequence's end."""
    x = filled(x, (op.over,), -np.inf, lengths)
    axis = x.axis(op.over)
    top = np.maximum(x.array.max(axis, keepdims=True, initial=-np.inf), -1e300)
    shifted = x.array - top
    total = np.exp(shifted).sum(axis, keepdims=True)
    if op.log:
        return Named(shifted - np.log(total), x.dims)
    return Named(np.exp(shifted) / np.where(total == 0, 1, total), x.dims)


def normalize(op: Normalize, lengths: Lengths, x: Named) -> Named:
    """(x - mean) / sqrt(variance + epsilon)."""
    centre = mean(x, op.over, lengths)
    dims = union([x, centre])
    centred = Named(x.over(dims) - centre.over(dims), dims)
    variance = mean(Named(centred.array**2, dims), op.over, lengths)
    return Named(centred.array / np.sqrt(variance.over(dims) + op.epsilon), dims)


def moments(op: Moments, lengths: Lengths, x: Named) -> tuple[Named, Named]:
    """Mean and variance over all but some dims; what is the same for all sequences counts in each with the frame."""
    lacking = [d for dim in x.dims if lengths.is_ragged(dim) for d in lengths.of(dim).dims if d not in x.dims]
    dims = tuple(dict.fromkeys((*lacking, *x.dims)))
    x = Named(x.full(dims, lengths), dims)
    over = tuple(dim for dim in x.dims if dim not in op.kept)
    centre = mean(x, over, lengths)
    return centre, mean(Named((x.array - centre.over(x.dims)) ** 2, x.dims), over, lengths)


def top_k(op: TopK, lengths: Lengths, x: Named) -> tuple[Named, ...]:
    """The largest of each sequence, and where they are."""
    k = lengths.size(op.k)
    missing = _lowest(x.array.dtype)

    def of_one(one: Array) -> tuple[Array, Array]:
        order = np.argsort(-one.astype(float), kind="stable")[:k]
        rest = k - len(order)
        return np.append(one[order], [missing] * rest).astype(one.dtype), np.append(order, [0] * rest).astype("int32")

    return per_sequence(lengths, [(x, (op.over,))], [(op.k,), (op.k,)], of_one)


def last(op: Last, lengths: Lengths, x: Named, init: Named) -> Named:
    """The last frame of each sequence."""
    seen = tuple(dim for dim in init.dims if dim.size is not None and dim in x.dims)
    return per_sequence(
        lengths, [(x, (op.over, *seen)), (init, seen)], [seen], lambda one, first: one[-1] if len(one) else first
    )[0]


RULES: Mapping[type[Op], Rule] = {
    Reduce: reduce,
    ArgReduce: arg_reduce,
    Softmax: softmax,
    Normalize: normalize,
    Moments: moments,
    TopK: top_k,
    Last: last,
}
