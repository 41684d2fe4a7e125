"""Dropout: the layer, and what the common option `dropout` does to a layer's joined sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from returnn_lite.config.options import AxisSpec
from returnn_lite.dims import Dim, DimError, DimKind
from returnn_lite.ir.ops.indexing import Concat
from returnn_lite.ir.ops.sources import RandomDraw
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder

NoiseShape = Mapping[str, int | None] | Sequence[int | None]


def input_dropout(
    b: LayerBuilder,
    x: View,
    rate: float,
    noise_shape: NoiseShape | None = None,
    axis: AxisSpec | None = None,
    on_forward: bool = False,
) -> View:
    """x with each element set to 0 with probability `rate`, the others divided by 1 - rate; x itself out of training.

    By default the mask varies over the feature dim only: batch, time and other spatial dims share it. `noise_shape`
    maps axis descriptions to null (varies) or 1 (shared), "*" standing for all others; `axis` lists the axes that it
    varies over. In a loop all steps share one mask, unless "*" or the loop's own time is null: then each step has its
    own. Two layers with the same sources, rate and shape get the same mask.
    """
    if not 0.0 <= rate < 1.0:
        b.fail(f"a dropout rate is at least 0 and below 1, not {rate}", option="dropout")
    if rate == 0.0 or not (b.mode.train or on_forward):
        return x
    dims, fresh = mask_dims(b, x, noise_shape, axis)
    parts = ["dropout", "+".join(_origins(b, x)), str(rate), ",".join(dim.name for dim in dims), str(fresh)]
    noise = b.apply(RandomDraw("uniform", 0.0, 1.0, dims, ":".join(parts), x.type.dtype, fresh))
    keeps = b.binary("greater_equal", noise, rate)
    return b.mul(x, b.select(keeps, b.constant(1.0 / (1.0 - rate), x.type.dtype), 0.0))


def mask_dims(
    b: LayerBuilder, x: View, noise_shape: NoiseShape | None, axis: AxisSpec | None
) -> tuple[tuple[Dim, ...], bool]:
    """The dims that a dropout mask for x varies over, and whether each step of a loop has its own."""
    if axis is not None:
        if noise_shape is not None:
            b.fail("dropout_axis and dropout_noise_shape exclude each other", option="dropout_axis")
        return b.axes(axis, x), False
    if noise_shape is None:
        return tuple(dim for dim in x.type.dims if _varies_by_default(x, dim)), False
    if isinstance(noise_shape, Mapping):
        return _dims_of_mapping(b, x, noise_shape)
    if len(noise_shape) != len(x.type.dims):
        b.fail(
            f"a list gives a number for each dim, but {x.type} has {len(x.type.dims)}",
            "give a dict from axes to null or 1, such as {'*': null}",
            "dropout_noise_shape",
        )
    return tuple(dim for dim, entry in zip(x.type.dims, noise_shape, strict=True) if entry is None), False


def _dims_of_mapping(b: LayerBuilder, x: View, shape: Mapping[str, int | None]) -> tuple[tuple[Dim, ...], bool]:
    others: int | str | None = "default"
    decided: dict[Dim, bool] = {}
    fresh = False
    for description, entry in shape.items():
        if entry not in (None, 1, -1):
            b.fail(f"expected null or 1 for '{description}', got {entry!r}", option="dropout_noise_shape")
        varies = entry != 1
        if description == "*":
            others = entry
            fresh = fresh or (varies and b.loop is not None)
            continue
        if _means_loop(b, x, description):
            fresh = fresh or varies
            continue
        decided |= dict.fromkeys(b.axes(description, x), varies)
    for dim in x.type.dims:
        default = _varies_by_default(x, dim) if others == "default" else others != 1
        decided.setdefault(dim, default)
    return tuple(dim for dim in x.type.dims if decided[dim]), fresh


def _means_loop(b: LayerBuilder, x: View, description: str) -> bool:
    """True if the description names the time of the loop around: x has none of its own."""
    if b.loop is None or description.lower() not in ("t", "time"):
        return False
    try:
        return not b.axes(description, x)
    except DimError:
        return True


def _varies_by_default(x: View, dim: Dim) -> bool:
    return dim == x.type.feature or dim.kind is DimKind.FEATURE


def _origins(b: LayerBuilder, x: View) -> tuple[str, ...]:
    """The names of the values that x is joined from."""
    node = b.ir.producer(x)
    if node is not None and isinstance(node.op, Concat):
        return tuple(value.name for value in node.inputs)
    return (x.name,)


class Dropout(Layer, names=("dropout",)):
    """The source with dropout; its options `dropout`, `dropout_noise_shape`, ... are those of every layer."""

    joins_sources = True
    keeps_type_of = "from"

    def build(self, b: LayerBuilder, x: View) -> View:
        return x


LAYERS = (Dropout,)
