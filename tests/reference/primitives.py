"""One short function a primitive: operands and lengths in, results out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from returnn_lite.ir import Op
from returnn_lite.ir.ops import axes, contraction, elementwise, indexing, losses, recurrence, reduction, sources
from tests.reference.named import Array, Lengths, Named, filled, real, union

Rule = Callable[..., Named | tuple[Named, ...]]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


FUNCTIONS: Mapping[str, Callable[..., Array]] = {
    "neg": np.negative, "abs": np.abs, "sign": np.sign, "exp": np.exp, "expm1": np.expm1, "log": np.log,
    "log1p": np.log1p,
    "safe_log": lambda x: np.log(np.maximum(x, 1e-20)), "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x),
    "square": np.square, "reciprocal": np.reciprocal, "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "sigmoid": sigmoid,
    "log_sigmoid": lambda x: -np.logaddexp(0, -x), "relu": lambda x: np.maximum(x, 0),
    "swish": lambda x: x * sigmoid(x),
    "relu6": lambda x: np.clip(x, 0, 6), "softplus": lambda x: np.logaddexp(0, x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "ceil": np.ceil, "floor": np.floor, "round": np.round, "stop_gradient": lambda x: x, "logical_not": np.logical_not,
    "is_finite": np.isfinite, "is_nan": np.isnan, "is_inf": np.isinf, "add": np.add, "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.true_divide, "floordiv": np.floor_divide, "mod": np.mod, "pow": np.power, "maximum": np.maximum,
    "minimum": np.minimum, "squared_difference": lambda a, b: (a - b) ** 2, "logaddexp": np.logaddexp,
    "divide_no_nan": lambda a, b: np.where(b == 0, 0, a / np.where(b == 0, 1, b)),
    "equal": np.equal, "not_equal": np.not_equal, "less": np.less, "less_equal": np.less_equal, "greater": np.greater,
    "greater_equal": np.greater_equal, "logical_and": np.logical_and, "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}  # fmt: skip


def _elementwise(op: elementwise.Elementwise, lengths: Lengths, *inputs: Named) -> Named:
    dims = union(inputs)
    return Named(FUNCTIONS[op.kind](*(x.over(dims) for x in inputs)), dims)


def _select(op: Op, lengths: Lengths, *inputs: Named) -> Named:
    dims = union(inputs)
    return Named(np.where(*(x.over(dims) for x in inputs)), dims)


def _cast(op: elementwise.Cast, lengths: Lengths, x: Named) -> Named:
    with np.errstate(invalid="ignore"):
        return Named(x.array.astype("float64" if op.dtype.startswith("float") else op.dtype), x.dims)


def _same(op: Op, lengths: Lengths, x: Named, *_: Named) -> Named:
    return x


def _constant(op: sources.Constant, lengths: Lengths) -> Named:
    dtype = "float64" if op.dtype.startswith("float") else op.dtype
    return Named(np.full([lengths.size(dim) for dim in op.dims], op.value, dtype), op.dims)


def _iota(op: sources.Iota, lengths: Lengths) -> Named:
    return Named(np.arange(lengths.size(op.over)), (op.over,))


def _length(op: sources.Length, lengths: Lengths) -> Named:
    return lengths.of(op.of)


def _expand(op: axes.Expand, lengths: Lengths, x: Named) -> Named:
    dims = tuple(dict.fromkeys((*x.dims, *op.dims)))
    return Named(x.full(dims, lengths), dims)


def _squeeze(op: axes.Squeeze, lengths: Lengths, x: Named) -> Named:
    return Named(x.array.squeeze(x.axis(op.dim)), tuple(dim for dim in x.dims if dim != op.dim))


def _relabel(op: axes.Relabel, lengths: Lengths, x: Named) -> Named:
    if op.new.size is None and op.new not in lengths.known and not op.new.operands():
        lengths.known[op.new] = lengths.of(op.old)
    assert np.array_equal(*np.broadcast_arrays(lengths.of(op.old).array, lengths.of(op.new).array))
    return Named(x.array, tuple(op.new if dim == op.old else dim for dim in x.dims))


def _merge(op: axes.MergeDims, lengths: Lengths, x: Named) -> Named:
    rest = tuple(dim for dim in x.dims if dim not in op.dims)
    merged = x.over((*rest, *op.dims))
    return Named(merged.reshape([*merged.shape[: len(rest)], -1]), (*rest, op.out))


def _split(op: axes.SplitDim, lengths: Lengths, x: Named) -> Named:
    rest = tuple(dim for dim in x.dims if dim != op.dim)
    array = filled(Named(x.over((*rest, op.dim)), (*rest, op.dim)), (op.dim,), op.pad_value, lengths).array
    sizes = [lengths.size(dim) for dim in op.outs]
    missing = int(np.prod(sizes)) - array.shape[-1]
    array = np.pad(array, [(0, 0)] * len(rest) + [(0, missing)], constant_values=op.pad_value)
    return Named(array.reshape([*array.shape[:-1], *sizes]), (*rest, *op.outs))


def _dot(op: contraction.Dot, lengths: Lengths, a: Named, b: Named) -> Named:
    a, b = (filled(x, op.over, 0, lengths) for x in (a, b))
    dims = union([a, b])
    kept = tuple(dim for dim in dims if dim not in op.over)
    product = a.full(dims, lengths) * b.full(dims, lengths)
    return Named(product.sum(tuple(dims.index(dim) for dim in op.over)), kept)


IDENTITIES: Mapping[str, Any] = {
    "sum": 0,
    "prod": 1,
    "max": -np.inf,
    "min": np.inf,
    "logsumexp": -np.inf,
    "any": False,
    "all": True,
}


def _reduce(op: reduction.Reduce, lengths: Lengths, x: Named) -> Named:
    dims = tuple(dim for dim in x.dims if dim not in op.over)
    where = Named(real(x, lengths).array, x.dims)
    for dim in op.over:
        if lengths.is_ragged(dim):
            both = union([x, lengths.mask(dim)])
            where = Named(where.full(both, lengths) & lengths.mask(dim).over(both), both)
            x = Named(x.full(both, lengths), both)
    dims = tuple(dim for dim in x.dims if dim not in op.over)
    over = tuple(x.axis(dim) for dim in op.over)
    if op.kind == "mean":
        total = np.where(where.over(x.dims), x.array, 0).sum(over)
        return Named(total / np.maximum(where.over(x.dims).sum(over), 1), dims)
    identity = IDENTITIES[op.kind]
    if x.array.dtype.kind == "i" and op.kind in ("max", "min"):
        identity = np.iinfo(np.int32).min if op.kind == "max" else np.iinfo(np.int32).max
    array = np.where(where.over(x.dims), x.array, identity)
    if op.kind == "logsumexp":
        return Named(
            np.logaddexp.reduce(array, axis=over[0]) if len(over) == 1 else np.log(np.exp(array).sum(over)), dims
        )
    return Named(getattr(array, op.kind)(over), dims)


def _arg_reduce(op: reduction.ArgReduce, lengths: Lengths, x: Named) -> Named:
    worst = -np.inf if op.kind == "max" else np.inf
    x = filled(Named(x.array.astype("float64"), x.dims), (op.over,), worst, lengths)
    best = np.argmax if op.kind == "max" else np.argmin
    return Named(best(x.array, x.axis(op.over)), tuple(dim for dim in x.dims if dim != op.over))


def _softmax(op: reduction.Softmax, lengths: Lengths, x: Named) -> Named:
    x = filled(x, (op.over,), -np.inf, lengths)
    axis = x.axis(op.over)
    top = np.maximum(x.array.max(axis, keepdims=True), -1e300) if x.array.shape[axis] else 0
    shifted = x.array - top
    total = np.exp(shifted).sum(axis, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        array = shifted - np.log(total) if op.log else np.exp(shifted) / np.where(total == 0, 1, total)
    return Named(array, x.dims)


def _normalize(op: reduction.Normalize, lengths: Lengths, x: Named) -> Named:
    axis = tuple(x.axis(dim) for dim in op.over)
    mean = x.array.mean(axis, keepdims=True)
    return Named((x.array - mean) / np.sqrt(x.array.var(axis, keepdims=True) + op.epsilon), x.dims)


def _last(op: reduction.Last, lengths: Lengths, x: Named, init: Named) -> Named:
    length = lengths.of(op.over)
    dims = tuple(dict.fromkeys((*(d for d in union([x, length]) if d != op.over), *init.dims)))
    whole = x.full((op.over, *dims), lengths)
    index = np.broadcast_to(np.maximum(length.over(dims) - 1, 0), whole.shape[1:])
    found = np.take_along_axis(whole, index[None], 0)[0] if len(whole) else np.zeros(whole.shape[1:])
    return Named(np.where(length.over(dims) > 0, found, init.over(dims)), dims)


def _gather(op: indexing.Gather, lengths: Lengths, x: Named, index: Named) -> Named:
    rest = tuple(dict.fromkeys((*(dim for dim in x.dims if dim != op.over), *index.dims)))
    whole = x.full((*rest, op.over), lengths)
    positions = np.clip(index.full(rest, lengths), 0, max(whole.shape[-1] - 1, 0))
    return Named(np.take_along_axis(whole, positions[..., None].astype(int), -1)[..., 0], rest)


def _one_hot(op: indexing.OneHot, lengths: Lengths, x: Named) -> Named:
    return Named((x.array[..., None] == np.arange(lengths.size(op.dim))).astype("float64"), (*x.dims, op.dim))


def _slice(op: indexing.Slice, lengths: Lengths, x: Named) -> Named:
    assert op.step > 0
    picked = x.array[(slice(None),) * x.axis(op.over) + (slice(op.first, None, op.step),)]
    picked = picked[(slice(None),) * x.axis(op.over) + (slice(0, lengths.size(op.out)),)]
    return Named(picked, tuple(op.out if dim == op.over else dim for dim in x.dims))


def _concat(op: indexing.Concat, lengths: Lengths, *inputs: Named) -> Named:
    rest = tuple(dim for dim in union(inputs) if dim not in op.dims)
    assert not any(lengths.is_ragged(dim) for dim in op.dims), "the reference joins static dims only"
    parts = [x.full((*rest, dim), lengths) for x, dim in zip(inputs, op.dims, strict=True)]
    return Named(np.concatenate(parts, -1), (*rest, op.out))


def _compress(op: indexing.Compress, lengths: Lengths, x: Named, mask: Named) -> Named:
    true = filled(mask, (op.over,), False, lengths)
    batch = tuple(dim for dim in true.dims if dim != op.over)
    lengths.known[op.out] = Named(true.array.sum(true.axis(op.over)), batch)
    order = np.argsort(~true.over((*batch, op.over)), -1, kind="stable")[..., : lengths.size(op.out)]
    if op.over not in x.dims:
        x = Named(x.full((*x.dims, op.over), lengths), (*x.dims, op.over))
    return _renamed_gather(x, op.over, op.out, Named(order, (*batch, op.out)), lengths)


def _renamed_gather(x: Named, over: Any, out: Any, index: Named, lengths: Lengths) -> Named:
    rest = tuple(dict.fromkeys((*(d for d in x.dims if d != over), *(d for d in index.dims if d != out))))
    whole = x.full((*rest, over), lengths)
    positions = np.broadcast_to(index.over((*rest, out)), (*whole.shape[:-1], index.array.shape[index.axis(out)]))
    if not whole.shape[-1]:
        return Named(np.zeros(positions.shape, whole.dtype), (*rest, out))
    return Named(np.take_along_axis(whole, positions, -1), (*rest, out))


def _hold(op: indexing.Hold, lengths: Lengths, y: Named, mask: Named, init: Named) -> Named:
    true = filled(mask, (op.out,), False, lengths)
    count = np.cumsum(true.array, true.axis(op.out)) - 1
    held = _renamed_gather(y, op.over, op.out, Named(np.maximum(count, 0), true.dims), lengths)
    dims = union([held, true, init])
    before = Named(count < 0, true.dims).over(dims)
    return Named(np.where(before, init.over(dims), held.over(dims)), dims)


def _delay(op: recurrence.Delay, lengths: Lengths, x: Named, init: Named) -> Named:
    rest = tuple(dim for dim in union([x, init]) if dim != op.over)
    whole = x.full((op.over, *rest), lengths)
    first = np.broadcast_to(init.over(rest), whole.shape[1:])[None]
    return Named(np.concatenate([first, whole])[: len(whole)].astype(whole.dtype), (op.over, *rest))


def lstm_step(
    cell: recurrence.LstmCell, lengths: Lengths, z: Named, w: Named, h: Named, c: Named
) -> tuple[Named, Named]:
    """One step of an LSTM."""
    rest = tuple(dim for dim in union([z, h, c]) if dim not in (cell.gates, cell.hidden))
    size = lengths.size(cell.hidden)
    recurrent = h.full((*rest, cell.hidden), lengths) @ w.over((cell.recurrent, cell.gates))
    blocks = np.split(z.full((*rest, cell.gates), lengths) + recurrent, 4, -1)
    j, i, f, o = (blocks[cell.order.index(name)] for name in "jifo")
    assert j.shape[-1] == size
    new = sigmoid(f + cell.forget_bias) * c.over((*rest, cell.hidden)) + sigmoid(i) * np.tanh(j)
    dims = (*rest, cell.hidden)
    return Named(sigmoid(o) * np.tanh(new), dims), Named(new, dims)


def gru_step(
    cell: recurrence.GruCell, lengths: Lengths, z: Named, zc: Named, wg: Named, wc: Named, h: Named
) -> tuple[Named]:
    """One step of a GRU."""
    rest = tuple(dim for dim in union([z, zc, h]) if dim not in (cell.gates, cell.hidden))
    state = h.full((*rest, cell.hidden), lengths)
    gates = sigmoid(z.full((*rest, cell.gates), lengths) + state @ wg.over((cell.recurrent, cell.gates)))
    r, u = np.split(gates, 2, -1)
    candidate = np.tanh(zc.full((*rest, cell.hidden), lengths) + (r * state) @ wc.over((cell.recurrent, cell.hidden)))
    return (Named(u * state + (1 - u) * candidate, (*rest, cell.hidden)),)


def rnn_step(cell: recurrence.SimpleRnnCell, lengths: Lengths, z: Named, w: Named, h: Named) -> tuple[Named]:
    """One step of a simple recurrent layer."""
    rest = tuple(dim for dim in union([z, h]) if dim != cell.hidden)
    recurrent = h.full((*rest, cell.hidden), lengths) @ w.over((cell.recurrent, cell.hidden))
    total = z.full((*rest, cell.hidden), lengths) + recurrent
    return (Named(FUNCTIONS[cell.activation](total), (*rest, cell.hidden)),)


def _whole(step: Callable[..., tuple[Named, ...]], moving: int, states: int) -> Rule:
    """A recurrence over frames from its step: the first `moving` operands are sliced, the last `states` carried."""

    def rule(op: Any, lengths: Lengths, *inputs: Named) -> tuple[Named, ...]:
        length = lengths.of(op.over)
        carried = list(inputs[-states:])
        frames: list[tuple[Named, ...]] = []
        steps = range(lengths.size(op.over))
        for t in reversed(steps) if op.reverse else steps:
            now = [_frame(x, op.over, t) for x in inputs[:moving]]
            new = step(op.cell, lengths, *now, *inputs[moving:-states], *carried)
            if op.reverse:  # from behind, a sequence has not begun before its own last frame
                running = Named(np.asarray(t < length.array), length.dims)
                new = tuple(_select(op, lengths, running, n, old) for n, old in zip(new, carried, strict=True))
            carried = list(new)
            frames.append(tuple(carried))
        if op.reverse:
            frames.reverse()
        if not frames:
            dims = [tuple(dict.fromkeys((*union(inputs[:moving]), *x.dims))) for x in carried]
            kept = [tuple(d for d in one if d not in (op.over, getattr(op.cell, "gates", None))) for one in dims]
            return tuple(Named(np.zeros([0, *(lengths.size(d) for d in one)]), (op.over, *one)) for one in kept)
        return tuple(stacked([frame[k] for frame in frames], op.over) for k in range(states))

    return rule


def _frame(x: Named, over: Any, t: int) -> Named:
    if over not in x.dims:
        return x
    return Named(x.array.take(t, x.axis(over)), tuple(dim for dim in x.dims if dim != over))


def stacked(frames: list[Named], over: Any) -> Named:
    """Frames of the same dims along a new one; the longest where an axis differs in size from frame to frame."""
    dims = union(frames)
    arrays = [frame.over(dims) for frame in frames]
    shape = [max(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True)]
    padded = []
    for array in arrays:
        larger = np.zeros(shape, array.dtype)
        larger[tuple(slice(0, size) for size in array.shape)] = array
        padded.append(larger)
    return Named(np.stack(padded), (over, *dims))


def _cumsum(op: recurrence.Cumsum, lengths: Lengths, x: Named, init: Named) -> Named:
    rest = tuple(dim for dim in union([x, init]) if dim != op.over)
    whole = Named(x.full((op.over, *rest), lengths), (op.over, *rest))
    array = whole.array
    if op.reverse:
        whole = filled(whole, (op.over,), 0, lengths)
        rest = tuple(dim for dim in whole.dims if dim != op.over)
        array = np.cumsum(whole.over((op.over, *rest))[::-1], 0)[::-1]
    else:
        array = np.cumsum(array, 0)
    return Named(array + init.over((op.over, *rest)), (op.over, *rest))


def _empty_history(op: recurrence.EmptyHistory, lengths: Lengths, like: Named) -> Named:
    lengths.known.setdefault(op.history, Named(np.array(0), ()))
    return Named(np.zeros((0, *like.array.shape), like.array.dtype), (op.history, *like.dims))


def _cum_concat_step(
    op: recurrence.CumConcatStep, lengths: Lengths, x: Named, before: Named, count: Named, *mask: Named
) -> tuple[Named, Named]:
    appended = mask[0] if mask else Named(np.array(True), ())
    after = Named(
        count.over(union([count, appended])) + appended.over(union([count, appended])), union([count, appended])
    )
    rest = tuple(dim for dim in union([before, x, appended, count]) if dim != op.history)
    size = before.array.shape[before.axis(op.history)]
    sizes = [_size(dim, (x, appended, count), lengths) for dim in rest]
    old = np.broadcast_to(before.over((op.history, *rest)), [size, *sizes])
    new = np.concatenate([old, np.zeros([1, *sizes], old.dtype)])
    at = np.arange(size + 1).reshape([-1, *[1] * len(rest)]) == count.over(rest)
    new = np.where(at & appended.over(rest), x.over(rest), new)
    lengths.known[op.history] = after
    return Named(new[: int(after.array.max())], (op.history, *rest)), after


def _size(dim: Any, values: tuple[Named, ...], lengths: Lengths) -> int:
    found = [value.array.shape[value.axis(dim)] for value in values if dim in value.dims]
    return found[0] if found else lengths.size(dim)


def _cum_concat(
    op: recurrence.CumConcat, lengths: Lengths, x: Named, before: Named, count: Named
) -> tuple[Named, Named]:
    seen = Named(np.arange(lengths.size(op.over)) + 1, (op.over,))
    lengths.known[op.history] = seen
    return Named(x.array, tuple(op.history if dim == op.over else dim for dim in x.dims)), seen


def _cross_entropy(op: losses.SparseCrossEntropy, lengths: Lengths, logits: Named, target: Named) -> Named:
    log_p = _softmax(reduction.Softmax(op.classes, True), lengths, logits)
    picked = _gather(indexing.Gather(op.classes), lengths, log_p, target)
    return Named(-picked.array, picked.dims)


def _edit_distance(op: losses.EditDistance, lengths: Lengths, a: Named, b: Named) -> Named:
    """Levenshtein (1966), by the table, one pair after the other."""
    batch = tuple(
        dim for dim in union([a, b, lengths.of(op.a_time), lengths.of(op.b_time)]) if dim not in (op.a_time, op.b_time)
    )
    left, right = a.full((*batch, op.a_time), lengths), b.full((*batch, op.b_time), lengths)
    lefts, rights = (lengths.of(dim).full(batch, lengths) for dim in (op.a_time, op.b_time))
    found = np.zeros(left.shape[:-1], "int32")
    for index in np.ndindex(found.shape):
        found[index] = _distance(list(left[index][: lefts[index]]), list(right[index][: rights[index]]))
    return Named(found, batch)


def _distance(a: list[int], b: list[int]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def _frame_count(op: losses.FrameCount, lengths: Lengths, x: Named) -> Named:
    return Named(np.array(float(real(x, lengths).array.sum())), ())


PRIMITIVES: Mapping[type[Op], Rule] = {
    elementwise.Elementwise: _elementwise,
    elementwise.Select: _select,
    elementwise.Cast: _cast,
    elementwise.Annotate: _same,
    elementwise.ScaleGradient: _same,
    elementwise.PrintValue: _same,
    elementwise.CheckFinite: _same,
    sources.Constant: _constant,
    sources.Iota: _iota,
    sources.Length: _length,
    axes.Expand: _expand,
    axes.Squeeze: _squeeze,
    axes.Relabel: _relabel,
    axes.MergeDims: _merge,
    axes.SplitDim: _split,
    contraction.Dot: _dot,
    reduction.Reduce: _reduce,
    reduction.ArgReduce: _arg_reduce,
    reduction.Softmax: _softmax,
    reduction.Normalize: _normalize,
    reduction.Last: _last,
    indexing.Gather: _gather,
    indexing.OneHot: _one_hot,
    indexing.Slice: _slice,
    indexing.Concat: _concat,
    indexing.Compress: _compress,
    indexing.Hold: _hold,
    recurrence.Delay: _delay,
    recurrence.Lstm: _whole(lstm_step, 1, 2),
    recurrence.Gru: _whole(gru_step, 2, 1),
    recurrence.SimpleRnn: _whole(rnn_step, 1, 1),
    recurrence.LstmStep: lambda op, lengths, *inputs: lstm_step(op.cell, lengths, *inputs),
    recurrence.GruStep: lambda op, lengths, *inputs: gru_step(op.cell, lengths, *inputs),
    recurrence.SimpleRnnStep: lambda op, lengths, *inputs: rnn_step(op.cell, lengths, *inputs),
    recurrence.Cumsum: _cumsum,
    recurrence.CumsumStep: lambda op, lengths, x, state: Named(
        x.over(union([x, state])) + state.over(union([x, state])), union([x, state])
    ),
    recurrence.EmptyHistory: _empty_history,
    recurrence.CumConcatStep: _cum_concat_step,
    recurrence.CumConcat: _cum_concat,
    losses.SparseCrossEntropy: _cross_entropy,
    losses.FrameCount: _frame_count,
    losses.EditDistance: _edit_distance,
}
