"""The frames of a sequence so far, at each frame or step (`CumConcat`)."""

from __future__ import annotations

from returnn_lite.config.options import AxisSpec, DimSpec, option
from returnn_lite.dims import Dim, DimKind, Symbol
from returnn_lite.ir.ops.histories import CumConcat, CumConcatStep, EmptyHistory
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder
from returnn_lite.layers.loop_axis import axis_or_loop


def seen_so_far(b: LayerBuilder, x: View, key: str, history: Dim, time: Dim | None) -> View:
    """The frames of x up to this one, along `history`: in a loop those of the steps so far, else those of `time`."""
    zero = False if x.type.dtype == "bool" else 0.0 if x.type.is_float else 0
    if time is not None:
        init = b.apply(EmptyHistory(history), b.constant(zero, x.type.dtype))
        frames, _ = b.emit(CumConcat(time, history), x, init, b.constant(0, "int32"))
        return b.with_time(frames, history)
    example = b.constant_outside(zero, x.type.dtype, tuple(d for d in x.type.dims if d.size is not None))
    with b.ir.at_outer():
        init = b.apply(EmptyHistory(history), example)
    before = b.delay(key, x.type.with_dims(history), init)
    count = b.delay(f"{key}:count", b.constant_outside(0, "int32", ()).type, b.constant_outside(0, "int32", ()))
    frames, after = b.emit(CumConcatStep(history), x, before.now, count.now)
    before.next, count.next = frames, after
    return frames


class CumConcatLayer(Layer, names=("cum_concat",)):
    """The frames of all steps so far along a new axis."""

    joins_sources = True

    out_spatial_dim: DimSpec | None = option("the new axis (a dynamic Dim)", default=None)
    axis: AxisSpec | None = option("the axis that is counted; default the time axis, or the loop", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        found = x.type.default_time if self.axis is None else axis_or_loop(b, self.axis, x)
        time = found if found in x.type.dims else None
        if time is None and b.loop is None:
            b.fail(f"the source has no time axis: {x.type}", "", "axis")
        over = time if time is not None else b.loop
        assert over is not None
        given = self.out_spatial_dim
        if given is not None and not (isinstance(given, Dim) and given.size is None):
            b.fail(f"the new axis is dynamic, so it can't be {given}", "give a dynamic Dim", "out_spatial_dim")
        history = given if isinstance(given, Dim) else Symbol(f"{b.name}:history", DimKind.SPATIAL, None, (over,))
        history.settle((over,))
        return seen_so_far(b, x, "frames", history, time)


LAYERS = (CumConcatLayer,)
