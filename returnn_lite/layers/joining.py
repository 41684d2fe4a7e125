"""Layers that put values one after the other along an axis: concat, stack, tile, repeat."""

from __future__ import annotations

from typing import Any

from returnn_lite.config.options import AxisSpec, DimSpec, LayerRef, option
from returnn_lite.dims import Dim, DimKind, linear_dim
from returnn_lite.ir.ops.indexing import SearchSorted
from returnn_lite.ir.views import View
from returnn_lite.layers.align import align, align_pair
from returnn_lite.layers.base import Layer, LayerBuilder
from returnn_lite.layers.constants import as_dim, renamed
from returnn_lite.layers.positions import positions_of_length


class ConcatLayer(Layer, names=("concat",)):
    """The sources one after the other, each along its own axis: `from` has pairs of a layer and an axis.

    Dynamic axes are joined per sequence. The other dims are aligned as those of combine are; all sources have all of
    them unless `allow_broadcast`. Where the axis is the feature or time dim of the first source, so is the result's.
    """

    sources_have_axes = True

    allow_broadcast: bool = option("repeats sources along the other dims that they lack", default=False)
    out_dim: DimSpec | None = option("the joined axis (a Dim, or its size)", default=None)

    def build(self, b: LayerBuilder, *sources: Any) -> View:
        overs = [b.axis(axis, x) for axis, x in zip(b.surroundings.given.source_axes, sources, strict=True)]
        for over in overs:
            if over.kind is DimKind.BATCH:
                b.fail("the batch dim can't be joined", "name another axis", "from")
        first, *rest = sources
        aligned = [first]
        for x, over in zip(rest, overs[1:], strict=True):
            self._check_elements(b, first, x)
            aligned.append(align_pair(b, first, x, keep=(overs[0], over))[1])
        if not self.allow_broadcast:
            _require_same(b, aligned, overs)
        out = linear_dim([(over, 1) for over in overs], 0)
        y = b.concat(list(zip(aligned, overs, strict=True)), out)
        y = b.with_markers_of(y, first.type.renamed({overs[0]: out}))
        return renamed(b, y, out, self.out_dim, "out_dim")

    def _check_elements(self, b: LayerBuilder, first: View, x: View) -> None:
        if x.type.dtype != first.type.dtype or x.type.sparse != first.type.sparse:
            b.fail(
                f"'{first.name}' is {first.type}, but '{x.name}' is {x.type}",
                "join values of one dtype, with the same classes: see cast and reinterpret_data",
                "from",
            )


def _require_same(b: LayerBuilder, values: list[View], overs: list[Dim]) -> None:
    """Fails unless all values have the same dims but for the joined ones; every value is one for each sequence."""
    per_sequence = {dim for x in values for dim in x.type.dims if dim.kind is DimKind.BATCH}
    others = [set(x.type.dims) - {over} - per_sequence for x, over in zip(values, overs, strict=True)]
    for x, dims in zip(values, others, strict=True):
        missing = set().union(*others) - dims
        if missing:
            b.fail(
                f"'{x.name}' lacks {', '.join(sorted(map(str, missing)))}: {x.type}",
                "set allow_broadcast: true if it is to be repeated",
                "allow_broadcast",
            )


class TileLayer(Layer, names=("tile",)):
    """The source several times in a row along axes, each sequence behind its own end."""

    joins_sources = True

    multiples: dict[Any, int] = option("how often, for each axis")
    out_dims: dict[Any, DimSpec] | None = option("what the axes become (Dims, or sizes)", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        given = {b.axis(axis, x): dim for axis, dim in (self.out_dims or {}).items()}
        times = {b.axis(axis, x): count for axis, count in self.multiples.items()}
        for axis in given:
            if axis not in times:
                b.fail(f"{axis} is not in multiples", "leave it out", "out_dims")
        for over, count in times.items():
            if count < 1 or over.kind is DimKind.BATCH:
                b.fail(f"{over} can't be repeated {count} times", "name another axis, and a number from 1", "multiples")
            if count == 1:
                x = renamed(b, x, over, given.get(over), "out_dims")
                continue
            out = linear_dim([(over, count)], 0)
            y = b.with_markers_of(b.concat([(x, over)] * count, out), x.type.renamed({over: out}))
            x = renamed(b, y, out, given.get(over), "out_dims")
        return x


class RepeatLayer(Layer, names=("repeat",)):
    """Each frame several times in a row; how often may differ from frame to frame."""

    joins_sources = True

    repetitions: LayerRef | int = option("how often: a number, or one for each frame")
    axis: AxisSpec = option("the axis", default="T")
    out_dim: DimSpec | None = option("what the axis becomes (a Dim)", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        over = b.axis(self.axis, x)
        if isinstance(self.repetitions, str):
            counts = b.cast(b.layer(self.repetitions), "int32")
            ends = b.cumsum(counts, over)
            out, positions = positions_of_length(b, b.reduce("sum", counts, over), "repeat")
            y = b.gather(x, b.apply(SearchSorted(over, "right"), ends, positions), over)
        else:
            copies = b.new_dim("copies", self.repetitions)
            out = over * self.repetitions
            y = b.merge_dims(b.expand(x, copies), (over, copies), out)
        if x.type.feature is over:
            y = b.with_feature(y, out)
        return renamed(b, y, out, self.out_dim, "out_dim")


class StackLayer(Layer, names=("stack",)):
    """The sources one after the other along a new axis, after their dims are aligned as those of combine are."""

    axis: int | None = option("where RETURNN's layout has the new axis; no influence on results", default=None)
    out_spatial_dim: DimSpec | None = option("the new axis (a Dim)", default=None)

    def build(self, b: LayerBuilder, *sources: Any) -> View:
        one = b.new_dim("one", 1)
        out = as_dim(b, self.out_spatial_dim if self.out_spatial_dim is not None else len(sources), "stack")
        if out.size != len(sources):
            b.fail(f"there are {len(sources)} sources, but the new axis is {out}", option="out_spatial_dim")
        return b.concat([(b.expand(source, one), one) for source in align(b, sources)], out)


LAYERS = (ConcatLayer, TileLayer, RepeatLayer, StackLayer)
