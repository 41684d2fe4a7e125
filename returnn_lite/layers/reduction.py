"""Layers that reduce or normalise over axes. Frames beyond a sequence's length never take part."""

from __future__ import annotations

import functools
import math
from typing import Literal

from returnn_lite.config.options import AxisSpec, DimSpec, LayerRef, option
from returnn_lite.dims import Dim, DimKind
from returnn_lite.ir.ops.reduction import REDUCTIONS, ArgReduce, Moments, TopK
from returnn_lite.ir.views import View
from returnn_lite.layers.align import last_static
from returnn_lite.layers.base import Layer, LayerBuilder, Outputs
from returnn_lite.layers.constants import as_dim
from returnn_lite.layers.loop_axis import axis_or_loop
from returnn_lite.layers.positions import positions_of_length

ReduceMode = Literal["sum", "max", "min", "mean", "avg", "prod", "logsumexp", "any", "all", "argmax", "argmin"]

LOWEST = -3.4e38
"""Below every energy, and a number in every dtype that energies have."""


class Reduce(Layer, names=("reduce",)):
    """sum, max, min, mean, prod, logsumexp, any or all over one or several axes; or the index, argmax or argmin."""

    joins_sources = True

    mode: ReduceMode = option("what to do with the elements; avg is mean")
    axis: AxisSpec | None = option("one axis", default=None)
    axes: AxisSpec | None = option("one or several axes", default=None)
    keep_dims: bool = option("whether dims of size 1 take the place of what is reduced", default=False)
    enforce_batch_dim_axis: int | None = option(
        "where RETURNN's layout has the batch; no influence on results", default=None
    )
    use_time_mask: bool | None = option("whether padding is left out; it always is, there is none here", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        if (self.axis is None) == (self.axes is None):
            b.fail("reduce needs one of 'axis' and 'axes'", "give 'axis', such as T or F", "axis")
        over = b.axes(self.axes if self.axis is None else self.axis, x)
        y = reduced(b, self.mode, x, over)
        if self.keep_dims:
            return with_kept_dims(b, x, y, over)
        feature = last_static(y.type) if x.type.feature in over or y.type.sparse is not None else y.type.feature
        return b.with_feature(y, feature)


def reduced(b: LayerBuilder, mode: str, x: View, over: tuple[Dim, ...]) -> View:
    """x reduced over dims by a mode of the reduce layer."""
    if mode in ("argmax", "argmin"):
        if len(over) != 1:
            b.fail(f"{mode} goes over one axis, not {', '.join(map(str, over)) or 'none'}", option="axis")
        return b.apply(ArgReduce(mode.removeprefix("arg"), over[0]), x)
    kind = "mean" if mode == "avg" else mode
    if kind in ("mean", "logsumexp") and not x.type.is_float:
        x = b.cast(x, "float32")
    assert kind in REDUCTIONS
    return b.reduce(kind, x, over)


def with_kept_dims(b: LayerBuilder, x: View, y: View, over: tuple[Dim, ...]) -> View:
    """y with a dim of size 1 for each of the dims of x that were reduced; feature and time are marked as in x."""
    feature, time = y.type.feature, y.type.time
    for i, dim in enumerate(over):
        if dim.kind is DimKind.BATCH:
            b.fail("the batch dim can't be kept as a dim of size 1", "leave keep_dims out", "keep_dims")
        one = b.new_feature(1, f"kept{i}") if dim == x.type.feature else b.new_dim(f"kept{i}", 1)
        y = b.expand(y, one)
        feature = one if dim == x.type.feature else feature
        time = one if dim == x.type.default_time else time
    return b.marked(y, feature, time)


class ReduceOut(Layer, names=("reduce_out",)):
    """Reduces groups of `num_pieces` consecutive features: maxout (Goodfellow et al. 2013) with mode "max"."""

    joins_sources = True

    mode: Literal["max", "min", "sum", "mean", "avg"] = option("what to do with a group")
    num_pieces: int = option("features in a group", least=1)

    def build(self, b: LayerBuilder, x: View) -> View:
        feature = b.feature_of(x)
        if feature.size is None or feature.size % self.num_pieces:
            b.fail(f"{feature} can't be split in groups of {self.num_pieces}", option="num_pieces")
        out = b.surroundings.out_feature() or feature // self.num_pieces
        if out.size != feature.size // self.num_pieces:
            b.fail(f"the output has {feature.size // self.num_pieces} features, not {out.size}", option="n_out")
        pieces = b.new_dim("pieces", self.num_pieces)
        y = b.split_dim(x, feature, (out, pieces))
        return b.with_feature(reduced(b, self.mode, y, (pieces,)), out)


class SoftmaxOverSpatial(Layer, names=("softmax_over_spatial",)):
    """softmax(energy_factor * x) over an axis, by default the time axis: attention weights. 0 outside of the window.

    The window is given by its first frame (`start`), or by first frame and size (`window_start`, `window_size`), each
    one number or one for each sequence.
    """

    joins_sources = True
    keeps_type_of = "from"
    keeps_dims = True

    axis: AxisSpec | None = option("the axis; default the time axis", default=None)
    energy_factor: float | None = option("factor of the energies", default=None)
    start: LayerRef | int | None = option("first frame that counts", default=None)
    window_start: LayerRef | int | None = option("first frame of the window", default=None)
    window_size: LayerRef | int | None = option("number of frames of the window", default=None)
    use_time_mask: bool | None = option("whether padding is left out; it always is, there is none here", default=None)
    log_space: bool = option("whether the result is the logarithm", default=False)

    def build(self, b: LayerBuilder, x: View) -> View:
        over = b.axis("T" if self.axis is None else self.axis, x)
        if (self.window_start is None) != (self.window_size is None):
            b.fail("window_start and window_size belong together", option="window_size")
        energies = x if self.energy_factor is None else b.mul(x, float(self.energy_factor))
        inside = self._inside(b, over)
        if inside is None:
            return b.softmax(energies, over, self.log_space)
        # Not -inf: a window may have no frame of a sequence, and what is left of nothing is not a number.
        weights = b.softmax(b.select(inside, energies, LOWEST), over, self.log_space)
        return b.select(inside, weights, -math.inf if self.log_space else 0.0)

    def _inside(self, b: LayerBuilder, over: Dim) -> View | None:
        """Which frames are in the window; None for all."""
        index, conditions = b.iota(over), []
        if self.start is not None:
            conditions.append(b.binary("greater_equal", index, self._frame(b, self.start)))
        if self.window_start is not None and self.window_size is not None:
            offset = b.sub(index, self._frame(b, self.window_start))
            conditions.append(b.binary("greater_equal", offset, 0))
            conditions.append(b.binary("less", offset, self._frame(b, self.window_size)))
        return functools.reduce(functools.partial(b.binary, "logical_and"), conditions) if conditions else None

    def _frame(self, b: LayerBuilder, given: LayerRef | int) -> View | int:
        """A frame number: an int for each sequence. A layer of one feature loses its feature dim."""
        if not isinstance(given, str):
            return given
        value = b.layer(given)
        feature = value.type.feature
        if feature is not None and feature.size == 1:
            value = b.reduce("sum", value, feature)
        return value


class CumsumLayer(Layer, names=("cumsum",)):
    """Sums over the frames so far: y[t] = initial_output + x[0] + ... + x[t]. In a loop, over its steps if the axis is
    the loop's."""

    joins_sources = True
    keeps_type_of = "from"

    axis: AxisSpec = option("the axis of the frames", default="T")
    additional_left_summand_per_element: float | int | None = option("added to each frame first", default=None)
    reverse: bool = option("whether to sum from the end of each sequence", default=False)

    def build(self, b: LayerBuilder, x: View) -> Outputs:
        over = axis_or_loop(b, self.axis, x)
        summand = self.additional_left_summand_per_element
        if summand is not None:
            x = b.add(summand, x)
        is_step = over not in x.type
        if self.reverse and is_step:
            b.fail("a reversed sum needs the frames to come", "put the layer outside of the loop", "reverse")
        init = b.surroundings.initial_output(x.type if is_step else x.type.without(over))
        y = b.cumsum(x, over, init, self.reverse)
        return Outputs(y, state={"state": y} if is_step else {})


class Length(Layer, names=("length",)):
    """How many frames each sequence has along an axis: [B] for a dynamic axis, one number for a static one."""

    source_count = (1, 1)

    axis: AxisSpec = option("the axis", default="T")
    add_time_axis: bool = option("whether the result has a time dim of size 1", default=False)
    dtype: Literal["int32", "int64", "float32", "float64"] = option("dtype of the result", default="int32")
    sparse: bool = option("whether the length is a class index: of one class more than the axis is long", default=False)

    def build(self, b: LayerBuilder, x: View) -> View:
        axis = b.axis(self.axis, x)
        if self.sparse and not self.dtype.startswith("int"):
            b.fail(f"class indices can't be {self.dtype}", "use int32", "dtype")
        classes = axis + 1 if self.sparse else None
        length = b.as_index(b.length(axis, self.dtype), classes)
        if not self.add_time_axis:
            return length
        time = b.new_dim("time", 1)
        return b.with_time(b.expand(length, time), time)


class AccumulateMean(Layer, names=("accumulate_mean",)):
    """The running mean of the source over batch and time: m becomes m + exp_average * (mean - m) in training.

    The result is m as it was before the batch, with neither batch nor time. Parameter: mean_1 [the other dims], not
    trainable.
    """

    joins_sources = True

    exp_average: float = option("weight of the new mean")
    axes: AxisSpec = option("what the mean is over; batch and time at least", default="bt")
    initial_value: float | None = option("m before training; default 1/n for a distribution, else 0", default=None)
    is_prob_distribution: bool | None = option("whether the n entries sum up to 1", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        over = b.axes(self.axes, x)
        kept = tuple(dim for dim in x.type.dims if dim not in over)
        if any(dim.size is None for dim in kept):
            b.fail(f"a parameter can't have the dims {', '.join(map(str, kept))}", "add the dynamic axes", "axes")
        initial = self.initial_value
        if initial is None:
            initial = 1.0 / (b.feature_of(x).size or 1) if self.is_prob_distribution else 0.0
        running = b.param("mean_1", kept, float(initial), trainable=False)
        if b.mode.train and not b.surroundings.search.reaches(x):
            mean, _ = b.emit(Moments(kept), x)
            change = b.mul(self.exp_average, b.stop_gradient(b.sub(mean, running)))
            b.ir.assign(running, b.add(running, change))
        return b.marked(running, x.type.feature, None)


class TopKLayer(Layer, names=("top_k",)):
    """The `k` largest along an axis, largest first; their indices are the part `indices`.

    If k is a layer, each sequence has its own number of them; entries that the axis does not have are -inf, of index 0.
    Over several axes together, the indices along each are the parts `indices0`, `indices1`, ...
    """

    joins_sources = True

    axis: AxisSpec = option("the axis, or several")
    k: int | LayerRef = option("how many; a layer (of ints) if the axis is static")
    k_dim: DimSpec | None = option("the dim of the result, a Dim", default=None)
    sorted: bool = option("whether the largest comes first; it always does", default=True)

    def build(self, b: LayerBuilder, x: View) -> Outputs:
        over = b.axes(self.axis, x)
        if not over:
            b.fail(f"there is no axis to look along in {x.type}", "name one", "axis")
        if len(over) == 1:
            values, index = self._largest(b, x, over[0])
            return Outputs(values, {"indices": index})
        joint = b.new_dim("joint", _joint_size(b, over))
        values, index = self._largest(b, b.merge_dims(x, over, joint), joint)
        parts: dict[str, View] = {}
        for i, dim in reversed(list(enumerate(over))):
            rest = b.binary("mod", index, dim.size or 1)
            parts[f"indices{i}"] = b.marked(b.as_index(rest, dim), None, index.type.time)
            index = b.binary("floordiv", index, dim.size or 1)
        return Outputs(values, parts)

    def _largest(self, b: LayerBuilder, x: View, over: Dim) -> tuple[View, ...]:
        """The largest along one dim, and their indices."""
        if isinstance(self.k, str):
            return self._as_many_as(b, x, over, b.layer(self.k))
        k = as_dim(b, self.k_dim, "top_k") if self.k_dim is not None else b.new_dim("top_k", self.k)
        if k.size != self.k:
            b.fail(f"k is {self.k}, but k_dim is {k}", option="k_dim")
        return b.emit(TopK(over, k), x)

    def _as_many_as(self, b: LayerBuilder, x: View, over: Dim, k: View) -> tuple[View, ...]:
        """The beginning of all entries in order, along a new dim with the lengths k."""
        if over.size is None:
            b.fail(f"k is a layer, so the axis must be static, but {over} is not", "give a number", "k")
        if k.type.is_float or k.type.dtype == "bool":
            b.fail(f"'{self.k}' is {k.type}, but k is a number of entries", "give a layer of ints", "k")
        if self.k_dim is not None and not (isinstance(self.k_dim, Dim) and self.k_dim.size is None):
            b.fail(f"k is a layer, so k_dim can't be {self.k_dim}", "give a dynamic Dim, or leave it out", "k_dim")
        whole = b.new_dim("sorted", over.size)
        values, index = b.emit(TopK(over, whole), x)
        _, place = positions_of_length(b, k, "top_k", self.k_dim)
        there = b.binary("less", place, over.size)
        least = -math.inf if x.type.is_float else -(2**31)
        values = b.select(there, b.gather(values, place, whole, clip=True), least)
        return values, b.select(there, b.gather(index, place, whole, clip=True), b.like(0, index))


def _joint_size(b: LayerBuilder, over: tuple[Dim, ...]) -> int:
    total = 1
    for dim in over:
        if dim.size is None:
            b.fail(f"top_k over several axes needs static ones, but {dim} is dynamic", option="axis")
        total *= dim.size
    return total


LAYERS = (Reduce, ReduceOut, SoftmaxOverSpatial, CumsumLayer, Length, AccumulateMean, TopKLayer)
