"""Layers that put frames before or behind each sequence."""

from __future__ import annotations

from returnn_lite.config.options import AxisSpec, DimSpec, LayerRef, option
from returnn_lite.dims import Dim
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder
from returnn_lite.layers.constants import renamed
from returnn_lite.layers.positions import dim_of_length


class PrefixInTime(Layer, names=("prefix_in_time",)):
    """Frames of one number before each sequence."""

    joins_sources = True

    axis: AxisSpec = option("the axis", default="T")
    out_dim: DimSpec | None = option("what the axis becomes (a Dim)", default=None)
    prefix: float | int = option("the number", default=0.0)
    repeat: int | LayerRef = option("how many frames, or how many for each sequence", default=1)
    size_base: LayerRef | None = option("a layer whose lengths the result has; frames behind are cut", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        over = b.axis(self.axis, x)
        if isinstance(self.repeat, str):
            new, zeros = dim_of_length(b, b.cast(b.layer(self.repeat), "int32"), "prefix")
            frames = b.cast(zeros, x.type.dtype)
        else:
            new = b.new_dim("prefix", self.repeat)
            frames = b.constant(0, x.type.dtype, (new,))
        prefix = b.add(frames, b.constant(_of_dtype(self.prefix, x), x.type.dtype))
        rest = tuple(dim for dim in x.type.dims if dim is not over)
        result = b.concat([(b.with_markers_of(b.expand(prefix, *rest), x.type), new), (x, over)])
        whole = new + over
        if self.size_base is not None:
            base = b.axis("T", b.layer(self.size_base))
            result = b.slice(result, whole, 0, base)
            whole = base
        return _marked(b, result, x, over, whole, self.out_dim)


class PostfixInTime(Layer, names=("postfix_in_time",)):
    """Frames of one number, or of a layer without the axis, behind each sequence's own end."""

    joins_sources = True

    axis: AxisSpec = option("the axis", default="T")
    out_dim: DimSpec | None = option("what the axis becomes (a Dim)", default=None)
    postfix: float | int | LayerRef = option("the number, or the layer", default=0.0)
    repeat: int = option("how many frames", default=1)

    def build(self, b: LayerBuilder, x: View) -> View:
        over = b.axis(self.axis, x)
        new = b.new_dim("postfix", self.repeat)
        if isinstance(self.postfix, str):
            value = b.layer(self.postfix)
            if over in value.type:
                b.fail(f"'{value.name}' has the axis itself: {value.type}", "give a layer without it", "postfix")
        else:
            value = b.constant(_of_dtype(self.postfix, x), x.type.dtype)
        feature = value.type.feature
        if feature is not None and x.type.feature is not None:
            value = b.relabel(value, feature, x.type.feature)
        rest = tuple(dim for dim in x.type.dims if dim is not over)
        frames = b.with_markers_of(b.expand(value, new, *rest), x.type)
        result = b.concat([(x, over), (frames, new)])
        return _marked(b, result, x, over, over + new, self.out_dim)


def _of_dtype(number: float | int, x: View) -> float | int:
    return float(number) if x.type.is_float else int(number)


def _marked(b: LayerBuilder, y: View, x: View, over: Dim, out: Dim, given: DimSpec | None) -> View:
    """y with the markers of x, whose axis `over` became `out`, under the name that out_dim gives."""
    return renamed(b, b.with_markers_of(y, x.type.renamed({over: out})), out, given, "out_dim")


LAYERS = (PrefixInTime, PostfixInTime)
