"""Constraints on what layers compute: `darc1` and `spatial_smoothing`, terms of the objective over all real frames."""

from __future__ import annotations

import math

from returnn_lite.dims import Dim, DimKind, Symbol
from returnn_lite.ir import Value
from returnn_lite.layers.base import LayerBuilder, LayerError
from returnn_lite.net.context import OutputConstraint
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import LayerSpec


def add_output_constraints(scope: Scope, b: LayerBuilder, spec: LayerSpec, built: Value, value: Value) -> None:
    """Builds the constraints of a layer where the layer is: darc1 on what its class built, smoothing on its output.

    In search the steps of a loop have none.
    """
    options = spec.common.parameters
    if scope.mode.search and scope.place.level > 0:
        return
    path = scope.path_of(spec)
    if options.darc1:
        before = b.surroundings.compilation.preactivations.before_activation(b, built) or built
        along, size = _feature(before, "darc1"), b.unary("abs", before)
        scope.losses.append(OutputConstraint(f"{path}:darc1", size, None, None, options.darc1, largest_along=along))
    if options.spatial_smoothing:
        energy = smoothing_energy(b, value, _feature(value, "spatial_smoothing"))
        scope.losses.append(OutputConstraint(f"{path}:smoothing", energy, None, None, options.spatial_smoothing))


def _feature(value: Value, option: str) -> Dim:
    feature = value.type.feature
    if feature is None or feature.size is None or not value.type.is_float:
        raise LayerError(f"the output is {value.type}, which has no float features", "", option)
    return feature


def smoothing_energy(b: LayerBuilder, x: Value, feature: Dim) -> Value:
    """For each frame the sum of squares of what a high-pass filter leaves of the features as an image.

    The image has h rows and w columns, w the largest divisor up to the square root, and is closed to a torus; the
    filter takes the mean of the eight neighbours off (Xiong et al. 2016, "Achieving Human Parity").
    """
    assert feature.size is not None
    width = next(w for w in range(math.isqrt(feature.size), 0, -1) if feature.size % w == 0)
    if width < 3:
        message = f"{feature} is no image of 3 rows and 3 columns at least: {feature.size // width} times {width}"
        raise LayerError(message, "Choose a size with such factors.", "spatial_smoothing")
    rows = Symbol(f"{b.name}:rows", DimKind.SPATIAL, feature.size // width)
    columns = Symbol(f"{b.name}:columns", DimKind.SPATIAL, width)
    image = b.split_dim(b.with_feature(x, None), feature, (rows, columns))
    neighbours = _with_both_sides(b, _with_both_sides(b, image, rows), columns)
    filtered = b.sub(b.mul(image, 1.125), b.mul(neighbours, 0.125))
    return b.reduce("sum", b.unary("square", filtered), (rows, columns))


def _with_both_sides(b: LayerBuilder, x: Value, over: Dim) -> Value:
    """The sum of each element and those before and after it along a dim that is closed to a ring."""
    total = x
    for distance in (1, (over.size or 1) - 1):
        place = b.copy_of_dim(over)
        index = b.binary("mod", b.add(b.iota(place), distance), over.size or 1)
        total = b.add(total, b.relabel(b.gather(x, index, over), place, over))
    return total
