"""Layers that number the frames of an axis, or go by their numbers: ranges, masks; and axes of computed lengths."""

from __future__ import annotations

import math

from returnn_lite.config.options import AxisSpec, DimSpec, LayerRef, option
from returnn_lite.dims import Dim
from returnn_lite.ir.ops.axes import MaskFrames
from returnn_lite.ir.ops.indexing import SliceAt
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder
from returnn_lite.layers.constants import as_dim, renamed
from returnn_lite.layers.pointwise import checked_dtype


def dim_of_length(b: LayerBuilder, length: View, suffix: str, dim: Dim | None = None) -> tuple[Dim, View]:
    """A new dynamic dim that has these lengths (int), and zeros (float32) along it."""
    out = b.new_dim_of_step(suffix, length.type.dims, dim)
    one = b.new_dim("one", 1)
    zero = b.constant(0.0, "float32", (*length.type.dims, one))
    return out, b.apply(SliceAt(one, out), zero, b.constant(0, "int32"), length)


def positions_of_length(b: LayerBuilder, length: View, suffix: str, dim: Dim | None = None) -> tuple[Dim, View]:
    """A new dynamic dim that has these lengths, and 0, 1, 2, ... (int32) along it, computed from what makes the dim."""
    out, zeros = dim_of_length(b, length, suffix, dim)
    return out, b.add(b.cast(zeros, "int32"), b.iota(out))


class RangeInAxis(Layer, names=("range_in_axis",)):
    """0, 1, 2, ... along an axis of the source, which is its only dim unless `unbroadcast`."""

    source_count = (1, 1)

    axis: AxisSpec = option("the axis")
    dtype: str = option("dtype of the result", default="int32")
    unbroadcast: bool = option("whether the other dims are filled up", default=False)
    keepdims: bool = option(
        "whether the other dims stay, of size 1",
        default=False,
        unsupported="leave it out: dims broadcast by themselves",
    )
    sparse: bool = option("whether the numbers are class indices of the axis", default=False)

    def build(self, b: LayerBuilder, x: View) -> View:
        over = b.axis(self.axis, x)
        result = b.iota(over, index_dtype(b, self.dtype, self.sparse))
        if self.unbroadcast:
            result = b.expand(result, *x.type.dims)
        return b.as_index(result, over if self.sparse else None)


def index_dtype(b: LayerBuilder, name: str, sparse: bool) -> str:
    """The dtype of counted numbers; class indices are ints."""
    dtype = checked_dtype(b, name)
    if dtype == "bool" or (sparse and dtype.startswith("float")):
        b.fail(f"{'class indices' if sparse else 'numbers'} can't be {dtype}", "use int32", "dtype")
    return dtype


class Range(Layer, names=("range",)):
    """start, start + delta, ... below a limit, along a new static axis."""

    source_count = (0, 0)

    limit: int | float = option("the limit, not reached")
    start: int | float = option("the first number", default=0)
    delta: int | float = option("from one number to the next", default=1)
    dtype: str | None = option("default int32 for ints, else float32", default=None)
    sparse: bool = option("whether the numbers are class indices", default=False)
    out_spatial_dim: DimSpec | None = option("the new axis (a Dim)", default=None)

    def build(self, b: LayerBuilder) -> View:
        if self.delta == 0:
            b.fail("delta can't be 0", option="delta")
        size = max(math.ceil((self.limit - self.start) / self.delta), 0)
        out = as_dim(b, self.out_spatial_dim if self.out_spatial_dim is not None else size, "range")
        if out.size != size:
            b.fail(f"the range has {size} numbers, not those of {out}", option="out_spatial_dim")
        ints = all(isinstance(number, int) for number in (self.limit, self.start, self.delta))
        dtype = index_dtype(b, self.dtype or ("int32" if ints else "float32"), self.sparse)
        numbers = b.add(b.mul(b.iota(out, dtype), self.delta), self.start)
        return b.as_index(b.cast(numbers, dtype), out if self.sparse else None)


class RangeFromLength(Layer, names=("range_from_length",)):
    """0, 1, 2, ... for each sequence, along a new axis whose lengths are the source."""

    source_count = (1, 1)

    dtype: str = option("dtype of the result", default="int32")
    sparse: bool = option("whether the numbers are class indices of the axis", default=False)
    out_spatial_dim: DimSpec | None = option("the new axis (a Dim)", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        given = self.out_spatial_dim
        if given is not None and not (isinstance(given, Dim) and given.size is None):
            b.fail(f"the new axis is dynamic, so it can't be {given}", "give a dynamic Dim", "out_spatial_dim")
        made, positions = positions_of_length(b, x, "range", given)
        out = made if given is None else given
        numbers = b.cast(renamed(b, positions, made, given, "out_spatial_dim"), index_dtype(b, self.dtype, self.sparse))
        return b.marked(b.as_index(numbers, out if self.sparse else None), None, out)


class SeqLenMask(Layer, names=("seq_len_mask",)):
    """The source with a number beyond the lengths of the sequences, or outside of a window of each."""

    joins_sources = True
    keeps_type_of = "from"
    keeps_dims = True

    mask_value: float = option("the number")
    axis: AxisSpec = option("the axis of the frames", default="T")
    seq_len_source: LayerRef | None = option("the lengths; default those of the source", default=None)
    start: LayerRef | None = option("first frame that counts, of each sequence", default=None)
    window_start: LayerRef | None = option("first frame of the window", default=None)
    window_size: LayerRef | int | None = option("number of frames of the window", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        if (self.window_start is None) != (self.window_size is None):
            b.fail("window_start and window_size belong together", option="window_size")
        over = b.axis(self.axis, x)
        index = b.iota(over)
        if self.seq_len_source is not None:
            x = b.select(b.binary("less", index, b.layer(self.seq_len_source)), x, float(self.mask_value))
        if self.start is not None:
            x = b.select(b.binary("greater_equal", index, b.layer(self.start)), x, float(self.mask_value))
        if self.window_start is not None and self.window_size is not None:
            offset = b.sub(index, b.layer(self.window_start))
            size = b.layer(self.window_size) if isinstance(self.window_size, str) else self.window_size
            x = b.select(b.binary("greater_equal", offset, 0), x, float(self.mask_value))
            x = b.select(b.binary("less", offset, size), x, float(self.mask_value))
        return b.apply(MaskFrames(over, float(self.mask_value)), x)


LAYERS = (RangeInAxis, Range, RangeFromLength, SeqLenMask)
