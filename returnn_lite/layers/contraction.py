"""Layers that sum products over axes: dot, and attention whose weights are a layer."""

from __future__ import annotations

from dataclasses import replace

from returnn_lite.config.options import AxisSpec, LayerRef, Unspecified, UnspecifiedType, option
from returnn_lite.dims import Dim
from returnn_lite.ir.ops.axes import Squeeze
from returnn_lite.ir.views import View
from returnn_lite.layers import legacy
from returnn_lite.layers.align import align_pair, last_static
from returnn_lite.layers.base import Layer, LayerBuilder

Given = AxisSpec | None | UnspecifiedType


class Dot(Layer, names=("dot",)):
    """The sum of products of two sources over the axes `red1` of the first and `red2` of the second.

    Axes of both that are neither reduced nor in `var1` or `var2` are the same in both (`align_pair` says which); `var1`
    and `var2` are of one source only. "auto" is what the other source lacks. If both keep the same dim, that of the
    second gets a new name. The last static dim of `var2` is the feature dim, or else that of the result. Reducing the
    class dim of sparse data picks the entries of its classes.
    """

    source_count = (2, 2)

    reduce: AxisSpec | UnspecifiedType = option("the axes to sum over, of both sources", default=Unspecified)
    red1: AxisSpec | UnspecifiedType = option("the axes to sum over, of the first source", default=Unspecified)
    red2: AxisSpec | UnspecifiedType = option("the axes to sum over, of the second source", default=Unspecified)
    var1: Given = option("axes of the first source alone; null for none", default=Unspecified)
    var2: Given = option("axes of the second source alone; null for none", default=Unspecified)
    add_var2_if_empty: bool | UnspecifiedType = option(
        "whether a dim of size 1 is added if there is no axis in var2", default=Unspecified
    )
    use_mask: bool = option("whether padding counts as zero; it always does, there is none here", default=True)
    debug: bool = option("prints shapes in RETURNN; no influence on results", default=False)

    def build(self, b: LayerBuilder, first: View, second: View) -> View:
        first_over, second_over = self._reduced(b, first, second)
        if not first.type.sparse and second.type.sparse in first_over:
            return b.gather(first, second, over=first_over[0])
        if not second.type.sparse and first.type.sparse in second_over:
            return b.gather(second, first, over=second_over[0])
        first_own = self._own(b, "var1", first, second, first_over)
        second_own = self._own(b, "var2", second, first, second_over)
        second, second_own = _told_apart(b, first, second, second_own)
        for old, new in zip(second_over, first_over, strict=True):
            second = b.relabel(second, old, new, f"the axis that dot sums over: {first.type} and {second.type}")
        first, second = align_pair(b, first, second, keep=(*first_over, *first_own, *second_own))
        if first.type.dtype != second.type.dtype:
            first, second = b.cast(first, "float32"), b.cast(second, "float32")
        feature = next((dim for dim in reversed(second_own) if dim.size is not None), None)
        if feature is not None:  # the feature dim comes last
            first, second = b.with_feature(first, None), b.with_feature(second, feature)
        return self._marked(b, b.dot(first, second, first_over), second_own)

    def _reduced(self, b: LayerBuilder, first: View, second: View) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
        if self.reduce is not Unspecified:
            if self.red1 is not Unspecified or self.red2 is not Unspecified:
                b.fail("'reduce' stands for both red1 and red2", "give either", "reduce")
            specs: tuple[AxisSpec, AxisSpec] = (self.reduce, self.reduce)
        else:
            specs = (legacy.default(b, "dot.red1", self.red1), legacy.default(b, "dot.red2", self.red2))
        if "auto" in specs:
            b.fail(
                f"dot of '{first.name}' {first.type} and '{second.name}' {second.type}",
                "give the axis to sum over in 'reduce'",
                "reduce",
            )
        first_over, second_over = _resolved(b, specs[0], first), _resolved(b, specs[1], second)
        if len(first_over) != len(second_over):
            listed = [", ".join(map(str, dims)) for dims in (first_over, second_over)]
            b.fail(f"dot sums over [{listed[0]}] of the first source and [{listed[1]}] of the second", option="red1")
        return _paired(first_over, second_over)

    def _own(self, b: LayerBuilder, name: str, value: View, other: View, over: tuple[Dim, ...]) -> tuple[Dim, ...]:
        """The dims of a source that the other does not share."""
        given: Given = getattr(self, name)
        if given is Unspecified:  # the older defaults belong together: numbers for all or for none
            numbered = self.reduce is Unspecified and self.red1 is Unspecified and self.red2 is Unspecified
            given = legacy.default(b, f"dot.{name}") if numbered else "auto"
        if given is None:
            return ()
        if given == "auto":
            return tuple(d for d in value.type.dims if d not in over and d not in other.type)
        own = b.axes(given, value)
        for dim in own:
            if dim in over:
                b.fail(f"{dim} is summed over, so it can't be kept", option=name)
        return own

    def _marked(self, b: LayerBuilder, y: View, second_own: tuple[Dim, ...]) -> View:
        static = [dim for dim in second_own if dim.size is not None]
        feature = static[-1] if static else last_static(y.type)
        if not second_own and legacy.default(b, "dot.add_var2_if_empty", self.add_var2_if_empty):
            feature = b.new_feature(1, "dummy")
            y = b.expand(y, feature)
        return b.with_feature(y, feature)


def _resolved(b: LayerBuilder, spec: AxisSpec, value: View) -> tuple[Dim, ...]:
    """The dims of an axis description, which may also be the class dim of a sparse value."""
    if isinstance(spec, Dim) and spec == value.type.sparse and spec not in value.type:
        return (spec,)
    return b.axes(spec, value)


def _paired(first: tuple[Dim, ...], second: tuple[Dim, ...]) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
    """The second's dims in the order in which they meet the first's: equal ones meet, the rest in order."""
    rest = [dim for dim in second if dim not in first]
    return first, tuple(dim if dim in second else rest.pop(0) for dim in first)


def _told_apart(b: LayerBuilder, first: View, second: View, own: tuple[Dim, ...]) -> tuple[View, tuple[Dim, ...]]:
    """The second source with new names for those of its own dims that the first one has, too."""
    names = []
    for dim in own:
        if dim in first.type:
            copy = b.copy_of_dim(dim)
            second = b.relabel(second, dim, copy)
            dim = copy
        names.append(dim)
    return second, tuple(names)


class GenericAttention(Layer, names=("generic_attention",)):
    """The sum of `base` over its time axis, weighted by `weights`.

    The result has the other dims of the base, and those of the weights that it lacks. Weights of several heads meet the
    base's dim of heads. They must be 0 where nothing is attended to, as those of softmax_over_spatial are.
    """

    source_count = (0, 0)

    weights: LayerRef = option("the weights, over the time of the base")
    base: LayerRef = option("what is summed, with time and feature dims")
    auto_squeeze: bool = option("whether dims of size 1 of the weights disappear", default=True)

    def build(self, b: LayerBuilder) -> View:
        return attended(b, b.layer(self.weights), b.layer(self.base), self.auto_squeeze)


class DotAttention(Layer, names=("dot_attention",)):
    """Dot-product attention: softmax over the base's time of energy_factor * (base_ctx . source), then its mean."""

    joins_sources = True

    base: LayerRef = option("what is summed, with time and feature dims")
    base_ctx: LayerRef = option("the keys, with the time of the base and the features of the source")
    energy_factor: float | None = option("factor of the energies", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        base, keys = b.layer(self.base), b.layer(self.base_ctx)
        feature = b.feature_of(x)
        time = b.axis("T", keys)
        keys = b.relabel(keys, b.feature_of(keys), feature, f"features of base_ctx {keys.type} and of {x.type}")
        energies = b.dot(keys, x, over=feature)
        if self.energy_factor is not None:
            energies = b.mul(energies, float(self.energy_factor))
        return attended(b, b.softmax(energies, time), base, auto_squeeze=False)


def attended(b: LayerBuilder, weights: View, base: View, auto_squeeze: bool) -> View:
    """The base summed over its time axis with weights."""
    time, feature = b.axis("T", base), b.feature_of(base)
    weights = _over_time(b, weights, base, time)
    if auto_squeeze:
        for dim in [d for d in weights.type.dims if d.size == 1 and d not in base.type]:
            weights = b.apply(Squeeze(dim), weights)
    base, weights = align_pair(b, base, weights, keep=(time, feature))
    y = b.dot(b.with_feature(weights, None), base, over=time)
    return b.with_feature(y, feature)


def _over_time(b: LayerBuilder, weights: View, base: View, time: Dim) -> View:
    """The weights with the base's time dim; the one dim that can be it is relabelled."""
    if time in weights.type:
        return weights
    unmet = replace(weights.type, dims=tuple(dim for dim in weights.type.dims if dim not in base.type))
    found = unmet.default_time if time.size is None else next((d for d in unmet.dims if d.size == time.size), None)
    if found is None:
        b.fail(
            f"the weights lack {time}: '{weights.name}' has {weights.type}, the base '{base.name}' has {base.type}",
            "compute the weights from the base, or declare the dims the same with reinterpret_data's size_base",
            "weights",
        )
    return b.relabel(weights, found, time, f"weights {weights.type} and base {base.type}")


LAYERS = (Dot, GenericAttention, DotAttention)
