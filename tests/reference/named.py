"""Arrays with named axes, and the lengths of dims."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from returnn_lite.dims import Dim
from returnn_lite.dims.dim import Product

Array = NDArray[Any]


@dataclass(frozen=True)
class Named:
    """An array whose axes are dims."""

    array: Array
    dims: tuple[Dim, ...]

    def over(self, dims: Iterable[Dim]) -> Array:
        """The array with its axes in the order of `dims`, size 1 where it has none."""
        dims = tuple(dims)
        if dims == self.dims:
            return self.array
        known = [dim for dim in dims if dim in self.dims]
        assert set(known) == set(self.dims), (self.dims, dims)
        moved = np.transpose(self.array, [self.dims.index(dim) for dim in known])
        return moved.reshape([moved.shape[known.index(dim)] if dim in known else 1 for dim in dims])

    def full(self, dims: Iterable[Dim], lengths: Lengths) -> Array:
        """The same, repeated along what it lacks."""
        dims = tuple(dims)
        array, shape = self.over(dims), tuple(map(lengths.size, dims))
        return array if array.shape == shape else np.broadcast_to(array, shape)

    def axis(self, dim: Dim) -> int:
        """The position of a dim."""
        return self.dims.index(dim)

    @cached_property
    def largest(self) -> int:
        """Of lengths: the longest."""
        return int(self.array.max()) if self.array.size else 0


@dataclass
class Lengths:
    """For each dynamic dim its lengths, over the dims that they vary over."""

    known: dict[Dim, Named] = field(default_factory=dict)

    def of(self, dim: Dim) -> Named:
        """The lengths of a dim; those of expressions from their operands'."""
        if dim.size is not None:
            return Named(np.array(dim.size), ())
        if dim not in self.known:
            assert dim.operands(), f"nothing says the length of {dim}"
            if isinstance(dim, Product) and any(self.is_ragged(factor) for factor in dim.factors[1:]):
                # Only a ragged dim that comes first can be merged without gaps.
                return Named(np.array(math.prod(self.size(factor) for factor in dim.factors)), ())
            operands = [self.of(operand) for operand in dim.operands()]
            dims = union(operands)
            arrays = {operand: value.over(dims) for operand, value in zip(dim.operands(), operands, strict=True)}
            return Named(np.asarray(dim.length_from(arrays.__getitem__, _clipped)), dims)
        return self.known[dim]

    def knows(self, dim: Dim) -> bool:
        """True if the length of a dim is determined by now."""
        return (
            dim.size is not None or dim in self.known or (bool(dim.operands()) and all(map(self.knows, dim.operands())))
        )

    def size(self, dim: Dim) -> int:
        """The size of an axis: the longest."""
        return dim.size if dim.size is not None else self.of(dim).largest

    def mask(self, dim: Dim) -> Named:
        """True at real frames of a dim, over it and what its length varies over."""
        lengths = self.of(dim)
        frames = np.arange(self.size(dim)).reshape([-1, *[1] * lengths.array.ndim])
        return Named(frames < lengths.array, (dim, *lengths.dims))

    def is_ragged(self, dim: Dim) -> bool:
        """True if padding exists along a dim."""
        return dim.size is None and bool(self.of(dim).dims)


def _clipped(length: Array) -> Array:
    return np.maximum(length, 0)


def union(values: Iterable[Named]) -> tuple[Dim, ...]:
    """All dims of the values."""
    return tuple(dict.fromkeys(dim for value in values for dim in value.dims))


def real(value: Named, lengths: Lengths) -> Named:
    """Over all dims of a value and of its lengths that the value has: where its frames are real."""
    result = np.ones(value.array.shape, bool)
    for dim in value.dims:
        if lengths.is_ragged(dim):
            mask = lengths.mask(dim)
            if set(mask.dims) <= set(value.dims):
                result = result & mask.over(value.dims)
    return Named(result, value.dims)


def without_padding(value: Named, lengths: Lengths) -> Named:
    """Zero instead of padding; over all dims that the lengths of its dims vary over, that padding shows."""
    needed = [over for dim in value.dims if lengths.is_ragged(dim) for over in lengths.of(dim).dims]
    dims = tuple(dict.fromkeys((*needed, *value.dims)))
    full = Named(value.full(dims, lengths), dims)
    return Named(np.where(real(full, lengths).array, full.array, 0), dims)


def poisoned(value: Named, lengths: Lengths) -> Named:
    """The value with NaN, or a wild number, wherever its frames are padding."""
    if not any(map(lengths.is_ragged, value.dims)):
        return value
    wild: Any = np.nan if value.array.dtype.kind == "f" else True if value.array.dtype.kind == "b" else 99
    return Named(np.where(real(value, lengths).array, value.array, wild).astype(value.array.dtype), value.dims)


def filled(value: Named, over: Iterable[Dim], number: Any, lengths: Lengths) -> Named:
    """The value with a number beyond the lengths of some of its dims; what the lengths vary over is added if
    missing.

    Over the batch, frames that a sequence lacks do not take part either.
    """
    over = tuple(over)
    others = [dim for dim in value.dims if dim not in over and lengths.is_ragged(dim)]
    for dim in (*over, *(dim for dim in others if not set(lengths.of(dim).dims).isdisjoint(over))):
        if lengths.is_ragged(dim):
            mask = lengths.mask(dim)
            dims = union([value, mask])
            value = Named(np.where(mask.over(dims), value.over(dims), number).astype(value.array.dtype), dims)
    return value
