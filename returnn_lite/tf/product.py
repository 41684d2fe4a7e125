"""Products of tensors with named dims as matrix products, with as few transpositions as the layouts allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.tf.context import Context
from returnn_lite.tf.layout import Tensor, aligned
from returnn_lite.tf.mask import dims_with, masked
from returnn_lite.tf.sizes import Size, Sizes


def dot_masked(c: Context, a: Tensor, b: Tensor, over: tuple[Dim, ...]) -> Tensor:
    """The sum over `over` of a times b; frames beyond the length of a ragged dim count as zero."""
    if c.taps is not None and c.node is not None:
        tapped = c.taps.product(c.sizes, c.node, a, b, over)
        if tapped is not None:
            return tapped
    a, b = without_padding(c.sizes, a, b, over)
    return dot(c.sizes, a, b, over, c.last_dim())


def without_padding(sizes: Sizes, a: Tensor, b: Tensor, over: tuple[Dim, ...]) -> tuple[Tensor, Tensor]:
    """Both operands, masked as far as needed: zero times a number is zero, but zero times infinity is not."""
    for dim in dict.fromkeys((*dims_with(sizes, a, over), *dims_with(sizes, b, over))):
        if not sizes.has_padding(dim):
            continue
        varies = set(sizes.lengths(dim).dims)
        if dim not in a.zero_beyond and dim not in b.zero_beyond:
            if varies <= set(a.dims) and (len(a.dims) <= len(b.dims) or not varies <= set(b.dims)):
                a = masked(sizes, a, [dim])
            else:
                b = masked(sizes, b, [dim])
        if not a.finite and varies <= set(a.dims):
            a = masked(sizes, a, [dim])
        if not b.finite and varies <= set(b.dims):
            b = masked(sizes, b, [dim])
    return a, b


@dataclass(frozen=True)
class Roles:
    """The dims of a product: shared by both and kept, summed, and those of one operand alone."""

    batch: tuple[Dim, ...]
    over: tuple[Dim, ...]
    left: tuple[Dim, ...]
    right: tuple[Dim, ...]


def dot(sizes: Sizes, a: Tensor, b: Tensor, over: Sequence[Dim], last: Dim | None = None) -> Tensor:
    """The sum over `over` of a times b, padding included.

    The result has the dims of the larger operand first, or those of the operand that has `last`, last.
    """
    if _weight(b) > _weight(a):
        a, b = b, a
    if _is_vector(b, a) and sizes.is_outermost(a) and a.raw.graph is not tf.compat.v1.get_default_graph():
        a, b = b, a  # in a loop a row times a matrix, transposed before, is faster than a matrix times a column
    if last in a.dims and last not in b.dims and any(dim not in a.dims for dim in b.dims):
        a, b = b, a
    roles = Roles(
        tuple(d for d in a.dims if d in b.dims and d not in over),
        tuple(d for d in a.dims if d in over),
        tuple(d for d in a.dims if d not in b.dims),
        tuple(d for d in b.dims if d not in a.dims),
    )
    zero = (a.zero_beyond | b.zero_beyond) - set(over) if a.finite and b.finite else frozenset()
    finite = a.finite and b.finite
    if not roles.over or (not roles.left and not roles.right):
        raws, dims = aligned([a, b])
        raw = raws[0] * raws[1]
        if roles.over:
            raw = tf.reduce_sum(raw, [dims.index(d) for d in roles.over])
        return Tensor(raw, tuple(d for d in dims if d not in roles.over), zero, finite)
    left, transpose_a = _matrix(sizes, a, roles.batch, roles.left, roles.over)
    right, transpose_b = _matrix(sizes, b, roles.batch, roles.over, roles.right)
    raw = tf.matmul(left, right, transpose_a=transpose_a, transpose_b=transpose_b)
    layout = (*roles.batch, *roles.left, *roles.right)
    if len(roles.left) == 1 and not roles.right:
        raw = tf.squeeze(raw, -1)
    elif not roles.left and len(roles.right) == 1:
        raw = tf.squeeze(raw, -2)
    elif not len(roles.left) == len(roles.right) == 1:
        raw = reshaped(raw, sizes.shape(layout))
    return Tensor(raw, layout, zero & set(layout), finite)


def _is_vector(b: Tensor, a: Tensor) -> bool:
    """Whether b has no dim of its own, and both share batch dims: for each of the batch a vector and a matrix."""
    return set(b.dims) < set(a.dims)


def _weight(x: Tensor) -> int:
    """Data before parameters: dynamic dims count most."""
    return sum(100 if dim.is_dynamic else 1 for dim in x.dims)


def _matrix(
    sizes: Sizes, x: Tensor, batch: tuple[Dim, ...], rows: tuple[Dim, ...], columns: tuple[Dim, ...]
) -> tuple[tf.Tensor, bool]:
    """x as [*batch, rows, columns], or, and True, as [*batch, columns, rows] if its layout is so already."""
    swapped = (*batch, *columns, *rows)
    is_swapped = x.dims == swapped and x.dims != (*batch, *rows, *columns)
    if is_swapped and sizes.is_outermost(x) and x.raw.graph is not tf.compat.v1.get_default_graph():
        is_swapped = False  # transposed once before the loop it is a faster factor in each step
    order = swapped if is_swapped else (*batch, *rows, *columns)
    raw = x.in_order(order)
    first, second = (columns, rows) if is_swapped else (rows, columns)
    if len(first) == 1 and len(second) == 1:
        return raw, is_swapped
    key = ("matrix", order, len(batch), len(first))
    return x.derived(key, lambda _: _merge_axes(raw, len(batch), len(first))), is_swapped


def _merge_axes(raw: tf.Tensor, batch: int, rows: int) -> tf.Tensor:
    """The axes behind the first `batch` as two: the next `rows` merged, and the rest merged."""
    split, rank = batch + rows, raw.shape.rank
    if rows == 0 and rank == split + 1:
        return tf.expand_dims(raw, batch)
    if rows == 1 and rank == split:
        return tf.expand_dims(raw, -1)
    parts = [raw.shape[i : i + 1] for i in range(batch)] + [raw.shape[batch:split], raw.shape[split:]]
    if sum(not part.is_fully_defined() for part in parts) < 2:
        return tf.reshape(raw, [part.num_elements() if part.is_fully_defined() else -1 for part in parts])
    shape = own_shape(raw)
    return tf.reshape(raw, [*shape[:batch], multiplied(shape[batch:split]), multiplied(shape[split:])])


def reshaped(raw: tf.Tensor, shape: Sequence[Size]) -> tf.Tensor:
    """`tf.reshape` that leaves one size for TensorFlow to find, if it is the only one that is not static."""
    dynamic = [i for i, size in enumerate(shape) if not isinstance(size, int)]
    if len(dynamic) != 1 or any(isinstance(size, int) and size == 0 for size in shape):
        return tf.reshape(raw, shape)
    return tf.reshape(raw, [-1 if i == dynamic[0] else size for i, size in enumerate(shape)])


def own_shape(raw: tf.Tensor) -> list[Size]:
    """The sizes of the axes, static where they are known."""
    return [tf.shape(raw)[i] if size is None else size for i, size in enumerate(raw.shape)]


def multiplied(sizes: Sequence[Size]) -> Size:
    """The product of sizes, static if all are."""
    total: Size = 1
    for size in sizes:
        total = total * size
    return total
