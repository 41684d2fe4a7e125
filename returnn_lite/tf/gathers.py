"""Picking frames along a dim by index, per sequence."""

from __future__ import annotations

import tensorflow as tf

from returnn_lite.dims import Dim, Symbol
from returnn_lite.tf.context import Context
from returnn_lite.tf.layout import Tensor, aligned
from returnn_lite.tf.mask import broadcast
from returnn_lite.tf.product import multiplied, own_shape
from returnn_lite.tf.sizes import Size


def take(c: Context, x: Tensor, over: Dim, index: Tensor) -> Tensor:
    """x at `index` along `over`. Dims that both share are batch dims. An index outside the axis gives an undefined
    result, but no error: 0 if `over` is dynamic, the nearest frame if it is static."""
    if over in index.dims:
        picked = Symbol(over.name, over.kind, over.size)  # the frames picked need a name other than those picked from
        return take(c, x, over, index.rename({over: picked})).rename({picked: over})
    batch = [d for d in x.dims if d is not over and d in index.dims]
    new = tuple(d for d in index.dims if d not in x.dims)
    rest = tuple(d for d in x.dims if d is not over and d not in batch)
    if not batch and over.size is not None:
        clipped = tf.clip_by_value(index.raw, 0, over.size - 1)
        axis = x.axis(over)
        return Tensor(tf.gather(x.raw, clipped, axis=axis), (*x.dims[:axis], *index.dims, *x.dims[axis + 1 :]))
    if over.size is not None and not c.differentiable:
        return _of_batch(x, over, index, tuple(batch))
    leading = [d for d in x.dims if d is over or d in batch]
    layout = tuple(d for dim in leading for d in (new if dim is over else (dim,)))
    flat, total = _flattened(c, x, (*leading, *rest), len(leading))
    rows = _row_numbers(c, index, over, leading, layout)
    if over.size is None:
        inside = tf.logical_and(index.raw >= 0, index.raw < c.size(over))
        inside = Tensor(inside, index.dims).aligned(layout)
        rows = tf.where(inside, rows, total)
    return Tensor(tf.gather(flat, rows), (*layout, *rest), finite=x.finite)


def _of_batch(x: Tensor, over: Dim, index: Tensor, batch: tuple[Dim, ...]) -> Tensor:
    """The same along a static dim, in one operation: its gradient takes longer than that of rows."""
    assert over.size is not None
    last = over.size - 1
    new = tuple(d for d in index.dims if d not in batch)
    rest = tuple(d for d in x.dims if d is not over and d not in batch)
    own = index.in_order((*batch, *new))
    clipped = index.derived(("clipped", last, *batch, *new), lambda _: tf.clip_by_value(own, 0, last))
    picked = tf.gather(x.in_order((*batch, over, *rest)), clipped, axis=len(batch), batch_dims=len(batch))
    return Tensor(picked, (*batch, *new, *rest), finite=x.finite)


def _flattened(c: Context, x: Tensor, order: tuple[Dim, ...], leading: int) -> tuple[tf.Tensor, Size]:
    """x with its first axes merged into rows, and their number; behind a dynamic axis a row of zeros is added."""
    raw = x.in_order(order)
    dynamic = any(d.size is None for d in order[:leading])

    def flatten(_: tf.Tensor) -> tf.Tensor:
        shape = own_shape(raw)
        rows = tf.reshape(raw, [multiplied(shape[:leading]), *shape[leading:]])
        return tf.concat([rows, tf.zeros([1, *shape[leading:]], rows.dtype)], 0) if dynamic else rows

    flat = x.derived(("rows", order, leading), flatten)
    return flat, tf.shape(flat)[0] - 1 if dynamic else 0


def _row_numbers(c: Context, index: Tensor, over: Dim, leading: list[Dim], layout: tuple[Dim, ...]) -> tf.Tensor:
    """The row of each picked frame among the merged leading axes."""
    rows: tf.Tensor | None = None
    stride: Size = 1
    for dim in reversed(leading):
        if dim is over:
            size = c.size(dim)
            own = index if dim.size is None else index.with_raw(tf.clip_by_value(index.raw, 0, dim.size - 1))
        else:
            size = c.size(dim)
            own = Tensor(tf.range(size), (dim,))
        part = tf.cast(own.aligned(layout), tf.int32) * stride
        rows = part if rows is None else rows + part
        stride = stride * size
    assert rows is not None
    return rows


def take_frames(
    c: Context, x: Tensor, over: Dim, index: Tensor, fill: Tensor | float | int | bool, until: Tensor | None = None
) -> Tensor:
    """x at `index` along `over`, and `fill` where that is before the first or after the last frame of the sequence.

    `until` replaces the lengths of `over`. x may lack `over`: it is the same at every frame then.
    """
    lengths = until if until is not None else c.sizes.lengths(over)
    raws, dims = aligned([index, lengths])
    inside = Tensor(tf.logical_and(raws[0] >= 0, raws[0] < raws[1]), dims)
    picked = take(c, x, over, index) if over in x.dims else x
    other = fill if isinstance(fill, Tensor) else Tensor(tf.cast(fill, x.dtype), ())
    raws, dims = aligned([inside, picked, other])
    return Tensor(tf.where(*raws), dims, finite=x.finite and other.finite)


def frame_numbers(c: Context, dim: Dim) -> Tensor:
    """0, 1, 2, ... along a dim."""
    return Tensor(tf.range(c.size(dim)), (dim,))


def flat_batch(c: Context, x: Tensor, batch: tuple[Dim, ...], last: tuple[Dim, ...]) -> tf.Tensor:
    """The raw tensor as [all of `batch` merged, *last]; x is repeated along the batch dims that it lacks."""
    raw = broadcast(c.sizes, x, (*batch, *last)).raw
    if len(batch) == 1:
        return raw
    shape = [c.size(dim) for dim in last]
    return tf.reshape(raw, [multiplied(c.shape(batch)), *shape])


def unflat_batch(c: Context, raw: tf.Tensor, batch: tuple[Dim, ...], last: tuple[Dim, ...]) -> Tensor:
    """Undoes `flat_batch`."""
    if len(batch) != 1:
        raw = tf.reshape(raw, [*c.shape(batch), *c.shape(last)])
    return Tensor(raw, (*batch, *last))
