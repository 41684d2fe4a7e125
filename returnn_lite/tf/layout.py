"""Tensors with named axes. The IR's dims are unordered; here each tensor has a layout, and operations align them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import tensorflow as tf

from returnn_lite.dims import Dim, DimKind


@dataclass(frozen=True, eq=False)
class Tensor:
    """A TensorFlow tensor whose axes are named by `dims`, in this order.

    `zero_beyond` has the dims along which every frame beyond a sequence's length is known to be 0, now and in
    the gradient: whoever sums over them need not mask again. `finite` says that padding holds numbers at all: neither
    NaN nor infinity, so that 0 times padding is 0.
    """

    raw: tf.Tensor
    dims: tuple[Dim, ...]
    zero_beyond: frozenset[Dim] = frozenset()
    finite: bool = True
    _derived: dict[Hashable, tf.Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.raw.shape.rank is not None and self.raw.shape.rank != len(self.dims):
            raise ValueError(f"{self.raw} has {self.raw.shape.rank} axes, but dims {self.dims}")

    @property
    def dtype(self) -> tf.DType:
        return self.raw.dtype

    def axis(self, dim: Dim) -> int:
        """The position of a dim."""
        return self.dims.index(dim)

    def derived(self, key: Hashable, make: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        """`make(raw)`, made once a key, in the graph that `raw` belongs to.

        So what a loop's body does to the layout of a value from outside is done once, before the loop.
        """
        if key not in self._derived:
            with self.raw.graph.as_default():
                self._derived[key] = make(self.raw)
        return self._derived[key]

    def derived_parts(self, key: Hashable, make: Callable[[tf.Tensor], Sequence[tf.Tensor]], index: int) -> tf.Tensor:
        """One of the tensors that `make(raw)` gives, made once as `derived` does."""
        if (key, index) not in self._derived:
            with self.raw.graph.as_default():
                self._derived.update({(key, i): part for i, part in enumerate(make(self.raw))})
        return self._derived[key, index]

    def in_order(self, dims: Sequence[Dim]) -> tf.Tensor:
        """The raw tensor with its axes in the order of `dims`, a permutation of its own."""
        dims = tuple(dims)
        if dims == self.dims:
            return self.raw
        permutation = [self.axis(dim) for dim in dims]
        assert len(permutation) == len(self.dims), (dims, self.dims)
        return self.derived(("order", dims), lambda raw: tf.transpose(raw, permutation))

    def laid_out(self, dims: Sequence[Dim]) -> Tensor:
        """The same tensor with its axes in the order of `dims`."""
        return (
            self if tuple(dims) == self.dims else replace(self, raw=self.in_order(dims), dims=tuple(dims), _derived={})
        )

    def aligned(self, dims: Sequence[Dim]) -> tf.Tensor:
        """The raw tensor, to be broadcast against the layout `dims`: axes in that order, 1 where it lacks one."""
        own = tuple(dim for dim in dims if dim in self.dims)
        raw = self.in_order(own)
        first = next((i for i, dim in enumerate(dims) if dim in self.dims), len(dims))
        missing = [i for i, dim in enumerate(dims) if dim not in self.dims and i > first]
        if not missing:
            return raw
        shift = tuple(i - first for i in missing)

        def expand(_: tf.Tensor) -> tf.Tensor:
            expanded = raw
            for axis in shift:
                expanded = tf.expand_dims(expanded, axis)
            return expanded

        return self.derived(("aligned", own, shift), expand)

    def repeated(self, dims: Sequence[Dim], shape: Sequence[int | tf.Tensor]) -> tf.Tensor:
        """The raw tensor in the layout `dims`, repeated to that shape along those that it lacks."""
        if _runs(dims, [self]) <= MOST_RUNS:
            return tf.broadcast_to(self.aligned(dims), shape)
        order = sorted(range(len(dims)), key=lambda i: dims[i] not in self.dims)
        raw = tf.broadcast_to(self.aligned([dims[i] for i in order]), [shape[i] for i in order])
        return tf.transpose(raw, [order.index(i) for i in range(len(dims))])

    def rename(self, mapping: Mapping[Dim, Dim]) -> Tensor:
        """The same tensor with other names for some dims."""
        dims = tuple(mapping.get(dim, dim) for dim in self.dims)
        zero = frozenset(mapping.get(dim, dim) for dim in self.zero_beyond)
        return replace(self, dims=dims, zero_beyond=zero, _derived={})

    def with_raw(self, raw: tf.Tensor) -> Tensor:
        """Other numbers in the same layout, of whose padding nothing is known but that it is as finite."""
        return Tensor(raw, self.dims, finite=self.finite)


def common_layout(tensors: Iterable[Tensor]) -> tuple[Dim, ...]:
    """A layout with the dims of all tensors: that of the largest, the others' dims beside their neighbours."""
    return merged_dims(sorted((tensor.dims for tensor in tensors), key=lambda dims: -len(dims)))


def merged_dims(layouts: Sequence[Sequence[Dim]]) -> tuple[Dim, ...]:
    """The first layout with the dims of the others inserted behind the neighbour that precedes them there."""
    merged = list(layouts[0]) if layouts else []
    for dims in layouts[1:]:
        for i, dim in enumerate(dims):
            if dim in merged:
                continue
            following = next((d for d in dims[i + 1 :] if d in merged), None)
            if i and (following is None or dims[i - 1] in merged):
                merged.insert(merged.index(dims[i - 1]) + 1, dim)
            elif following is not None:
                merged.insert(merged.index(following), dim)
            else:
                merged.append(dim)
    return tuple(merged)


def aligned(tensors: Sequence[Tensor]) -> tuple[list[tf.Tensor], tuple[Dim, ...]]:
    """The raw tensors made broadcastable, and the layout of the result."""
    dims = common_layout(tensors)
    if _runs(dims, tensors) > MOST_RUNS:
        dims = tuple(sorted(dims, key=lambda dim: [dim not in tensor.dims for tensor in tensors]))
    return [tensor.aligned(dims) for tensor in tensors], dims


MOST_RUNS = 5
"""TensorFlow's kernels broadcast over so many axes, where neighbours that the same operands have count as one."""


def _runs(dims: Sequence[Dim], tensors: Sequence[Tensor]) -> int:
    """How many axes of a layout there are if those are merged that the same of the tensors have."""
    return len(dims) if len(dims) <= MOST_RUNS else len(list(groupby(dims, lambda d: [d in t.dims for t in tensors])))


def working_order(dims: Iterable[Dim]) -> tuple[Dim, ...]:
    """The layout for new tensors: dynamic dims first (loops slice the leading axis), then batch, beam, static dims."""

    def key(dim: Dim) -> int:
        if dim.kind is DimKind.BATCH:
            return 1
        if dim.kind is DimKind.BEAM:
            return 2
        return 0 if dim.is_dynamic else 3

    return tuple(sorted(dims, key=key))


def body_order(dims: Iterable[Dim]) -> tuple[Dim, ...]:
    """The layout in a loop's body: batch and beam first, as products of a batch want it, then dynamic, then static."""

    def key(dim: Dim) -> int:
        if dim.kind is DimKind.BATCH:
            return 0
        if dim.kind is DimKind.BEAM:
            return 1
        return 2 if dim.is_dynamic else 3

    return tuple(sorted(dims, key=key))


def move_last(tensor: Tensor, *dims: Dim) -> Tensor:
    """The tensor with the given dims as its last axes, in this order."""
    return tensor.laid_out((*(d for d in tensor.dims if d not in dims), *dims))


def move_first(tensor: Tensor, *dims: Dim) -> Tensor:
    """The tensor with the given dims as its first axes, in this order."""
    return tensor.laid_out((*dims, *(d for d in tensor.dims if d not in dims)))
