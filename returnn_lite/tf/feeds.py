"""What is fed as a graph's inputs: sizes are defined from it, and it is cut to its longest sequence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.ir import Origin, Value
from returnn_lite.tf.checks import Check, Checks
from returnn_lite.tf.layout import Tensor, working_order
from returnn_lite.tf.mask import masked, padded_dims
from returnn_lite.tf.sizes import Sizes


def define_sizes(sizes: Sizes, feeds: Iterable[Tensor], lengths: Mapping[Dim, tf.Tensor]) -> None:
    """Says how long dims are: as `lengths` has it, the others as the arrays are."""
    for tensor in feeds:
        for axis, dim in enumerate(tensor.dims):
            if sizes.knows(dim) or dim.operands() or dim in lengths:
                continue
            size = tf.shape(tensor.raw)[axis]
            sizes.define(dim, Tensor(size, ()), size)
    for dim, raw in lengths.items():
        sizes.define(dim, Tensor(raw, dim.over))


def trimmed(sizes: Sizes, checks: Checks, value: Value, feed: Tensor) -> Tensor:
    """An input: cut to its longest sequence, which the array has to have, with zero in its padding."""
    raw = feed.raw
    for axis, dim in enumerate(feed.dims):
        if dim.size is None:
            long_enough = _long_enough(checks, value, dim, sizes.lengths(dim), tf.shape(raw)[axis])
            with tf.control_dependencies([long_enough]):
                raw = _cut(sizes, raw, axis, dim)
    return _laid_out(sizes, Tensor(raw, feed.dims))


def made_again(sizes: Sizes, dims: tuple[Dim, ...], raw: tf.Tensor) -> Tensor:
    """What `trimmed` has made of a feed, once more."""
    for axis, dim in enumerate(dims):
        if dim.size is None:
            raw = _cut(sizes, raw, axis, dim)
    return _laid_out(sizes, Tensor(raw, dims))


def _cut(sizes: Sizes, raw: tf.Tensor, axis: int, dim: Dim) -> tf.Tensor:
    return raw[(slice(None),) * axis + (slice(0, sizes.size(dim)),)]


def _laid_out(sizes: Sizes, cut: Tensor) -> Tensor:
    """In the layout that layers work in, zero beyond the ends of sequences."""
    tensor = cut.laid_out(working_order(cut.dims))
    return masked(sizes, tensor, padded_dims(sizes, tensor))


def _long_enough(checks: Checks, value: Value, dim: Dim, lengths: Tensor, size: tf.Tensor) -> tf.Operation:
    what = f"{value.name}: the array is shorter along {dim} than its longest sequence"
    check = Check(Origin(), what, "has {0} frames, the array {1}", "", lengths.dims)
    return checks.require(check, lengths.raw <= size, [lengths.raw, size])
