"""What changes the gradient of a layer and not its value."""

from __future__ import annotations

from returnn_lite.config.options import AxisSpec, LayerRef, option
from returnn_lite.dims import Dim, DimKind
from returnn_lite.ir.ops.elementwise import ScaleGradient
from returnn_lite.ir.ops.gradients import FilterGradient, TransformGradient
from returnn_lite.ir.ops.sources import StepIndex
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder


class ScaledGrad(Layer, names=("scaled_grad",)):
    """The source, whose gradient g becomes scale * g + shift; a negative scale reverses it.

    With `scale_shift_by_sum_over_axis` shift is multiplied by the sum of abs(g) over that axis; with `clip_max_axis`
    the result is cut off at the maximum of abs(g) over that axis. Frames beyond a sequence's length are not shifted,
    where they are in RETURNN. In a loop each step has its own gradient.
    """

    joins_sources = True
    keeps_type_of = "from"

    scale: float | LayerRef = option("factor of the gradient, a number or a layer")
    shift: float | LayerRef | None = option("added to the gradient, a number or a layer", default=None)
    scale_shift_by_sum_over_axis: AxisSpec | None = option("the axis that shift is scaled by", default=None)
    clip_max_axis: AxisSpec | None = option("the axis whose largest gradient none exceeds", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        sum_over, clip = (self._axis(b, axis, x) for axis in (self.scale_shift_by_sum_over_axis, self.clip_max_axis))
        if sum_over is not None and not self.shift:
            b.fail("there is no shift to scale", "give shift, or leave it out", "scale_shift_by_sum_over_axis")
        if self.scale == 0 and self.shift is None:
            return b.stop_gradient(x)
        if not isinstance(self.scale, str) and not self.shift and clip is None:
            return b.apply(ScaleGradient(float(self.scale)), x)
        op = TransformGradient(b.name, sum_over, clip)
        scale = self._operand(b, self.scale, x, "scale")
        shift = self._operand(b, self.shift or 0.0, x, "shift")
        if self.shift and sum_over is None:
            shift = self._at_real_steps(b, shift)
        return b.apply(op, x, scale, shift, *step_numbers(b))

    def _axis(self, b: LayerBuilder, given: AxisSpec | None, x: View) -> Dim | None:
        return None if given is None else b.axis(given, x)

    def _operand(self, b: LayerBuilder, given: LayerRef | float, x: View, option_name: str) -> View:
        value = b.operand(given, x)
        more = [dim for dim in value.type.dims if dim not in x.type]
        if more or not value.type.is_float:
            b.fail(f"'{given}' is {value.type}, which does not fit the source: {x.type}", option=option_name)
        return value

    def _at_real_steps(self, b: LayerBuilder, shift: View) -> View:
        """0 once a sequence has ended: steps behind that leave no gradient."""
        if b.loop is None:
            return shift
        if len(b.ir.point.clock) > 0 or b.ir.point.level > 1:
            hint = "put the layer outside of the inner loop or the mask, or give scale_shift_by_sum_over_axis"
            b.fail("shift in a loop inside of another, or under a mask, is not supported", hint, "shift")
        return b.select(b.surroundings.search.hypotheses().ended_before(), b.like(0.0, shift), shift)


def with_filtered_gradient(b: LayerBuilder, x: View, threshold: float) -> View:
    """x, from whose gradient that of a sequence (in a loop: of a step of it) is left out if the square of any of its
    entries is not below the threshold."""
    over = tuple(dim for dim in x.type.dims if dim.kind not in (DimKind.BATCH, DimKind.BEAM))
    return b.apply(FilterGradient(b.name, over, float(threshold)), x, *step_numbers(b))


def step_numbers(b: LayerBuilder) -> tuple[View, ...]:
    """The number of the step of each loop around, the innermost first."""
    if b.loop is None:
        return ()
    step = b.apply(StepIndex())
    with b.ir.at_outer():
        return (step, *step_numbers(b))


LAYERS = (ScaledGrad,)
