"""Vectors of positions, and of the distances between frames (SEMANTICS 4)."""

from __future__ import annotations

import math

from returnn_lite.config.options import AxisSpec, Init, LayerRef, Unspecified, UnspecifiedType, option
from returnn_lite.dims import Dim, DimKind, Symbol
from returnn_lite.ir.ops.sources import StepIndex
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder
from returnn_lite.layers.histories import seen_so_far
from returnn_lite.layers.loop_axis import axis_or_loop


def sinusoids(b: LayerBuilder, position: View, feature: Dim) -> View:
    """sin and cos of position / timescale; timescales from 1 to 10,000, geometric; an odd last feature is 0."""
    assert feature.size is not None
    half = feature.size // 2
    if half == 0:
        return b.expand(b.constant(0.0), feature, *position.type.dims)
    scales = b.new_dim("scales", half)
    step = math.log(1e4) / max(half - 1, 1)
    rate = b.unary("exp", b.mul(b.cast(b.iota(scales), "float32"), -step))
    angle = b.mul(b.cast(position, "float32"), rate)
    parts = [(b.unary("sin", angle), scales), (b.unary("cos", angle), scales)]
    if feature.size % 2:
        rest = b.new_dim("rest", 1)
        parts.append((b.expand(b.constant(0.0), rest), rest))
    return b.concat(parts, feature)


class RelativePositionalEncoding(Layer, names=("relative_positional_encoding",)):
    """A vector for each distance between two frames, clipped (Shaw et al. 2018, section 3.2): the rows of a parameter,
    or sinusoids of their numbers (`fixed`).

    Outside of loops it has the source's time twice (queries, keys); in a loop the keys are the steps so far.
    """

    source_count = (1, 1)

    n_out: int | None = option("size of a vector", default=None)
    out_dim: Dim | int | None = option("the feature dim", default=None)
    forward_weights_init: Init = option("initialiser", default="glorot_uniform")
    clipping: int = option("the largest distance that has a vector of its own", default=16, least=0)
    fixed: bool = option("sinusoids instead of a parameter", default=False)
    query_spatial_dim: AxisSpec | UnspecifiedType | None = option("the queries' axis", default=Unspecified)
    key_value_spatial_dim: AxisSpec | UnspecifiedType | None = option("the keys' axis", default=Unspecified)
    query_offset: int | UnspecifiedType = option(
        "the position of the first query; default 0, in a loop the number of the step", default=Unspecified
    )

    def build(self, b: LayerBuilder, x: View) -> View:
        size = self.out_dim if self.out_dim is not None else self.n_out
        if size is None:
            b.fail("the size of the vectors is missing", "Give n_out.", "n_out")
        feature = size if isinstance(size, Dim) else b.new_feature(size)
        rows = b.new_dim("distances", 2 * self.clipping + 1)
        if self.fixed:
            matrix = sinusoids(b, b.iota(rows), feature)
        else:
            matrix = b.param("encoding_matrix", (rows, feature), self.forward_weights_init)
        query, keys = self._positions(b, x)
        distance = b.sub(keys, query)
        row = b.add(b.binary("maximum", b.binary("minimum", distance, self.clipping), -self.clipping), self.clipping)
        return b.with_feature(b.gather(matrix, row, rows, clip=True), feature)

    def _positions(self, b: LayerBuilder, x: View) -> tuple[View, View]:
        """The positions of queries and of keys."""
        time = x.type.default_time
        if self.query_spatial_dim is not Unspecified and self.query_spatial_dim is not None:
            time = b.axis(self.query_spatial_dim, x)
        if time is not None:
            given = self.key_value_spatial_dim
            query = b.iota(time)
            keys = b.iota(given) if isinstance(given, Dim) else b.relabel(query, time, b.copy_of_dim(time))
            return (query if self.query_offset is Unspecified else b.add(query, self.query_offset)), keys
        if b.loop is None:
            b.fail(f"the source has no time: {x.type}", "", "from")
        history = Symbol(f"{b.name}:history", DimKind.SPATIAL, None, (b.loop,))
        step = b.apply(StepIndex())
        keys = seen_so_far(b, step, "positions", history, None)
        return (step if self.query_offset is Unspecified else b.constant(self.query_offset, "int32")), keys


class PositionalEncoding(Layer, names=("positional_encoding",)):
    """Sinusoids of the position (Vaswani et al. 2017, section 3.5): first all sines, then all cosines.

    In a loop the position is the number of the executed step.
    """

    joins_sources = True
    keeps_type_of = "from"

    axis: AxisSpec | UnspecifiedType = option("the axis that is counted; default the time axis", default=Unspecified)
    add_to_input: bool = option("adds the source", default=False)
    constant: int | LayerRef = option("the same position everywhere, if not negative", default=-1)
    offset: LayerRef | int | None = option("added to the position", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        feature = b.feature_of(x)
        if not self.add_to_input:
            feature = b.surroundings.out_feature() or feature
        if feature.size is None:
            b.fail(f"the number of features is not known: {x.type}", "Give n_out on the source.", "from")
        table = sinusoids(b, self._position(b, x), feature)
        if not self.add_to_input:
            return b.with_feature(table, feature)
        return b.add(x, b.cast(table, x.type.dtype))

    def _position(self, b: LayerBuilder, x: View) -> View:
        if isinstance(self.constant, str):
            position = b.layer(self.constant)
        elif self.constant >= 0:
            position = b.constant(self.constant, "int32")
        else:
            position = self._counted(b, x)
        if self.offset is None:
            return position
        offset = b.layer(self.offset) if isinstance(self.offset, str) else self.offset
        return b.add(position, offset)

    def _counted(self, b: LayerBuilder, x: View) -> View:
        time = x.type.default_time if self.axis is Unspecified else axis_or_loop(b, self.axis, x)
        if time is not None and time is not b.loop:
            return b.iota(time)
        if b.loop is None:
            b.fail(f"the source has no time axis: {x.type}", "Give 'axis' or 'constant'.", "axis")
        return b.apply(StepIndex())


LAYERS = (RelativePositionalEncoding, PositionalEncoding)
