"""Layers that look or move along an axis, with something in place of frames that are not there: pad, window, shift."""

from __future__ import annotations

from typing import Any, Literal

from returnn_lite.config.options import AxisSpec, DimSpec, UnspecifiedType, option
from returnn_lite.dims import Dim
from returnn_lite.ir.ops.axes import Pad, ShiftFrames, Window, WindowOfSteps
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder
from returnn_lite.layers.constants import as_dim, renamed
from returnn_lite.layers.loop_axis import axis_or_loop, for_each_sequence


class PadLayer(Layer, names=("pad",)):
    """Adds frames on both sides of axes; the right ones at each sequence's own end."""

    joins_sources = True

    axes: AxisSpec = option("the axes")
    padding: int | list[Any] = option("frames on both sides, [left, right], or such a pair for each axis")
    out_dims: DimSpec | list[DimSpec | None] | None = option("the new dims (Dims, or sizes)", default=None)
    handle_dynamic_dims: bool | UnspecifiedType | None = option(
        "the right frames come after each sequence's own end; always so here", default=None
    )
    value: float = option("what is added", default=0)
    mode: Literal["constant", "reflect", "symmetric", "replication"] = option("how it is filled", default="constant")

    def build(self, b: LayerBuilder, x: View) -> View:
        dims = b.axes(self.axes, x)
        given = [self.padding] * 2 if isinstance(self.padding, int) else self.padding
        pairs = given if given and isinstance(given[0], list | tuple) else [given] * len(dims)
        if len(pairs) != len(dims):
            b.fail(f"{len(dims)} axes, but {len(pairs)} pairs", "Give a pair for each axis.", "padding")
        given_dims = self.out_dims if isinstance(self.out_dims, list | tuple) else [self.out_dims] * len(dims)
        if len(given_dims) != len(dims):
            b.fail(f"{len(dims)} axes, but {len(given_dims)} dims", "Give one for each axis.", "out_dims")
        for dim, pair, out in zip(dims, pairs, given_dims, strict=True):
            left, right = self._sides(b, pair)
            padded = dim + (left + right)
            if left or right:
                x = b.apply(Pad(dim, padded, left, right, self.mode, float(self.value)), x)
            x = renamed(b, x, padded, out, "out_dims")
        return x

    def _sides(self, b: LayerBuilder, pair: Any) -> tuple[int, int]:
        sides = pair if isinstance(pair, list | tuple) else [pair] * 2
        sides = [side.size if isinstance(side, Dim) else side for side in sides]
        if len(sides) != 2 or not all(isinstance(side, int) and side >= 0 for side in sides):
            b.fail(f"expected the frames on the left and on the right, got {pair!r}", "Give [left, right].", "padding")
        return sides[0], sides[1]


class WindowLayer(Layer, names=("window",)):
    """Each frame with its neighbours along a new static axis; zero outside of the sequence.

    In a loop the axis is the loop's own time; with frames after it (`window_right`), the layer must be in no cycle.
    """

    joins_sources = True
    to_need_one_step = "Set window_right: 0."

    window_size: int | None = option("frames in a window", default=None)
    window_dim: DimSpec | None = option("the new axis (a Dim)", default=None)
    window_left: int | None = option("frames before; default (size - 1) // 2", default=None)
    window_right: int | None = option("frames after", default=None)
    axis: AxisSpec = option("the axis", default="T")
    out_spatial_dim: DimSpec | None = option("what the axis becomes (a Dim)", default=None)
    padding: Literal["same", "valid"] = option("'valid' leaves out windows that are not full", default="same")
    stride: int = option("frames between windows", default=1, least=1)

    def build(self, b: LayerBuilder, x: View) -> View:
        given = self.window_dim if self.window_dim is not None else self.window_size
        if given is None:
            b.fail("the size of the window is missing", "Give window_size.", "window_size")
        window = as_dim(b, given, "window")
        size = window.size
        if size is None or self.window_size not in (None, size):
            b.fail(f"window_size is {self.window_size}, but window_dim {window}", option="window_dim")
        left = self._left(b, size)
        dim = axis_or_loop(b, self.axis, x)
        if dim not in x.type:
            if self.out_spatial_dim not in (None, dim):
                b.fail("in a loop the frames are its steps", "leave it out", "out_spatial_dim")
            return self._in_loop(b, x, window, size, left)
        same = self.padding == "same"
        out = (dim if same or size == 1 else dim - (size - 1)).ceildiv(self.stride)
        y = b.apply(Window(dim, out, window, left if same else 0, self.stride), x)
        return renamed(b, y, out, self.out_spatial_dim, "out_spatial_dim")

    def _left(self, b: LayerBuilder, size: int) -> int:
        if self.window_left is not None:
            if self.window_right is not None and self.window_left + self.window_right + 1 != size:
                b.fail(f"window_left + window_right + 1 is not the size {size}", "", "window_left")
            return self.window_left
        return (size - 1) // 2 if self.window_right is None else size - 1 - self.window_right

    def _in_loop(self, b: LayerBuilder, x: View, window: Dim, size: int, left: int) -> View:
        """The frames of the last steps, each a delay of the next; or those around this step, if it looks ahead."""
        if self.stride != 1 or self.padding != "same":
            option = "stride" if self.stride != 1 else "padding"
            b.fail("a window in a loop gives something at each step", "Set stride: 1 and padding: same.", option)
        if left != size - 1:
            return b.apply(WindowOfSteps(window, left), for_each_sequence(b, x))
        frames = [x]
        for index in range(size - 1):
            init = b.constant_outside(False if x.type.dtype == "bool" else 0, x.type.dtype, ())
            delay = b.delay(f"frame{index}", x.type, init)
            delay.next = frames[0]
            frames.insert(0, delay.now)
        one = b.new_dim("frame", 1)
        parts = [(b.expand(frame, one), one) for frame in frames]
        return b.concat(parts, window) if size > 1 else b.relabel(parts[0][0], one, window)


class ShiftAxis(Layer, names=("shift_axis",)):
    """Shifts frames along an axis: amount > 0 to the right, so that frames come later and the last are lost.

    To the left, sequences get shorter by the amount. RETURNN's lengths depend on the batch; these are what each
    sequence gives there alone.
    """

    joins_sources = True

    axis: AxisSpec = option("the axis")
    amount: int = option("frames to shift by")
    pad: bool = option("fills the gap, so that no frame is added or lost", default=True)
    pad_value: float | int | bool = option("what it is filled with", default=0)
    adjust_size_info: bool = option("changes the lengths by the amount", default=True)

    def build(self, b: LayerBuilder, x: View) -> View:
        dim = b.axis(self.axis, x)
        if not self.pad:
            if not self.adjust_size_info and dim.size is None:
                b.fail("without padding, lengths change by the amount", "leave it out", "adjust_size_info")
            out = dim - abs(self.amount)
            return b.slice(x, dim, max(-self.amount, 0), out)
        out = dim + self.amount if self.adjust_size_info and self.amount < 0 else dim
        return b.apply(ShiftFrames(dim, out, self.amount, float(self.pad_value)), x)


LAYERS = (PadLayer, WindowLayer, ShiftAxis)
