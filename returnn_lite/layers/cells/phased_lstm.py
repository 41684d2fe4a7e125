"""The LSTM whose units are open only in a part of each period of time (Neil et al. 2016)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from returnn_lite.config.options import option
from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.open_body import OUTERMOST
from returnn_lite.ir.ops.sources import Initializer, RandomDraw
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.unit import States, Unit


class PhasedLstm(Cell, names=("phasedlstm",)):
    """Reads the pair (time, x): time is a number for each frame, x its features.

    An LSTM proposes new states c* and h*. A unit takes over the part k of them: phi is where time is in its own period,
    from 0 to 1; k goes up from 0 to 1 and down again while phi < ratio_on, and is leak * phi after that.
    phi has the dtype of time. mask_gates/kernel has i, f; peepholes are matrices: c is one more input of the gates.
    """

    paper = "Neil et al. 2016"
    keys = ("h", "c")
    inputs = ("time", "x")
    old_options: ClassVar[Mapping[str, str]] = {**Cell.old_options, "use_peepholes": "peephole"}

    peephole: bool = option("whether gates see the cell state", default=False)
    leak: float = option("the slope of k where a unit is closed, in training and in use", default=0.001)
    ratio_on: float = option("the part of its period in which a unit is open, at first", default=0.1, least=0)
    trainable_ratio_on: bool = option("whether training changes ratio_on", default=True)
    period_init_min: float = option("the least period at first: exp(U(log min, log max))", default=1.0, least=0)
    period_init_max: float = option("the largest period at first", default=1000.0, least=0)

    def unit_of_inputs(self, b: CellBuilder, inputs: Sequence[View], out: Dim) -> Unit:
        time, x = inputs
        b.require_input_projection()
        openness = self._openness(
            b, self._number_of_frame(b, time), out, x.type.dtype if x.type.is_float else "float32"
        )
        recurrent, seen = b.rows(out), b.rows(out, "peephole")
        gates = linear_dim([(out, 2)], 0)
        in_gates = _Kernel(b, "mask_gates", x, (recurrent, seen) if self.peephole else (recurrent,), gates)
        in_input = _Kernel(b, "new_input", x, (recurrent,), out)
        in_output = _Kernel(b, "output_gate", x, (recurrent, seen) if self.peephole else (recurrent,), out)

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            k, z_gates, z_input, z_output = now
            h, c = before["h"], before["c"]
            i, f = b.blocks(b.unary("sigmoid", in_gates.sum(z_gates, h, c)), gates, out, "if").values()
            proposed_c = b.add(b.mul(f, c), b.mul(i, b.unary("tanh", in_input.sum(z_input, h, c))))
            o = b.unary("sigmoid", in_output.sum(z_output, h, proposed_c))
            proposed = {"h": b.mul(o, b.unary("tanh", proposed_c)), "c": proposed_c}
            after = {key: b.mixture(k, value, before[key]) for key, value in proposed.items()}
            return after["h"], after

        return Unit((openness, in_gates.of_source, in_input.of_source, in_output.of_source), step)

    def _number_of_frame(self, b: CellBuilder, time: View) -> View:
        """Time without its feature dim, if it has one."""
        feature = time.type.feature
        if time.type.sparse is not None or (feature is not None and feature.size != 1):
            b.fail(f"time is one number for each frame, not {time.type}", "Give 'from: [time, x]'.", "from")
        number = time if feature is None else b.reduce("sum", time, feature)
        return number if number.type.is_float else b.cast(number, "float32")

    def _openness(self, b: CellBuilder, time: View, out: Dim, dtype: str) -> View:
        """k, from 0 to 1, for each frame and unit."""
        period, phase, ratio = self._parameters(b, out)
        # The gradient of a remainder is that of its dividend: what a period's length does to it jumps.
        since = b.binary("mod", b.sub(time, phase), b.stop_gradient(period))
        phi = b.cast(b.binary("truediv", since, period), dtype)
        up = b.binary("truediv", b.mul(phi, 2.0), ratio)
        closed = b.select(b.binary("less", phi, ratio), b.sub(2.0, up), b.mul(phi, self.leak))
        return b.with_feature(b.select(b.binary("less", phi, b.mul(ratio, 0.5)), up, closed), out)

    def _parameters(self, b: CellBuilder, out: Dim) -> tuple[View, View, View]:
        """period, phase, ratio_on; a phase begins somewhere in its unit's period."""
        if not 0 < self.period_init_min <= self.period_init_max:
            b.fail("period_init_min is above 0, and at most period_init_max")
        if self.ratio_on <= 0:
            b.fail("ratio_on is above 0: units that are never open learn nothing")
        limits = math.log(self.period_init_min), math.log(self.period_init_max)
        with b.ir.at(OUTERMOST):
            period = b.param("period", (out,), _starts_with(b, b.unary("exp", _drawn(b, "period", out, *limits))))
            part = _drawn(b, "phase", out, 0.0, 1.0)
            phase = b.param("phase", (out,), _starts_with(b, b.mul(part, period)))
        return period, phase, b.param("ratio_on", (out,), self.ratio_on, trainable=self.trainable_ratio_on)


class _Kernel:
    """A kernel over x and states, with its bias; `of_source` is the part of the sum that x makes."""

    def __init__(self, b: CellBuilder, name: str, x: View, states: tuple[Dim, ...], out: Dim) -> None:
        self._b, self._rows = b, states
        for_x, *self._weights = b.kernel_parts(f"{name}/kernel", (b.source(x), *states), out)
        self.of_source = b.input_product(x, for_x, b.param(f"{name}/bias", (out,), b.inits.bias))

    def sum(self, of_source: View, *states: View) -> View:
        """With the parts of as many states as there are rows for."""
        total = of_source
        for state, rows, weights in zip(states, self._rows, self._weights, strict=False):
            total = self._b.add(total, self._b.recurrent_product(state, weights, self._b.feature_of(state), rows))
        return total


def _drawn(b: CellBuilder, name: str, out: Dim, low: float, high: float) -> View:
    return b.apply(RandomDraw("uniform", low, high, (out,), b.seed(f"{name} at first")))


def _starts_with(b: CellBuilder, value: View) -> Initializer:
    computed = b.ir.computed(value)
    assert computed is not None, "made of draws and parameters"
    return Initializer("computed", value=computed)


CELLS = (PhasedLstm,)
