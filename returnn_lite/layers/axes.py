"""Layers that change dims but no values: split, merge, expand, squeeze, reinterpret, swap; and padding, windows,
shifts."""

from __future__ import annotations

import math
from typing import Any, Literal

from returnn_lite.config.options import AxisSpec, DimSpec, LayerRef, Unspecified, UnspecifiedType, option
from returnn_lite.dims import Dim, DimKind, Symbol, product_dim
from returnn_lite.dims.axes import visible_dims
from returnn_lite.ir.ops.axes import Pad, ShiftFrames, Squeeze, Window, WindowOfSteps
from returnn_lite.ir.views import View
from returnn_lite.layers import legacy
from returnn_lite.layers.base import Layer, LayerBuilder
from returnn_lite.layers.constants import as_dim, renamed
from returnn_lite.layers.loop_axis import axis_or_loop, for_each_sequence


class SplitDims(Layer, names=("split_dims",)):
    """Takes one axis apart into several, the first varying slowest."""

    joins_sources = True

    axis: AxisSpec = option("the axis")
    dims: list[Any] = option("the sizes; one may be -1 for the rest")
    pad_to_multiples: bool | UnspecifiedType | None = option("fills up an axis that does not divide", default=None)
    pad_value: float = option("what it is filled with", default=0.0)

    def build(self, b: LayerBuilder, x: View) -> View:
        dim = b.axis(self.axis, x)
        sizes = self._sizes(b, dim)
        kind = DimKind.FEATURE if dim is x.type.feature else DimKind.SPATIAL
        outs: list[Dim] = []
        for index, (size, given) in enumerate(zip(sizes, self.dims, strict=True)):
            if size == -1:
                outs.append(dim.ceildiv(math.prod(other for other in sizes if other != -1)))
            elif isinstance(given, Dim):
                outs.append(given)
            else:
                last = index == len(sizes) - 1
                outs.append(Symbol(f"{b.name}:split{index}", kind if last else DimKind.SPATIAL, size))
        y = b.split_dim(x, dim, outs, self.pad_value)
        for made, given in zip(outs, self.dims, strict=True):
            y = renamed(b, y, made, given if isinstance(given, Dim) else None, "dims")
        return y

    def _sizes(self, b: LayerBuilder, dim: Dim) -> list[int]:
        """The sizes; -1, or a dynamic Dim, is resolved for a static axis."""
        sizes = [_size(b, size) for size in self.dims]
        if not sizes:
            b.fail("an axis is taken apart into at least one", "Give their sizes.", "dims")
        if sizes.count(-1) > 1:
            b.fail("only one of dims may be -1", "", "dims")
        if dim.size is None:
            if -1 not in sizes or any(size != 1 for size in sizes[: sizes.index(-1)]):
                hint = f"Write dims: [-1, {', '.join(str(size) for size in sizes if size != -1)}]."
                b.fail(f"{dim} is dynamic; its first part longer than 1 must be -1", hint, "dims")
            if self.pad_to_multiples is False:
                b.fail("a dynamic axis is always filled up", "Leave pad_to_multiples out.", "pad_to_multiples")
            return sizes
        rest = math.prod(size for size in sizes if size != -1)
        if -1 in sizes:
            if dim.size % rest and not self.pad_to_multiples:
                b.fail(f"{dim} does not divide by {rest}", "Set pad_to_multiples: true to fill it up.", "dims")
            sizes[sizes.index(-1)] = -(-dim.size // rest)
        elif rest != dim.size and not (self.pad_to_multiples and rest > dim.size):
            b.fail(f"dims {self.dims} make {rest}, but the axis is {dim}", "", "dims")
        return sizes


def _size(b: LayerBuilder, size: object) -> int:
    if isinstance(size, Dim):
        return -1 if size.size is None else size.size
    if isinstance(size, int) and not isinstance(size, bool) and (size > 0 or size == -1):
        return size
    return b.fail(f"a size must be a positive int or -1, not {size!r}", "", "dims")


class MergeDims(Layer, names=("merge_dims", "combine_dims")):
    """Puts several axes together, the first varying slowest."""

    joins_sources = True

    axes: AxisSpec = option("the axes")
    keep_order: bool | UnspecifiedType = option("as listed in axes; else as the data has them", default=Unspecified)
    out_dim: DimSpec | None = option("the merged axis (a Dim, or its size)", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        dims = b.axes(self.axes, x)
        if not legacy.default(b, "merge_dims.keep_order", self.keep_order) or isinstance(self.axes, str):
            dims = tuple(dim for dim in x.type.dims if dim in dims)
        if len(dims) < 2:
            return self._of_single(b, x, dims[0]) if dims else x
        with_feature = x.type.feature in dims
        out = product_dim(dims)
        dynamic = [dim for dim in dims if dim.size is None]
        if len(dynamic) > 1:  # over their padded sizes, so that where each ends must be known
            over = (over for dim in dynamic for over in b.ir.lengths_over(dim))
            x = b.expand(x, *(dim for dim in over if dim not in dims and dim not in b.ir.loops))
        merged = b.merge_dims(x, dims, out)
        static = [dim for dim in merged.type.dims if dim.size is not None]
        has_feature = merged.type.feature is not None and merged.type.feature is not out
        # By default the feature dim is the last static one, whether or not time is declared behind it.
        if out in static and merged.type.sparse is None and not has_feature and (with_feature or out is static[-1]):
            merged = b.with_feature(merged, out)
        return renamed(b, merged, out, self.out_dim, "out_dim")

    def _of_single(self, b: LayerBuilder, x: View, dim: Dim) -> View:
        """Merging one static axis only makes it the feature axis where there is none."""
        if dim.size is not None and x.type.feature is None and x.type.sparse is None:
            x = b.with_feature(x, dim)
        return renamed(b, x, dim, self.out_dim, "out_dim")


class ExpandDims(Layer, names=("expand_dims",)):
    """Adds a static axis."""

    joins_sources = True

    axis: AxisSpec = option("what the new axis is: F or spatial (or its position)")
    dim: DimSpec = option("its size", default=1)

    def build(self, b: LayerBuilder, x: View) -> View:
        name = str(self.axis).lower() if isinstance(self.axis, str) else self.axis
        as_feature = name in ("f", "feature")
        if not (as_feature or name in ("spatial", "s") or isinstance(name, int)):
            b.fail(f"axis {self.axis!r}: the new axis can be F or spatial", "", "axis")
        kind = DimKind.FEATURE if as_feature else DimKind.SPATIAL
        new = as_dim(b, self.dim, "new", kind)
        expanded = b.expand(x, new)
        return b.with_feature(expanded, new) if as_feature else expanded


class SqueezeLayer(Layer, names=("squeeze",)):
    """Removes axes of size 1. A dynamic one must have one frame in every sequence, which is checked at run time."""

    joins_sources = True

    axis: AxisSpec = option("the axis; 'auto' for all of size 1")
    enforce_batch_dim_axis: int | None = option("position of the batch; has no meaning here", default=None)
    allow_no_op: bool = option("no error if there is nothing to remove", default=False)

    def build(self, b: LayerBuilder, x: View) -> View:
        if self.axis == "auto":
            dims = tuple(dim for dim in visible_dims(x.type) if dim.size == 1)
        else:
            dims = b.axes(self.axis, x)
        dims = tuple(dim for dim in dims if dim.size == 1 or not self.allow_no_op)
        if not dims and not self.allow_no_op:
            b.fail(f"{x.type} has no axis of size 1", "Set allow_no_op: true if that is right.", "axis")
        for dim in dims:
            if dim.is_dynamic and dim.kind is not DimKind.BATCH:
                one = b.new_dim("one", 1)
                x, dim = b.relabel(x, dim, one, f"the axis that '{b.name}' removes, and an axis of size 1"), one
            x = b.apply(Squeeze(dim), x)
        return x


class ReinterpretData(Layer, names=("reinterpret_data",)):
    """Declares what axes and values mean; no value changes."""

    joins_sources = True
    keeps_type_of = "from"

    switch_axes: str | list[str] | None = option("two axes whose meaning is exchanged", default=None)
    size_base: LayerRef | None = option("a layer whose lengths these are", default=None)
    batch_dim_base: LayerRef | None = option("a layer whose batch this is", default=None)
    set_axes: dict[str, AxisSpec | None] | None = option("what T, F and B are", default=None)
    set_dim_tags: dict[str, Any] | None = option("new Dims for axes", default=None)
    enforce_batch_major: bool = option("the order of axes has no meaning here", default=False)
    enforce_time_major: bool = option("the order of axes has no meaning here", default=False)
    set_sparse: bool | None = option("whether the values are class indices", default=None)
    set_sparse_dim: DimSpec | UnspecifiedType | None = option("the number of classes", default=Unspecified)
    increase_sparse_dim: int | None = option("classes to add", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        x = self._with_axes(b, x)
        if self.size_base is not None:
            x = self._with_lengths(b, x)
        if self.batch_dim_base is not None:
            x = self._with_batch(b, x, b.layer(self.batch_dim_base))
        return self._with_classes(b, x)

    def _with_batch(self, b: LayerBuilder, x: View, base: View) -> View:
        have, wanted = x.type.batch, base.type.batch
        if have is None or wanted is None:
            lacking = x if have is None else base
            b.fail(f"'{lacking.name}' is {lacking.type}, which has no batch", option="batch_dim_base")
        return b.relabel(x, have, wanted, f"the batch of '{b.name}' and of '{self.batch_dim_base}'")

    def _with_axes(self, b: LayerBuilder, x: View) -> View:
        feature, time = x.type.feature, x.type.time
        for key, description in (self.set_axes or {}).items():
            dim = None if description is None else b.axis(description, x)
            name = key.lower()
            if name in ("f", "feature"):
                feature = dim
            elif name in ("t", "time"):
                time = dim
            elif name not in ("b", "batch") or dim is not x.type.batch:
                b.fail(f"set_axes: {key!r} can't be set to {dim}", "T and F can be set.", "set_axes")
        if self.switch_axes:
            names = {name.lower()[:1] for name in self.switch_axes}
            if names != {"t", "f"}:
                b.fail(f"switch_axes can't be {self.switch_axes!r}", "It can be 'tf'.", "switch_axes")
            feature, time = time, feature
        for description, new in (self.set_dim_tags or {}).items():
            if not isinstance(new, Dim):
                b.fail(f"set_dim_tags needs Dim objects, not {new!r}", "", "set_dim_tags")
            old = b.axis(description, x)
            x = b.relabel(x, old, new, f"set_dim_tags of '{b.name}'")
            feature, time = (new if marker is old else marker for marker in (feature, time))
        return b.marked(x, feature, time)

    def _with_lengths(self, b: LayerBuilder, x: View) -> View:
        assert self.size_base is not None
        base = b.layer(self.size_base)
        have, want = x.type.default_time, base.type.default_time
        if have is None or want is None:
            b.fail(f"size_base needs time axes: {x.type} and {base.type}", "", "size_base")
        return b.relabel(x, have, want, f"'{b.name}' takes the lengths of '{self.size_base}'")

    def _with_classes(self, b: LayerBuilder, x: View) -> View:
        sparse = x.type.sparse
        if self.set_sparse is False:
            if self.set_sparse_dim not in (Unspecified, None):
                b.fail("set_sparse_dim needs sparse data, but set_sparse is false", "", "set_sparse_dim")
            sparse = None
        if self.set_sparse_dim is not Unspecified and self.set_sparse is not False:
            given = self.set_sparse_dim
            sparse = None if given is None else as_dim(b, given, "classes", DimKind.FEATURE, "set_sparse_dim")
        elif self.set_sparse and sparse is None:
            b.fail("set_sparse needs to know the number of classes", "Give set_sparse_dim.", "set_sparse")
        if self.increase_sparse_dim:
            if sparse is None:
                b.fail(f"there are no classes to add to: {x.type}", "", "increase_sparse_dim")
            sparse = sparse + self.increase_sparse_dim
        feature = (
            None if sparse is not None and x.type.sparse is None and x.type.dtype.startswith("int") else x.type.feature
        )
        return b.with_feature(b.as_index(x, sparse), feature)


class SwapAxes(Layer, names=("swap_axes",)):
    """Exchanges the meaning of two axes. The order of axes has no meaning here, so only the markers move."""

    joins_sources = True

    axis1: AxisSpec = option("the one")
    axis2: AxisSpec = option("the other")

    def build(self, b: LayerBuilder, x: View) -> View:
        first, second = b.axis(self.axis1, x), b.axis(self.axis2, x)
        if x.type.feature not in (first, second):
            return x
        other = second if x.type.feature is first else first
        if other.size is None:
            return x
        return b.with_feature(x, other)


class PadLayer(Layer, names=("pad",)):
    """Adds frames on both sides of axes; the right ones at each sequence's own end."""

    joins_sources = True

    axes: AxisSpec = option("the axes")
    padding: int | list[Any] = option("frames on both sides, [left, right], or such a pair for each axis")
    out_dims: DimSpec | list[DimSpec | None] | None = option("the new dims (Dims, or sizes)", default=None)
    handle_dynamic_dims: bool | UnspecifiedType | None = option(
        "the right frames come after each sequence's own end; always so here", default=None
    )
    value: float = option("what is added", default=0)
    mode: Literal["constant", "reflect", "symmetric", "replication"] = option("how it is filled", default="constant")

    def build(self, b: LayerBuilder, x: View) -> View:
        dims = b.axes(self.axes, x)
        given = [self.padding] * 2 if isinstance(self.padding, int) else self.padding
        pairs = given if given and isinstance(given[0], list | tuple) else [given] * len(dims)
        if len(pairs) != len(dims):
            b.fail(f"{len(dims)} axes, but {len(pairs)} pairs", "Give a pair for each axis.", "padding")
        given_dims = self.out_dims if isinstance(self.out_dims, list | tuple) else [self.out_dims] * len(dims)
        if len(given_dims) != len(dims):
            b.fail(f"{len(dims)} axes, but {len(given_dims)} dims", "Give one for each axis.", "out_dims")
        for dim, pair, out in zip(dims, pairs, given_dims, strict=True):
            left, right = self._sides(b, pair)
            padded = dim + (left + right)
            if left or right:
                x = b.apply(Pad(dim, padded, left, right, self.mode, float(self.value)), x)
            x = renamed(b, x, padded, out, "out_dims")
        return x

    def _sides(self, b: LayerBuilder, pair: Any) -> tuple[int, int]:
        sides = pair if isinstance(pair, list | tuple) else [pair] * 2
        sides = [side.size if isinstance(side, Dim) else side for side in sides]
        if len(sides) != 2 or not all(isinstance(side, int) and side >= 0 for side in sides):
            b.fail(f"expected the frames on the left and on the right, got {pair!r}", "Give [left, right].", "padding")
        return sides[0], sides[1]


class WindowLayer(Layer, names=("window",)):
    """Each frame with its neighbours along a new static axis; zero outside of the sequence.

    In a loop the axis is the loop's own time; with frames after it (`window_right`), the layer must be in no cycle.
    """

    joins_sources = True
    to_need_one_step = "Set window_right: 0."

    window_size: int | None = option("frames in a window", default=None)
    window_dim: DimSpec | None = option("the new axis (a Dim)", default=None)
    window_left: int | None = option("frames before; default (size - 1) // 2", default=None)
    window_right: int | None = option("frames after", default=None)
    axis: AxisSpec = option("the axis", default="T")
    out_spatial_dim: DimSpec | None = option("what the axis becomes (a Dim)", default=None)
    padding: Literal["same", "valid"] = option("'valid' leaves out windows that are not full", default="same")
    stride: int = option("frames between windows", default=1, least=1)

    def build(self, b: LayerBuilder, x: View) -> View:
        given = self.window_dim if self.window_dim is not None else self.window_size
        if given is None:
            b.fail("the size of the window is missing", "Give window_size.", "window_size")
        window = as_dim(b, given, "window")
        size = window.size
        if size is None or self.window_size not in (None, size):
            b.fail(f"window_size is {self.window_size}, but window_dim {window}", option="window_dim")
        left = self._left(b, size)
        dim = axis_or_loop(b, self.axis, x)
        if dim not in x.type:
            if self.out_spatial_dim not in (None, dim):
                b.fail("in a loop the frames are its steps", "leave it out", "out_spatial_dim")
            return self._in_loop(b, x, window, size, left)
        same = self.padding == "same"
        out = (dim if same or size == 1 else dim - (size - 1)).ceildiv(self.stride)
        y = b.apply(Window(dim, out, window, left if same else 0, self.stride), x)
        return renamed(b, y, out, self.out_spatial_dim, "out_spatial_dim")

    def _left(self, b: LayerBuilder, size: int) -> int:
        if self.window_left is not None:
            if self.window_right is not None and self.window_left + self.window_right + 1 != size:
                b.fail(f"window_left + window_right + 1 is not the size {size}", "", "window_left")
            return self.window_left
        return (size - 1) // 2 if self.window_right is None else size - 1 - self.window_right

    def _in_loop(self, b: LayerBuilder, x: View, window: Dim, size: int, left: int) -> View:
        """The frames of the last steps, each a delay of the next; or those around this step, if it looks ahead."""
        if self.stride != 1 or self.padding != "same":
            option = "stride" if self.stride != 1 else "padding"
            b.fail("a window in a loop gives something at each step", "Set stride: 1 and padding: same.", option)
        if left != size - 1:
            return b.apply(WindowOfSteps(window, left), for_each_sequence(b, x))
        frames = [x]
        for index in range(size - 1):
            init = b.constant_outside(False if x.type.dtype == "bool" else 0, x.type.dtype, ())
            delay = b.delay(f"frame{index}", x.type, init)
            delay.next = frames[0]
            frames.insert(0, delay.now)
        one = b.new_dim("frame", 1)
        parts = [(b.expand(frame, one), one) for frame in frames]
        return b.concat(parts, window) if size > 1 else b.relabel(parts[0][0], one, window)


class ShiftAxis(Layer, names=("shift_axis",)):
    """Shifts frames along an axis: amount > 0 to the right, so that frames come later and the last are lost.

    To the left, sequences get shorter by the amount. RETURNN's lengths depend on the batch; these are what each
    sequence gives there alone.
    """

    joins_sources = True

    axis: AxisSpec = option("the axis")
    amount: int = option("frames to shift by")
    pad: bool = option("fills the gap, so that no frame is added or lost", default=True)
    pad_value: float | int | bool = option("what it is filled with", default=0)
    adjust_size_info: bool = option("changes the lengths by the amount", default=True)

    def build(self, b: LayerBuilder, x: View) -> View:
        dim = b.axis(self.axis, x)
        if not self.pad:
            if not self.adjust_size_info and dim.size is None:
                b.fail("without padding, lengths change by the amount", "leave it out", "adjust_size_info")
            out = dim - abs(self.amount)
            return b.slice(x, dim, max(-self.amount, 0), out)
        out = dim + self.amount if self.adjust_size_info and self.amount < 0 else dim
        return b.apply(ShiftFrames(dim, out, self.amount, float(self.pad_value)), x)


LAYERS = (SplitDims, MergeDims, ExpandDims, SqueezeLayer, ReinterpretData, SwapAxes, PadLayer, WindowLayer, ShiftAxis)
