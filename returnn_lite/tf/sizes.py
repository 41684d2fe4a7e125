"""Lengths at run time: for each dynamic dim the length of every sequence, and the longest, which is the axis' size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import tensorflow as tf

from returnn_lite.dims import Dim, DimError
from returnn_lite.dims.dim import Product
from returnn_lite.tf.layout import Tensor, aligned

Size: TypeAlias = "int | tf.Tensor"
"""A Python int if it is static, else an int32 scalar."""


@dataclass(frozen=True)
class Extent:
    """The lengths of a dim, int32 over some dims, and the size of its axis.

    `exact`: no sequence is shorter than the axis, so there is no padding.
    """

    lengths: Tensor
    size: Size
    exact: bool


class Sizes:
    """The extents of dims in one scope: the whole graph, or one step of a loop, which sees those outside too.

    What is computed again is another graph, which may be `in_no_loop` itself.

    An expression over dims is computed from its operands when it is first asked for, in the graph of the innermost
    scope that one of them belongs to.
    """

    def __init__(
        self,
        parent: Sizes | None = None,
        over: Dim | None = None,
        step: tf.Tensor | None = None,
        in_no_loop: bool = False,
    ) -> None:
        self.parent = parent
        self._in_no_loop = in_no_loop or parent is None
        self._over = over
        self._step = step
        self._graph = tf.compat.v1.get_default_graph()
        self._extents: dict[Dim, Extent] = {}
        self._masks: dict[Dim, Tensor] = {}

    def inside(self, over: Dim, step: tf.Tensor) -> Sizes:
        """The scope of one step of a loop over `over`, to be made in the graph of its body."""
        return Sizes(self, over, step)

    def is_outermost(self, tensor: Tensor) -> bool:
        """Whether a tensor belongs to the graph outside of all loops."""
        if self._in_no_loop and tensor.raw.graph is self._graph:
            return True
        return self.parent is not None and self.parent.is_outermost(tensor)

    def define(self, dim: Dim, lengths: Tensor, size: Size | None = None, exact: bool | None = None) -> None:
        """Says how long a dim is; `size`, if not given, is the largest of the lengths."""
        if size is None:
            size = lengths.raw if not lengths.dims else tf.maximum(tf.reduce_max(lengths.raw), 0)
        self._extents[dim] = Extent(lengths, size, not lengths.dims if exact is None else exact)

    def knows(self, dim: Dim) -> bool:
        """Whether the length of a dim is determined by now."""
        if dim.size is not None or dim in self._extents:
            return True
        if self.parent is not None and self.parent.knows(dim):
            return True
        return bool(dim.operands()) and all(self.knows(operand) for operand in dim.operands())

    def is_local(self, dim: Dim) -> bool:
        """Whether the extent belongs to this step of a loop alone."""
        if dim in self._extents:
            return True
        if self.parent is not None and self.parent.knows(dim):
            return False
        return any(self.is_local(operand) for operand in dim.operands())

    def extent(self, dim: Dim) -> Extent:
        """Lengths and size. Raises DimError if nothing has determined them."""
        if dim not in self._extents:
            self._extents[dim] = self._find(dim)
        return self._extents[dim]

    def size(self, dim: Dim) -> Size:
        """The size of the axis of a dim: that of its longest sequence."""
        return dim.size if dim.size is not None else self.extent(dim).size

    def lengths(self, dim: Dim) -> Tensor:
        """The length of each sequence, int32."""
        return self.extent(dim).lengths

    def has_padding(self, dim: Dim) -> bool:
        """Whether an axis may have frames beyond a sequence's length."""
        return dim.size is None and not self.extent(dim).exact

    def mask(self, dim: Dim) -> Tensor:
        """True at real frames: [dim, and the dims of its lengths]."""
        if dim not in self._masks:
            if self.parent is not None and self.parent.knows(dim) and self.parent.extent(dim) is self.extent(dim):
                self._masks[dim] = self.parent.mask(dim)
            else:
                self._masks[dim] = self._frames_within(dim)
        return self._masks[dim]

    def shape(self, dims: tuple[Dim, ...]) -> list[Size]:
        """The sizes of axes, for reshaping and broadcasting."""
        return [self.size(dim) for dim in dims]

    def _frames_within(self, dim: Dim) -> Tensor:
        with self._graph.as_default():
            lengths = self.lengths(dim)
            frames = tf.reshape(tf.range(self.size(dim)), [-1] + [1] * len(lengths.dims))
            return Tensor(frames < lengths.raw, (dim, *lengths.dims))

    def _find(self, dim: Dim) -> Extent:
        if dim.size is not None:
            return Extent(Tensor(tf.constant(dim.size, tf.int32), ()), dim.size, exact=True)
        if self.parent is not None and self.parent.knows(dim):
            return self._sliced(self.parent.extent(dim))
        if not dim.operands():
            raise DimError(f"nothing determines the length of {dim} at run time")
        with self._graph.as_default():
            if isinstance(dim, Product):
                return self._product(dim)
            return self._evaluated(dim)

    def _sliced(self, outer: Extent) -> Extent:
        """The extent in one step of lengths that differ from step to step."""
        if self._over is None or self._over not in outer.lengths.dims:
            return outer
        rest = tuple(d for d in outer.lengths.dims if d is not self._over)
        lengths = outer.lengths.in_order((self._over, *rest))
        with self._graph.as_default():
            return Extent(Tensor(tf.gather(lengths, self._step), rest), outer.size, exact=False)

    def _evaluated(self, dim: Dim) -> Extent:
        def known(operand: Dim) -> TensorLength:
            return TensorLength(self.lengths(operand))

        lengths = dim.length_from(known, lambda length: length.map(lambda raw: tf.maximum(raw, 0))).tensor
        size = lengths.raw if not lengths.dims else tf.maximum(tf.reduce_max(lengths.raw), 0)
        return Extent(lengths, size, not lengths.dims)

    def _product(self, dim: Product) -> Extent:
        """One ragged factor may come first: its sequences stay contiguous. Otherwise padded sizes are multiplied."""
        first, *others = dim.factors
        if not any(self.has_padding(d) for d in others) and not set(self.lengths(first).dims) & set(dim.factors):
            return self._evaluated(dim)
        size = tf.reduce_prod(tf.stack([tf.convert_to_tensor(self.size(d)) for d in dim.factors]))
        return Extent(Tensor(size, ()), size, exact=True)


@dataclass(frozen=True)
class TensorLength:
    """A length with the arithmetic that dims ask for."""

    tensor: Tensor

    def map(self, function: Callable[[tf.Tensor], tf.Tensor]) -> TensorLength:
        return TensorLength(self.tensor.with_raw(function(self.tensor.raw)))

    def __add__(self, other: TensorLength | int) -> TensorLength:
        if isinstance(other, int):
            return self.map(lambda raw: raw + other) if other else self
        raws, dims = aligned([self.tensor, other.tensor])
        return TensorLength(Tensor(raws[0] + raws[1], dims))

    def __mul__(self, other: TensorLength | int) -> TensorLength:
        if isinstance(other, int):
            return self.map(lambda raw: raw * other) if other != 1 else self
        raws, dims = aligned([self.tensor, other.tensor])
        return TensorLength(Tensor(raws[0] * raws[1], dims))

    def __floordiv__(self, other: int) -> TensorLength:
        return self.map(lambda raw: raw // other)
