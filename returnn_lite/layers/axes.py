"""Layers that change dims but no values: split, merge, expand, squeeze, reinterpret, swap."""

from __future__ import annotations

import math
from typing import Any

from returnn_lite.config.options import AxisSpec, DimSpec, LayerRef, Unspecified, UnspecifiedType, option
from returnn_lite.dims import Dim, DimKind, Symbol, product_dim
from returnn_lite.dims.axes import visible_dims
from returnn_lite.ir.ops.axes import Squeeze
from returnn_lite.ir.views import View
from returnn_lite.layers import legacy
from returnn_lite.layers.base import Layer, LayerBuilder
from returnn_lite.layers.constants import as_dim, renamed


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


LAYERS = (SplitDims, MergeDims, ExpandDims, SqueezeLayer, ReinterpretData, SwapAxes)
