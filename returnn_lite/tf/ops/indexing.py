"""Lowerings of the primitives that pick entries."""

from __future__ import annotations

import tensorflow as tf

from returnn_lite.dims import Dim, Symbol
from returnn_lite.ir.ops.indexing import CheckIndex, Concat, Gather, OneHot, Scatter, SearchSorted, Slice, SliceAt, Sort
from returnn_lite.tf.context import Context, Family
from returnn_lite.tf.gathers import flat_batch, frame_numbers, take, take_frames
from returnn_lite.tf.layout import Tensor, aligned, common_layout, move_last
from returnn_lite.tf.mask import broadcast, highest, lowest, masked, padded_dims, real_frames
from returnn_lite.tf.product import multiplied

lowers = Family()


@lowers(Gather)
def gather(c: Context, op: Gather, x: Tensor, index: Tensor) -> Tensor:
    if op.clip and c.sizes.has_padding(op.over):
        raws, dims = aligned([index, c.sizes.lengths(op.over)])
        index = Tensor(tf.minimum(tf.maximum(raws[0], 0), tf.cast(raws[1], index.dtype) - 1), dims)
    elif op.clip and op.over.size is None:
        index = index.with_raw(tf.minimum(tf.maximum(index.raw, 0), tf.cast(c.size(op.over), index.dtype) - 1))
    return take(c, x, op.over, index)


@lowers(OneHot)
def one_hot(c: Context, op: OneHot, x: Tensor) -> Tensor:
    return Tensor(tf.one_hot(x.raw, c.size(op.dim), dtype=c.dtype(op.dtype)), (*x.dims, op.dim))


@lowers(Slice)
def slice_frames(c: Context, op: Slice, x: Tensor) -> Tensor:
    if op.step > 0 and op.first >= 0:
        raw = _part(c, op, x)
        if raw is None:
            # Where this exceeds the axis, TensorFlow stops at its end.
            part = slice(op.first, op.first + op.step * c.size(op.out), op.step)
            raw = x.raw[(slice(None),) * x.axis(op.over) + (part,)]
        return Tensor(raw, _renamed(x, op.over, op.out), x.zero_beyond - {op.over, op.out}, x.finite)
    numbers = frame_numbers(c, op.out)
    index = numbers.with_raw(op.first + op.step * numbers.raw)
    if op.first < 0 or op.step < 0:
        first = -1 - op.first if op.step < 0 and op.first >= 0 else op.first
        raws, dims = aligned([numbers, c.sizes.lengths(op.over)])
        index = Tensor(raws[1] + first + op.step * raws[0], dims)
    return take_frames(c, x, op.over, index, 0)


def _part(c: Context, op: Slice, x: Tensor) -> tf.Tensor | None:
    """The slice as one of all the parts that x is cut into; None if it is the only one."""
    assert c.node is not None
    cuts = c.consumers.cuts.get((c.node.inputs[0], op.over))
    if cuts is None or op.step != 1:
        return None
    sizes, axis = [end - start for start, end in cuts], x.axis(op.over)
    position = next(i for i, (start, _) in enumerate(cuts) if start == op.first)
    return x.derived_parts(("cuts", op.over), lambda raw: tf.split(raw, sizes, axis), position)


def _renamed(x: Tensor, old: Dim, new: Dim) -> tuple[Dim, ...]:
    return tuple(new if dim is old else dim for dim in x.dims)


@lowers(SliceAt)
def slice_at(c: Context, op: SliceAt, x: Tensor, start: Tensor, *size: Tensor) -> Tensor:
    if op.created_dims():
        (lengths,) = size
        c.sizes.define(op.out, lengths.with_raw(tf.maximum(tf.cast(lengths.raw, tf.int32), 0)))
    raws, dims = aligned([frame_numbers(c, op.out), start])
    return take_frames(c, x, op.over, Tensor(raws[0] + tf.cast(raws[1], tf.int32), dims), 0)


@lowers(Scatter)
def scatter(c: Context, op: Scatter, x: Tensor, index: Tensor) -> Tensor:
    count = c.size(op.out)
    # Positions that are the same for all sequences are not when frames that a sequence lacks are left out.
    varying = {d for over in op.over if c.sizes.has_padding(over) for d in c.sizes.lengths(over).dims}
    index = broadcast(c.sizes, index, (*index.dims, *(d for d in x.dims if d in varying - set(index.dims))))
    batch = tuple(d for d in index.dims if d not in op.over)
    rest = tuple(d for d in x.dims if d not in index.dims)
    lengths = c.sizes.lengths(op.out)
    raws, dims = aligned([index, lengths])
    valid = Tensor(tf.logical_and(raws[0] >= 0, raws[0] < tf.cast(raws[1], index.dtype)), dims)
    frames = real_frames(c.sizes, index, padded_dims(c.sizes, index) & set(op.over))
    if frames is not None:
        raws, dims = aligned([valid, frames])
        valid = Tensor(tf.logical_and(*raws), dims)
    layout = (*batch, *op.over)
    width = multiplied(c.shape(batch))
    rows = tf.reshape(tf.range(width), [*c.shape(batch), *[1] * len(op.over)]) * count
    rows = tf.where(valid.aligned(layout), tf.cast(index.in_order(layout), tf.int32) + rows, -1)
    values = broadcast(c.sizes, x, (*layout, *rest)).raw
    summed = tf.math.unsorted_segment_sum(values, rows, width * count)
    return Tensor(tf.reshape(summed, [*c.shape(batch), count, *c.shape(rest)]), (*batch, op.out, *rest))


@lowers(CheckIndex)
def check_index(c: Context, op: CheckIndex, index: Tensor) -> Tensor:
    numbers, count = index.with_raw(tf.cast(index.raw, tf.int32)), c.sizes.lengths(op.over)
    raws, dims = aligned([numbers, count])
    passes = tf.logical_and(raws[0] >= 0, raws[0] < raws[1])
    if op.but is not None:
        passes = tf.logical_and(passes, tf.not_equal(raws[0], op.but))
    if op.held:
        passes = tf.logical_or(passes, tf.equal(raws[0], 0))
    for dim in filter(c.sizes.has_padding, dims):  # of what is the same for all sequences as many as each has
        raws, dims = aligned([Tensor(passes, dims), c.sizes.mask(dim)])
        passes = tf.logical_or(raws[0], tf.logical_not(raws[1]))
    what, fact, advice = _of_positions(op.over)
    assert c.node is not None
    if op.over.size is not None and c.node.inputs[0].type.sparse is not None:
        besides = "" if op.but is None else f" besides {op.but}, the blank"
        what, advice = f"a label is none of the {op.over.size} classes{besides}", ""
    values = [value.aligned(dims) for value in (numbers, count)]
    with tf.control_dependencies([c.require(Tensor(passes, dims), what, fact, values, advice)]):
        return index.with_raw(tf.identity(index.raw))


def _of_positions(over: Dim) -> tuple[str, str, str]:
    """What is said of a position where there is no frame, of one sequence, and what to do."""
    advice = "Set clip_to_valid (gather) or filter_invalid_indices (scatter_nd) if that is meant."
    if over.size is not None:
        return f"a position is none of the {over.size} of {over.name}", "has {0}", advice
    return f"a position is beyond the frames of {over.name}", "has position {0}, counted from 0, of {1} frames", advice


@lowers(Concat)
def concat(c: Context, op: Concat, *inputs: Tensor) -> Tensor:
    parts = [Tensor(x.raw, _renamed(x, dim, op.out), finite=x.finite) for x, dim in zip(inputs, op.dims, strict=True)]
    dims = common_layout(parts)
    axis = dims.index(op.out)
    raws = []
    for part, dim in zip(parts, op.dims, strict=True):
        shape = [c.size(dim if d is op.out else d) for d in dims]
        raws.append(part.in_order(dims) if set(part.dims) == set(dims) else part.repeated(dims, shape))
    raw = tf.concat(raws, axis)
    finite = all(part.finite for part in parts)
    if not any(c.sizes.has_padding(dim) for dim in op.dims[:-1]):
        shared = [x.zero_beyond - {dim} for x, dim in zip(inputs, op.dims, strict=True)]
        zero = frozenset.intersection(*shared) - {op.out}
        return Tensor(raw, dims, zero, finite)
    return _joined(c, op, Tensor(raw, dims, finite=finite))


def _joined(c: Context, op: Concat, padded: Tensor) -> Tensor:
    """The padded parts of each sequence moved together."""
    joined = frame_numbers(c, op.out)
    index = joined
    start, offset = Tensor(tf.constant(0), ()), tf.constant(0)
    for dim in op.dims:
        raws, dims = aligned([joined, start, index])
        index = Tensor(tf.where(raws[0] >= raws[1], raws[0] - raws[1] + offset, raws[2]), dims)
        raws, dims = aligned([start, c.sizes.lengths(dim)])
        start, offset = Tensor(raws[0] + raws[1], dims), offset + c.size(dim)
    # Where padding was is no longer where the lengths of `out` say: the source axis has a name of its own.
    source = Symbol(op.out.name, op.out.kind)
    c.sizes.define(source, Tensor(tf.convert_to_tensor(offset, tf.int32), ()))
    return take(c, padded.rename({op.out: source}), source, index)


@lowers(SearchSorted)
def search_sorted(c: Context, op: SearchSorted, sorted_x: Tensor, values: Tensor) -> Tensor:
    x = masked(c.sizes, sorted_x, [op.over], highest(sorted_x.dtype))
    batch = tuple(d for d in sorted_x.dims if d is not op.over)
    rest = tuple(d for d in values.dims if d not in batch)
    flat_x = flat_batch(c, x, batch, (op.over,))
    flat_values = flat_batch(c, values, batch, rest)
    width = multiplied(c.shape(batch))
    flat_values = tf.reshape(flat_values, [width, multiplied(c.shape(rest))])
    flat_x = tf.reshape(flat_x, [width, c.size(op.over)])
    found = tf.searchsorted(flat_x, flat_values, op.side)
    result = Tensor(tf.reshape(found, [*c.shape(batch), *c.shape(rest)]), (*batch, *rest))
    if not c.sizes.has_padding(op.over):
        return result
    raws, dims = aligned([result, c.sizes.lengths(op.over)])
    return Tensor(tf.minimum(*raws), dims)


@lowers(Sort)
def sort(c: Context, op: Sort, x: Tensor) -> Tensor:
    worst = lowest(x.dtype) if op.descending else highest(x.dtype)
    y = move_last(masked(c.sizes, x, [op.over], worst), op.over)
    direction = "DESCENDING" if op.descending else "ASCENDING"
    return Tensor(tf.argsort(y.raw, direction=direction, stable=True), y.dims)
