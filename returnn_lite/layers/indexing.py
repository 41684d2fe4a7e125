"""Layers that pick or place frames: slice, gather, scatter, split, mask."""

from __future__ import annotations

import math
from typing import Literal

from returnn_lite.config.options import AxisSpec, DimSpec, LayerRef, option
from returnn_lite.dims import Dim, DimKind
from returnn_lite.dims.axes import visible_dims
from returnn_lite.ir.ops.indexing import Scatter, SearchSorted, Slice, SliceAt
from returnn_lite.ir.ops.masks import Compress
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder, Outputs
from returnn_lite.layers.constants import as_dim, renamed


class SliceLayer(Layer, names=("slice",)):
    """x[slice_start:slice_end:slice_step] along an axis, as Python slices each sequence by itself.

    RETURNN makes a dynamic axis static where slice_end is not negative; here each sequence keeps its own length.
    """

    joins_sources = True

    axis: AxisSpec = option("the axis")
    slice_start: int | None = option("first frame", default=None, least=0)
    slice_end: int | None = option("the frame after the last; negative: counted from the end", default=None)
    slice_step: int | None = option("frames from one to the next; negative: backwards from the end", default=None)
    out_dim: DimSpec | None = option("what the axis becomes (a Dim)", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        dim = b.axis(self.axis, x)
        start, step = self.slice_start or 0, self.slice_step or 1
        if self.slice_step == 0:
            b.fail("the step of a slice can't be 0", option="slice_step")
        if dim.size is not None:
            return self._static(b, x, dim, dim.size)
        y, made = self._dynamic(b, x, dim, start, step)
        return renamed(b, y, made, self.out_dim, "out_dim")

    def _dynamic(self, b: LayerBuilder, x: View, dim: Dim, start: int, step: int) -> tuple[View, Dim]:
        """The slice of each sequence, and its dim."""
        end = self.slice_end
        if step < 0:
            if self.slice_start is not None or end is not None:
                b.fail(
                    "a slice of a dynamic axis goes backwards only over all of it",
                    "leave out start and end",
                    "slice_step",
                )
            out = dim.ceildiv(-step)
            return b.slice(x, dim, 0, out, step), out
        if end is not None and end >= 0:
            left = b.binary("minimum", b.length(dim), end)
            size = b.binary("maximum", b.sub(left, start), 0)
            whole = b.new_dim("slice", over=dim.over)
            x = b.apply(SliceAt(dim, whole), x, b.constant(start, "int32"), size)
            out = whole.ceildiv(step)
            return (b.slice(x, whole, 0, out, step) if step > 1 else x), out
        out = (dim - (start - (end or 0))).ceildiv(step)
        return b.slice(x, dim, start, out, step), out

    def _static(self, b: LayerBuilder, x: View, dim: Dim, size: int) -> View:
        """A static axis, whose frames are all known."""
        step = self.slice_step or 1
        frames = range(size)[self.slice_start : self.slice_end : step]
        kind = DimKind.FEATURE if dim is x.type.feature else DimKind.SPATIAL
        out = as_dim(b, self.out_dim if self.out_dim is not None else len(frames), "slice", kind)
        if out.size != len(frames):
            b.fail(f"the slice has {len(frames)} frames, not those of {out}", option="out_dim")
        first = size - 1 - frames.start if step < 0 and frames else frames.start
        return b.apply(Slice(dim, out, first if frames else 0, step), x)


class SliceNd(Layer, names=("slice_nd",)):
    """A window of each sequence that begins at its own frame; zero behind the end of the sequence."""

    joins_sources = True

    size: int | LayerRef | DimSpec | None = option("frames of the window; null: up to the end of the sequence")
    start: LayerRef | int | None = option("first frame; default 0", default=None)
    min_size: int | None = option("the least length if the size is not fixed", default=None)
    axis: AxisSpec = option("the axis", default="T")
    out_spatial_dim: DimSpec | None = option("what the axis becomes (a Dim)", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        dim = b.axis(self.axis, x)
        start = b.layer(self.start) if isinstance(self.start, str) else b.constant(self.start or 0, "int32")
        given = self.out_spatial_dim if self.out_spatial_dim is not None else self.size
        if not isinstance(given, Dim | int):
            given = None
        static = given.size if isinstance(given, Dim) else given
        if static is not None:
            self._check_static(b, static)
            return self._timed(b, b.apply(SliceAt(dim, as_dim(b, given, "slice")), x, start), x, dim, start)
        size = b.layer(self.size) if isinstance(self.size, str) else b.sub(b.length(dim), start)
        size = b.binary("maximum", size, self.min_size or 0)
        out = b.new_dim_of_step("slice", size.type.dims, given if isinstance(given, Dim) else None)
        y = renamed(b, b.apply(SliceAt(dim, out), x, start, size), out, given, "out_spatial_dim")
        return self._timed(b, y, x, dim, start)

    def _timed(self, b: LayerBuilder, y: View, x: View, dim: Dim, start: View) -> View:
        """The windows with the time of their starts: there is one for each of its frames, as with gather."""
        time = start.type.default_time
        if time is None or x.type.default_time not in (None, dim):
            return y
        return b.with_time(y, time)

    def _check_static(self, b: LayerBuilder, static: int) -> None:
        size = self.size.size if isinstance(self.size, Dim) else self.size
        if size != static:
            b.fail(f"the size is {self.size}, but the axis has {static} frames", option="out_spatial_dim")
        if self.min_size is not None and self.min_size > static:
            b.fail(f"the size is always {static}", "leave it out", "min_size")


class GatherLayer(Layer, names=("gather",)):
    """The frames of an axis at given positions. Dims that the source and the positions share are gone through
    together."""

    joins_sources = True

    position: LayerRef | int = option("the positions, from 0")
    axis: AxisSpec = option("the axis")
    clip_to_valid: bool = option("whether a position out of range means the nearest frame", default=False)

    def build(self, b: LayerBuilder, x: View) -> View:
        over = b.axis(self.axis, x)
        if isinstance(self.position, str):
            return b.gather(x, b.layer(self.position), over, self.clip_to_valid)
        if not self.clip_to_valid and not 0 <= self.position < (math.inf if over.size is None else over.size):
            counted = "positions count from 0" if self.position < 0 else f"{over} has {over.size}"
            b.fail(f"there is no position {self.position}: {counted}", "Set clip_to_valid for the nearest.", "position")
        return b.gather(x, b.constant(self.position, "int32"), over, self.clip_to_valid)


class GatherNd(Layer, names=("gather_nd",)):
    """The frames at given positions of the first axis that is not the batch."""

    joins_sources = True

    position: LayerRef = option("the positions, from 0")

    def build(self, b: LayerBuilder, x: View) -> View:
        axes = [dim for dim in visible_dims(x.type) if dim.kind is not DimKind.BATCH]
        if not axes:
            b.fail(f"'{x.name}' has only a batch dim: {x.type}")
        return b.gather(x, b.layer(self.position), axes[0])


class ScatterNd(Layer, names=("scatter_nd",)):
    """Frames added up at given positions of a new axis; elsewhere 0."""

    joins_sources = True

    position: LayerRef = option("the position of each frame, from 0")
    position_axis: AxisSpec = option("the axis of the positions that the frames are taken along")
    output_dim_via_time_from: LayerRef | None = option("a layer whose time axis is the new axis", default=None)
    out_spatial_dim: DimSpec | None = option("the new axis (a Dim, or a size)", default=None)
    filter_invalid_indices: bool = option("whether positions out of range are left out", default=False)

    def build(self, b: LayerBuilder, x: View) -> View:
        if (self.output_dim_via_time_from is None) == (self.out_spatial_dim is None):
            b.fail("scatter_nd needs one of output_dim_via_time_from and out_spatial_dim", option="out_spatial_dim")
        position = b.layer(self.position)
        over = b.axis(self.position_axis, position)
        if self.output_dim_via_time_from is not None:
            out = b.axis("T", b.layer(self.output_dim_via_time_from))
        else:
            out = as_dim(b, self.out_spatial_dim, "scatter")
        y = b.apply(Scatter((over,), out, self.filter_invalid_indices), x, position)
        time = position.type.default_time
        time = out if time is over else y.type.time or time
        return b.with_time(y, time)


class SplitLayer(Layer, names=("split",)):
    """Consecutive pieces of an axis: the parts 0, 1, ...; the layer itself is its source."""

    joins_sources = True

    axis: AxisSpec | None = option("the axis; default the feature axis", default=None)
    num_splits: int | None = option("number of pieces of equal size", default=None, least=1)
    size_splits: list[int] | None = option("the sizes of the pieces", default=None)
    out_dims: tuple[DimSpec, ...] | None = option("the dims of the pieces (Dims)", default=None)

    def build(self, b: LayerBuilder, x: View) -> Outputs:
        dim = b.axis("F" if self.axis is None else self.axis, x)
        sizes = self._sizes(b, dim)
        kind = DimKind.FEATURE if dim is x.type.feature else DimKind.SPATIAL
        outs = [as_dim(b, size, f"split{i}", kind) for i, size in enumerate(self.out_dims or sizes)]
        if [out.size for out in outs] != sizes:
            b.fail(f"the pieces have sizes {sizes}, not those of {', '.join(map(str, outs))}", option="out_dims")
        return Outputs(x, {str(i): piece for i, piece in enumerate(b.split(x, dim, outs))})

    def _sizes(self, b: LayerBuilder, dim: Dim) -> list[int]:
        if dim.size is None:
            b.fail(f"{dim} has no static size to split", option="axis")
        if self.size_splits is not None:
            if self.num_splits not in (None, len(self.size_splits)):
                b.fail(f"size_splits has {len(self.size_splits)} pieces", "leave it out", "num_splits")
            if sum(self.size_splits) != dim.size:
                b.fail(f"the sizes sum up to {sum(self.size_splits)}, but the axis is {dim}", option="size_splits")
            return list(self.size_splits)
        pieces = self.num_splits or len(self.out_dims or ())
        if not pieces or dim.size % pieces:
            b.fail(f"{dim} can't be split into {pieces} equal pieces", "give size_splits", "num_splits")
        return [dim.size // pieces] * pieces


class BooleanMask(Layer, names=("boolean_mask",)):
    """The frames of an axis at which a mask is true."""

    joins_sources = True

    mask: LayerRef = option("the mask, bool")
    dims: AxisSpec = option("the axis of the mask")
    out_dim: DimSpec | None = option("what the axis becomes (a Dim)", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        mask = b.layer(self.mask)
        over = b.axes(self.dims, mask)
        if len(over) != 1:
            b.fail("boolean_mask goes over one axis", "merge the axes first", "dims")
        rest = tuple(dim for dim in mask.type.dims if dim is not over[0])
        out = b.new_dim("masked", over=rest)
        return renamed(b, b.apply(Compress(over[0], out), x, mask), out, self.out_dim, "out_dim")


class SearchSortedLayer(Layer, names=("search_sorted",)):
    """Where values would be inserted into a sorted sequence."""

    source_count = (0, 0)

    sorted_sequence: LayerRef = option("the sorted sequence")
    values: LayerRef = option("the values")
    axis: AxisSpec = option("the axis of the sorted sequence", default="T")
    side: Literal["left", "right"] = option("before or behind equal ones", default="left")

    def build(self, b: LayerBuilder) -> View:
        sequence = b.layer(self.sorted_sequence)
        return b.apply(SearchSorted(b.axis(self.axis, sequence), self.side), sequence, b.layer(self.values))


LAYERS = (SliceLayer, SliceNd, GatherLayer, GatherNd, ScatterNd, SplitLayer, BooleanMask, SearchSortedLayer)
