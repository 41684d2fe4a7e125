"""Convolution and pooling. Frames beyond a sequence's length count as zero, or take no part in pooling.

RETURNN lets the padding of a batch leak into the last frames unless `use_time_mask` is set; there is no padding here.
"""

from __future__ import annotations

from typing import Literal

from returnn_lite.config.options import (
    Activation,
    AxisSpec,
    DimSpec,
    Init,
    LayerRef,
    Unspecified,
    UnspecifiedType,
    option,
)
from returnn_lite.dims import Dim
from returnn_lite.ir.ops import contraction
from returnn_lite.ir.ops.axes import Squeeze
from returnn_lite.ir.ops.contraction import SpatialDim
from returnn_lite.ir.views import View
from returnn_lite.layers import legacy
from returnn_lite.layers.affine import selected_feature
from returnn_lite.layers.base import Layer, LayerBuilder
from returnn_lite.layers.spatial_dims import (
    Padding,
    Sizes,
    axes_beside_features,
    check_perm,
    per_dim,
    renamed_outputs,
    reordered,
    spatial_axes,
    spatial_dims,
)


class Conv(Layer, names=("conv",)):
    """Convolution (cross-correlation) over one to three spatial dims.

    The spatial dims are `in_spatial_dims`, by default all but batch and feature, in order. New length: ceil(n / stride)
    with padding "same", ceil((n - (filter - 1) * dilation) / stride) with "valid".
    Parameters: W [filter.., in / groups, out], bias [out].
    """

    joins_sources = True

    filter_size: tuple[DimSpec, ...] = option("size for each spatial dim")
    padding: Padding = option("same, valid, same_static, or a number of frames on both sides")
    strides: Sizes = option("step for each spatial dim", default=1)
    dilation_rate: Sizes = option("distance of the filter's elements", default=1)
    groups: int = option(
        "blocks of features that are convolved apart; as many as features: depthwise", default=1, least=1
    )
    input_expand_dims: int = option("number of spatial dims of size 1 that are added", default=0)
    input_add_feature_dim: bool = option("whether the feature dim becomes spatial, and 1 the features", default=False)
    input_split_feature_dim: int | None = option(
        "features after a split of the feature dim, whose rest becomes spatial", default=None
    )
    in_dim: DimSpec | None = option("the feature dim, a Dim", default=None)
    in_spatial_dims: tuple[AxisSpec, ...] | None = option("the spatial axes", default=None)
    out_spatial_dims: tuple[DimSpec, ...] | None = option("the spatial dims of the result, Dims", default=None)
    auto_use_channel_first: bool | UnspecifiedType = option("layout; no influence on results", default=Unspecified)
    with_bias: bool | UnspecifiedType = option("default true since behavior_version 10", default=Unspecified)
    activation: Activation | None = option("applied to the result", default=None)
    forward_weights_init: Init = option("initialiser of W", default="glorot_uniform")
    bias_init: Init = option("initialiser of the bias", default=0.0)
    filter: LayerRef | None = option("a layer that is the filter, with the dims of W in order", default=None)
    filter_perm: dict[AxisSpec, AxisSpec] | None = option(
        "which axis of 'filter' takes the place of which, before the dims are taken in order", default=None
    )
    bias: LayerRef | None = option("a layer that is the bias", default=None)
    use_time_mask: bool = option("whether padding counts as zero; it always does", default=False)
    pad_seq_len_to_power: float | None = option("padding of lengths; no influence on results", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        x = self._input(b, x)
        inner, wanted = b.feature_of(x), b.out_feature()
        out = b.copy_of_dim(wanted) if wanted in x.type else wanted
        axes = axes_beside_features(b, x, self.in_spatial_dims, len(self.filter_size))
        spatial = spatial_dims(b, axes, self.filter_size, self.strides, self.dilation_rate, self.padding)
        if inner.size is not None and inner.size % self.groups:
            b.fail(f"{inner} can't be split in {self.groups} groups", option="groups")
        in_group = inner if self.groups == 1 else b.new_feature((inner.size or 0) // self.groups, "group")
        if in_group == out:
            in_group = b.copy_of_dim(in_group)
        filters = self._filter(b, (*(s.filter for s in spatial), in_group, out))
        y = b.apply(contraction.Conv(spatial, inner, in_group, out, self.groups), x, filters)
        y = b.relabel(y, out, wanted)
        y = self._biased(b, y, wanted)
        return renamed_outputs(b, b.activation(self.activation, y), spatial, self.out_spatial_dims)

    def _input(self, b: LayerBuilder, x: View) -> View:
        """x with the feature and spatial dims that the options add."""
        x = selected_feature(b, x, self.in_dim)
        for i in range(self.input_expand_dims):
            x = b.expand(x, b.new_dim(f"expanded{i}", 1))
        if self.input_add_feature_dim and self.input_split_feature_dim is not None:
            b.fail("it excludes input_split_feature_dim", option="input_add_feature_dim")
        if self.input_add_feature_dim:
            one = b.new_feature(1, "channel")
            x = b.with_feature(b.expand(b.with_feature(x, None), one), one)
        if self.input_split_feature_dim is not None:
            feature, channels = b.feature_of(x), self.input_split_feature_dim
            if feature.size is None or feature.size % channels:
                b.fail(f"{feature} can't be split in parts of {channels}", option="input_split_feature_dim")
            rest = b.new_dim("split", feature.size // channels)
            x = b.split_dim(x, feature, (rest, b.new_feature(channels, "channel")))
        return x

    def _filter(self, b: LayerBuilder, dims: tuple[Dim, ...]) -> View:
        check_perm(b, self.filter, self.filter_perm)
        if self.filter is None:
            return b.param("W", dims, self.forward_weights_init, in_dims=dims[:-1], out_dims=(*dims[:-2], dims[-1]))
        return reordered(b, b.layer(self.filter), dims, "filter", self.filter_perm)

    def _biased(self, b: LayerBuilder, y: View, out: Dim) -> View:
        if self.bias is not None:
            return b.add(y, reordered(b, b.layer(self.bias), (out,), "bias"))
        if not legacy.default(b, "conv.with_bias", self.with_bias):
            return y
        return b.add(y, b.param("bias", (out,), self.bias_init))


class TransposedConv(Layer, names=("transposed_conv",)):
    """Transposed convolution, which makes sequences longer: n * stride frames ("same"), or n * stride +
    max(filter - stride, 0) ("valid"). With `output_padding` it is (n - 1) * stride + filter - 2 * p + output_padding
    frames, where p is filter // 2 ("same") or 0 ("valid"). Then `remove_padding` cuts frames off both ends.

    Parameters: W_native_transposed_conv [filter.., out, in], with a 1 after a single filter size; bias [out].
    """

    joins_sources = True

    filter_size: tuple[int, ...] = option("size for each spatial dim")
    strides: Sizes | None = option("factor of the length; default the filter's size", default=None)
    padding: str = option("same or valid", default="same")
    remove_padding: Sizes = option("frames that are cut off at both ends", default=0)
    output_padding: int | tuple[int | None, ...] | None = option(
        "additional frames at the end, as opposed to the shortest length that the convolution would shorten to the "
        "input's",
        default=None,
    )
    in_dim: DimSpec | None = option("the feature dim, a Dim", default=None)
    in_spatial_dims: tuple[AxisSpec, ...] | None = option("the spatial axes", default=None)
    out_spatial_dims: tuple[DimSpec, ...] | None = option("the spatial dims of the result, Dims", default=None)
    with_bias: bool = option("whether to add a bias", default=True)
    activation: Activation | None = option("applied to the result", default=None)
    forward_weights_init: Init = option("initialiser of the filter", default="glorot_uniform")
    bias_init: Init = option("initialiser of the bias", default=0.0)
    filter: LayerRef | None = option("a layer that is the filter, with dims [filter.., out, in]", default=None)
    filter_perm: dict[AxisSpec, AxisSpec] | None = option(
        "which axis of 'filter' takes the place of which, before the dims are taken in order", default=None
    )
    bias: LayerRef | None = option("a layer that is the bias", default=None)
    use_time_mask: bool = option("whether padding counts as zero; it always does", default=False)

    def build(self, b: LayerBuilder, x: View) -> View:
        x = selected_feature(b, x, self.in_dim)
        inner, wanted = b.feature_of(x), b.out_feature()
        out = b.copy_of_dim(wanted) if wanted in x.type else wanted
        axes = axes_beside_features(b, x, self.in_spatial_dims, len(self.filter_size))
        strides = per_dim(b, self.filter_size if self.strides is None else self.strides, len(axes), "strides")
        removed = per_dim(b, self.remove_padding, len(axes), "remove_padding")
        spatial, crop = [], []
        for i, (axis, size, stride, cut) in enumerate(zip(axes, self.filter_size, strides, removed, strict=True)):
            left, right = self._crop(b, size, stride, self._output_padding(b, i, len(axes)))
            crop.append((left + cut, right + cut))
            longer = axis * stride + (max(size - stride, 0) - left - right)
            spatial.append(SpatialDim(axis, longer - 2 * cut if cut else longer, b.new_dim(f"filter{i}", size), stride))
        filters = self._filter(b, tuple(s.filter for s in spatial), inner, out)
        y = b.apply(contraction.TransposedConv(tuple(spatial), inner, out, tuple(crop)), x, filters)
        y = b.relabel(y, out, wanted)
        if self.bias is not None:
            y = b.add(y, reordered(b, b.layer(self.bias), (wanted,), "bias"))
        elif self.with_bias:
            y = b.add(y, b.param("bias", (wanted,), self.bias_init))
        return renamed_outputs(b, b.activation(self.activation, y), tuple(spatial), self.out_spatial_dims)

    def _output_padding(self, b: LayerBuilder, i: int, count: int) -> int | None:
        given = self.output_padding
        if given is None or isinstance(given, int):
            return given
        if len(given) != count:
            b.fail(f"expected {count} numbers, got {len(given)}", option="output_padding")
        return given[i]

    def _crop(self, b: LayerBuilder, size: int, stride: int, more: int | None) -> tuple[int, int]:
        """How many of the n * stride + max(size - stride, 0) frames go at both ends; below 0 for frames of zeros.

        The result is of a length whose convolution gives n frames again, and begins where that one has its padding.
        """
        same = self._padding(b) == "same"
        if more is None:
            overlap = max(size - stride, 0) if same else 0
            return overlap // 2, overlap - overlap // 2
        padding = size // 2 if same else 0
        behind = size - 2 * padding + more - (0 if same else size - 1)
        if not 0 < behind <= stride:
            least = more - behind + 1
            b.fail(f"output_padding is {more}, not {least} to {least + stride - 1}", option="output_padding")
        left = max(2 * padding - more, 0) // 2
        return left, max(stride - size, 0) + 2 * padding - more - left

    def _padding(self, b: LayerBuilder) -> str:
        if self.padding.lower() not in ("same", "valid"):
            b.fail(f"padding is same or valid, not '{self.padding}'", option="padding")
        return self.padding.lower()

    def _filter(self, b: LayerBuilder, sizes: tuple[Dim, ...], inner: Dim, out: Dim) -> View:
        check_perm(b, self.filter, self.filter_perm)
        if self.filter is not None:
            return reordered(b, b.layer(self.filter), (*sizes, out, inner), "filter", self.filter_perm)
        one = (b.new_dim("one", 1),) if len(sizes) == 1 else ()
        dims = (*sizes, *one, out, inner)
        value = b.param(
            "W_native_transposed_conv",
            dims,
            self.forward_weights_init,
            in_dims=(*sizes, inner),
            out_dims=(*sizes, out),
        )
        return b.apply(Squeeze(one[0]), value) if one else value


class Pool(Layer, names=("pool",)):
    """Maximum or mean over windows of the spatial dims; frames beyond a sequence's length take no part.

    New lengths as for conv; the strides are by default the sizes of the window.
    """

    joins_sources = True
    keeps_type_of = "from"

    mode: Literal["max", "avg"] = option("maximum or mean")
    pool_size: tuple[int, ...] = option("size of the window for each spatial dim")
    padding: Padding = option("same, valid, same_static, or a number of frames on both sides", default="VALID")
    dilation_rate: Sizes = option("distance of the window's elements", default=1)
    strides: Sizes | None = option("default the size of the window", default=None)
    in_dim: DimSpec | None = option("the feature dim, a Dim", default=None)
    in_spatial_dims: tuple[AxisSpec, ...] | None = option("the spatial axes", default=None)
    out_spatial_dims: tuple[DimSpec, ...] | None = option("the spatial dims of the result, Dims", default=None)
    use_channel_first: bool | UnspecifiedType = option("layout; no influence on results", default=Unspecified)
    use_time_mask: bool = option("whether padding takes no part; it never does", default=False)

    def build(self, b: LayerBuilder, x: View) -> View:
        x = selected_feature(b, x, self.in_dim)
        axes = spatial_axes(b, x, self.in_spatial_dims, len(self.pool_size))
        strides = self.pool_size if self.strides is None else self.strides
        spatial = spatial_dims(b, axes, self.pool_size, strides, self.dilation_rate, self.padding)
        if all(s.filter.size == 1 and s.stride == 1 for s in spatial):
            return x
        y = b.apply(contraction.Pool(self.mode, spatial), x)
        return renamed_outputs(b, y, spatial, self.out_spatial_dims)


LAYERS = (Conv, TransposedConv, Pool)
