"""Affine maps of the feature dim, and normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from returnn_lite.config.options import Activation, AxisSpec, DimSpec, Init, Unspecified, UnspecifiedType, option
from returnn_lite.dims import Dim, MarkedType
from returnn_lite.ir.ops.axes import Squeeze
from returnn_lite.ir.ops.reduction import Moments, Normalize
from returnn_lite.ir.views import View
from returnn_lite.layers import legacy
from returnn_lite.layers.base import Layer, LayerBuilder
from returnn_lite.layers.gradients import with_filtered_gradient

T = TypeVar("T")


class AffineMap(Layer):
    """What linear and softmax share: x W + b over the feature dim; of class indices, the rows of W.

    Parameters: W [in, out] ([out, in] with `use_transposed_weights`), b [out].
    """

    joins_sources = True

    with_bias: bool = option("whether to add a bias", default=True)
    forward_weights_init: Init = option("initialiser of W", default="glorot_uniform")
    bias_init: Init = option("initialiser of b", default=0.0)
    use_transposed_weights: bool = option("whether W is stored as [out, in]", default=False)
    grad_filter: float | None = option(
        "drops the gradient of a sequence (in a loop: of its step) before the activation if the square of any entry is "
        "not below this",
        default=None,
    )

    def type_of_joined(self, x: MarkedType, out: Dim) -> MarkedType | None:
        kept = tuple(dim for dim in x.dims if dim is not x.feature) if x.sparse is None else x.dims
        if out in kept or (x.sparse is None and (x.feature is None or x.dtype != "float32")):
            return None
        return MarkedType((*kept, out), "float32", None, out, x.time)

    def mapped(self, b: LayerBuilder, x: View) -> View:
        """x W + b. The result has the features of `n_out` and all other dims of x."""
        wanted = b.out_feature()
        out = b.copy_of_dim(wanted) if wanted in x.type or wanted == x.type.sparse else wanted
        inner = x.type.sparse if x.type.sparse is not None else b.feature_of(x)
        dims = (out, inner) if self.use_transposed_weights else (inner, out)
        weights = b.param("W", dims, self.forward_weights_init, in_dims=(inner,), out_dims=(out,))
        y = b.gather(weights, x, over=inner) if x.type.sparse is not None else b.dot(x, weights, over=inner)
        y = b.marked(y, out, x.type.time)
        if self.with_bias:
            y = b.add(y, b.param("b", (out,), self.bias_init))
        y = b.relabel(y, out, wanted)
        return with_filtered_gradient(b, y, self.grad_filter) if self.grad_filter else y


class Linear(AffineMap, names=("linear", "hidden", "forward")):
    """Affine map of the feature dim, then an activation: act(x W + b). Class indices select rows of W."""

    activation: Activation | None = option("applied to the output", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        return b.activation(self.activation, self.mapped(b, x))


class Softmax(AffineMap, names=("softmax",)):
    """Affine map of the feature dim, then softmax over the features: softmax(x W + b).

    A loss or a choice uses the logits before the softmax.
    """

    sprint_opts: dict[str, object] | None = option(
        "options of an external toolkit", default=None, unsupported="losses of external toolkits do not exist here"
    )

    def build(self, b: LayerBuilder, x: View) -> View:
        y = self.mapped(b, x)
        return b.softmax(y, b.feature_of(y))


class LayerNorm(Layer, names=("layer_norm",)):
    """Normalises over the feature dim (Ba et al. 2016): (x - mean) / sqrt(variance + epsilon) * scale + bias.

    The variance is the biased one. Parameters: scale [F] (ones), bias [F] (zeros).
    """

    joins_sources = True
    keeps_type_of = "from"

    in_dim: DimSpec | None = option("the dim to normalise, a Dim; default the feature dim", default=None)
    epsilon: float = option("added to the variance", default=1e-6)

    def build(self, b: LayerBuilder, x: View) -> View:
        feature = self.in_dim if isinstance(self.in_dim, Dim) else b.feature_of(x)
        check_size(b, feature, self.in_dim, "in_dim")
        y = b.apply(Normalize((feature,), self.epsilon), x)
        y = b.mul(y, b.param("scale", (feature,), 1.0))
        y = b.add(y, b.param("bias", (feature,), 0.0))
        return b.with_feature(y, feature)


class Norm(Layer, names=("norm",)):
    """Normalises over any axes: (x - mean) / sqrt(variance + epsilon) * scale + bias.

    Only real frames count, where RETURNN counts padding, too. Parameters: scale and bias with `param_shape`.
    """

    joins_sources = True
    keeps_type_of = "from"

    axis: AxisSpec | UnspecifiedType = option("the axes that mean and variance are over", default=Unspecified)
    axes: AxisSpec | UnspecifiedType = option("older name of axis", default=Unspecified)
    param_shape: AxisSpec | UnspecifiedType = option("axes of scale and bias; default the feature", default=Unspecified)
    scale: bool = option("whether to multiply by a parameter", default=True)
    bias: bool = option("whether to add a parameter", default=True)
    epsilon: float = option("added to the variance", default=1e-6)

    def build(self, b: LayerBuilder, x: View) -> View:
        if (self.axis is Unspecified) == (self.axes is Unspecified):
            b.fail("norm needs one of 'axis' and 'axes'", "give 'axis', such as F or TF", "axis")
        over = b.axes(self.axes if self.axis is Unspecified else self.axis, x)
        shape = (b.feature_of(x),) if self.param_shape is Unspecified else b.axes(self.param_shape, x)
        y = b.apply(Normalize(over, self.epsilon), x)
        if self.scale:
            y = b.mul(y, b.param("scale", static_dims(b, shape), 1.0))
        if self.bias:
            y = b.add(y, b.param("bias", static_dims(b, shape), 0.0))
        return y


class BatchNorm(Layer, names=("batch_norm",)):
    """Batch normalisation (Ioffe and Szegedy 2015) of each feature over all other dims.

    In training with the statistics of the batch, else with running ones; `use_sample` mixes them. The running ones
    become r + momentum * (batch - r): momentum is the weight of the new. Without `delay_sample_update` they include the
    batch already when they are used. Hypotheses of a search are no data: they change no statistics, and are normalised
    with running ones. Only real frames count; RETURNN's `masked_time: false` counts padding, too, which
    does not exist here. In a loop, all steps belong to the batch.
    Parameters, of version 2: batch_norm/v2_{beta,gamma} [F], v2_{mean,variance} [F] (not trainable). Version 1:
    batch_norm/{beta,...} [1, .., F]; version 0: batch_norm/<layer>_<layer>_output_{beta,...} [1, .., F].
    """

    joins_sources = True
    keeps_type_of = "from"
    to_need_one_step = (
        "Outside of training, it takes the running statistics with update_sample_only_in_training: true, without "
        "force_sample."
    )

    in_dim: DimSpec | None = option("the dim that keeps its own statistics, a Dim; default the feature", default=None)
    use_shift: bool | UnspecifiedType = option("whether to add beta", default=Unspecified)
    use_std: bool | UnspecifiedType = option("whether to multiply by gamma", default=Unspecified)
    use_sample: float | UnspecifiedType = option("share of the running statistics in training", default=Unspecified)
    force_sample: bool | UnspecifiedType = option("whether use_sample holds outside of training", default=Unspecified)
    momentum: float | UnspecifiedType = option("weight of the new statistics", default=Unspecified)
    epsilon: float | UnspecifiedType = option("added to the variance", default=Unspecified)
    update_sample_only_in_training: bool | UnspecifiedType = option(
        "whether running statistics change in training only", default=Unspecified
    )
    delay_sample_update: bool | UnspecifiedType = option(
        "whether running statistics are used as they were before the batch", default=Unspecified
    )
    param_version: int | UnspecifiedType = option("names and shapes of the parameters: 0, 1 or 2", default=Unspecified)
    gamma_init: Init | UnspecifiedType = option("initialiser of gamma", default=Unspecified)
    beta_init: Init | UnspecifiedType = option("initialiser of beta", default=Unspecified)
    masked_time: bool | UnspecifiedType = option(
        "whether padding is left out of the statistics; it always is", default=Unspecified
    )
    fused_bn: bool | None = option("a faster implementation in RETURNN; no influence on results", default=None)
    fused: bool | None = option("older name of fused_bn; no influence on results", default=None)
    axes: AxisSpec | UnspecifiedType = option("the axis with its own statistics; only the feature", default=Unspecified)

    def build(self, b: LayerBuilder, x: View) -> View:
        feature = self._kept(b, x)
        mean, variance = self._statistics(b, x, feature)
        centered = b.sub(x, mean)
        y = b.mul(centered, b.unary("rsqrt", b.add(variance, float(_or(self.epsilon, 1e-3)))))
        if _or(self.use_std, True):
            y = b.mul(y, self._parameter(b, x, feature, "gamma", _or(self.gamma_init, 1.0)))
        if _or(self.use_shift, True):
            y = b.add(y, self._parameter(b, x, feature, "beta", _or(self.beta_init, 0.0)))
        return y

    def _kept(self, b: LayerBuilder, x: View) -> Dim:
        feature = self.in_dim if isinstance(self.in_dim, Dim) else b.feature_of(x)
        check_size(b, feature, self.in_dim, "in_dim")
        if self.axes is not Unspecified and b.axes(self.axes, x) != (feature,):
            b.fail("batch_norm keeps the feature dim only", "leave 'axes' out, or use norm", "axes")
        return feature

    def _statistics(self, b: LayerBuilder, x: View, feature: Dim) -> tuple[View, View]:
        """Mean and variance to normalise with; assigns the running ones."""
        update_in_training_only = legacy.default(
            b, "batch_norm.update_sample_only_in_training", self.update_sample_only_in_training
        )
        delayed = legacy.default(b, "batch_norm.delay_sample_update", self.delay_sample_update)
        momentum = legacy.default(b, "batch_norm.momentum", self.momentum)
        # Statistics are those of data, and hypotheses are none.
        is_data = not b.surroundings.search.reaches(x)
        updates = is_data and (b.mode.train or not update_in_training_only)
        forced = is_data and (b.mode.train or _or(self.force_sample, False))
        share = float(_or(self.use_sample, 0.0)) if forced else 1.0
        stored = [self._parameter(b, x, feature, name, init) for name, init in (("mean", 0.0), ("variance", 1.0))]
        if not updates and share == 1.0:
            return stored[0], stored[1]
        batch = b.emit(Moments((feature,)), x)
        used = []
        for running, current in zip(stored, batch, strict=True):
            updated = running
            if updates:
                change = b.mul(float(momentum), b.stop_gradient(b.sub(current, running)))
                updated = b.add(running, change)
                b.ir.assign(running, updated)
            used.append(_mixed(b, current, running if delayed else updated, share))
        return used[0], used[1]

    def _parameter(self, b: LayerBuilder, x: View, feature: Dim, name: str, init: Init) -> View:
        """A parameter as a vector over the feature dim."""
        version = legacy.default(b, "batch_norm.param_version", self.param_version)
        if version not in (0, 1, 2):
            b.fail(f"param_version is 0, 1 or 2, not {version}", option="param_version")
        prefix = {0: f"{b.local_name}_{b.local_name}_output_", 1: "", 2: "v2_"}[version]
        full, trainable = f"batch_norm/{prefix}{name}", name in ("gamma", "beta")
        if version == 2:
            return b.param(full, (feature,), init, trainable=trainable)
        rank = len(x.type.dims) + (b.loop is not None)  # as on the whole sequence, where RETURNN makes them
        ones = tuple(b.new_dim(f"one{i}", 1) for i in range(rank - 1))
        value = b.param(full, (*ones, feature), init, trainable=trainable, in_dims=(feature,), out_dims=(feature,))
        for one in ones:
            value = b.apply(Squeeze(one), value)
        return value


def _or(given: T | UnspecifiedType, default: T) -> T:
    return default if given is Unspecified else given


def _mixed(b: LayerBuilder, batch: View, sample: View, share: float) -> View:
    """batch * (1 - share) + sample * share."""
    if share == 0.0:
        return batch
    if share == 1.0:
        return sample
    return b.add(b.mul(1.0 - share, batch), b.mul(share, sample))


def check_size(b: LayerBuilder, dim: Dim, wanted: DimSpec | None, option_name: str) -> None:
    """Fails if an option that repeats the size of a dim gives another."""
    size = wanted.size if isinstance(wanted, Dim) else wanted
    if size is not None and dim.size is not None and size != dim.size:
        b.fail(f"{option_name} is {size}, but the dim is {dim}", option=option_name)


def selected_feature(b: LayerBuilder, x: View, in_dim: DimSpec | None) -> View:
    """x with the dim of the option in_dim as its feature dim; a size, or the class dim of sparse x, is only checked."""
    have = x.type.sparse if x.type.sparse is not None else x.type.feature
    if in_dim is None or in_dim == have:
        return x
    if isinstance(in_dim, Dim) and in_dim in x.type:
        return b.with_feature(x, in_dim)
    if isinstance(in_dim, Dim) or have is None or have.size not in (None, in_dim):
        b.fail(f"in_dim is {in_dim}, but the source is {x.type}", option="in_dim")
    return x


def static_dims(b: LayerBuilder, dims: Sequence[Dim]) -> tuple[Dim, ...]:
    """The dims, if a parameter can have them."""
    for dim in dims:
        if dim.size is None:
            b.fail(f"a parameter needs static dims, but {dim} is dynamic", "choose static axes", "param_shape")
    return tuple(dims)


LAYERS = (Linear, Softmax, LayerNorm, Norm, BatchNorm)
