"""The dims that a filter goes over: which, what becomes of their lengths, and the order of those of a given filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from returnn_lite.config.options import AxisSpec, DimSpec, LayerRef
from returnn_lite.dims import Dim, DimKind, conv_dim
from returnn_lite.ir.ops.contraction import SpatialDim
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder, LayerError
from returnn_lite.layers.constants import as_dim, renamed

Sizes = int | tuple[int, ...]
"""A number for each spatial dim, or one for all."""
Padding = str | int | tuple[int, ...]
"""same, valid, same_static, or the frames on both sides of each spatial dim."""


def spatial_axes(b: LayerBuilder, x: View, given: Sequence[AxisSpec] | None, count: int) -> tuple[Dim, ...]:
    """The dims that a filter of `count` sizes goes over."""
    if given is not None:
        axes = tuple(b.axis(description, x) for description in given)
    else:
        axes = tuple(d for d in x.type.dims if d != x.type.feature and d.kind not in (DimKind.BATCH, DimKind.BEAM))
    if count > 3:
        b.fail(
            f"there are {count} spatial dims, but filters go over three at most",
            "Merge dims, or apply two layers one after the other.",
            "in_spatial_dims" if given is not None else "filter_size",
        )
    if len(axes) != count:
        b.fail(
            f"there are {count} filter sizes, but {len(axes)} spatial dims: [{', '.join(map(str, axes))}] of {x.type}",
            "name the axes in in_spatial_dims, or give a size for each",
            "in_spatial_dims" if given is not None else "filter_size",
        )
    if len(set(axes)) < count:
        b.fail(f"the filter goes over one axis twice: {', '.join(map(str, axes))}", "", "in_spatial_dims")
    return axes


def axes_beside_features(b: LayerBuilder, x: View, given: Sequence[AxisSpec] | None, count: int) -> tuple[Dim, ...]:
    """The same for a filter that sums over the features in each of its places."""
    axes = spatial_axes(b, x, given, count)
    if b.feature_of(x) in axes:
        hint = "Give the data another feature dim first: expand_dims, with axis F."
        b.fail(f"the filter goes over {b.feature_of(x)}, which are the features", hint, "in_spatial_dims")
    return axes


def per_dim(b: LayerBuilder, given: Sizes, count: int, option_name: str) -> tuple[int, ...]:
    """A number for each spatial dim."""
    if isinstance(given, int):
        return (given,) * count
    if len(given) == 1:
        return tuple(given) * count
    if len(given) != count:
        b.fail(f"expected {count} numbers, got {len(given)}", option=option_name)
    return tuple(given)


def spatial_dims(
    b: LayerBuilder,
    axes: Sequence[Dim],
    filter_size: Sequence[DimSpec],
    strides: Sizes,
    dilation: Sizes,
    padding: Padding,
) -> tuple[SpatialDim, ...]:
    """What conv and pool do along each spatial dim."""
    result = []
    count = len(axes)
    for i, (axis, size, stride, rate) in enumerate(
        zip(
            axes,
            filter_size,
            per_dim(b, strides, count, "strides"),
            per_dim(b, dilation, count, "dilation_rate"),
            strict=True,
        )
    ):
        window = as_dim(b, size, f"filter{i}")
        if window.size is None:
            b.fail(f"the filter's size must be a number, not {window}", option="filter_size")
        one = padding if isinstance(padding, str | int) else per_dim(b, padding, count, "padding")[i]
        given, out = _padded(b, axis, window.size, stride, rate, one)
        result.append(SpatialDim(axis, out, window, stride, rate, given))
    return tuple(result)


def _padded(
    b: LayerBuilder, axis: Dim, size: int, stride: int, dilation: int, padding: str | int
) -> tuple[str | tuple[int, int], Dim]:
    """The padding of one spatial dim as the primitive has it, and the resulting dim."""
    if isinstance(padding, int):
        longer = axis + 2 * padding if padding else axis
        return (padding, padding), conv_dim(longer, size, stride, dilation, "valid")
    name = padding.lower()
    if name in ("same", "valid"):
        return name, conv_dim(axis, size, stride, dilation, name)
    if name == "same_static":
        out = conv_dim(axis, size, stride, dilation, "same")
        if axis.size is not None:
            return "same", out
        total = (size - 1) * dilation
        left = max((total + 1 - stride) // 2, 0)
        return (left, total - left), out
    raise LayerError(f"padding is same, valid, same_static or a number, not '{padding}'", option="padding")


def check_perm(b: LayerBuilder, given: LayerRef | None, perm: Mapping[AxisSpec, AxisSpec] | None) -> None:
    """Raises LayerError if an order is given, but no filter that has it."""
    if perm and given is None:
        b.fail("there is no filter layer whose dims could be in another order", "leave it out", "filter_perm")


def reordered(
    b: LayerBuilder,
    value: View,
    dims: tuple[Dim, ...],
    what: str,
    perm: Mapping[AxisSpec, AxisSpec] | None = None,
) -> View:
    """A layer as filter or bias: its dims, in their order or that of `perm`, are what is wanted."""
    missing = [dim for dim in dims if dim not in value.type]
    free = [dim for dim in permuted(b, value, perm or {}) if dim not in dims]
    if len(free) != len(missing):
        b.fail(f"the {what} '{value.name}' has {value.type}, but [{', '.join(map(str, dims))}] is needed", option=what)
    for old, new in zip(free, missing, strict=True):
        value = b.relabel(value, old, new, f"the {what} '{value.name}' with {value.type}")
    return value


def permuted(b: LayerBuilder, value: View, perm: Mapping[AxisSpec, AxisSpec]) -> list[Dim]:
    """The dims of a value in the order that `perm` says: for an axis, or a position, the one that takes its place.

    The others keep their order.
    """
    dims = value.type.dims
    taken: dict[int, Dim] = {}
    for place, axis in perm.items():
        at = place if isinstance(place, int) else dims.index(b.axis(place, value))
        if not 0 <= at < len(dims) or at in taken or (dim := b.axis(axis, value)) in taken.values():
            b.fail(f"'{place}: {axis}' has no place in the order of {value.type}", option="filter_perm")
        taken[at] = dim
    rest = iter([dim for dim in dims if dim not in taken.values()])
    return [taken[at] if at in taken else next(rest) for at in range(len(dims))]


def renamed_outputs(
    b: LayerBuilder, y: View, spatial: tuple[SpatialDim, ...], wanted: Sequence[DimSpec] | None
) -> View:
    """The result with the spatial dims that the config gives."""
    if wanted is None:
        return y
    if len(wanted) != len(spatial):
        b.fail(f"there are {len(spatial)} spatial dims, not {len(wanted)}", option="out_spatial_dims")
    for s, dim in zip(spatial, wanted, strict=True):
        y = renamed(b, y, s.output, dim, "out_spatial_dims")
    return y
