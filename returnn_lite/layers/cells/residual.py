"""Cells whose source goes around them: added to the output (He et al. 2016), or mixed with it by gates (Srivastava et
al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.config.options import Expression, option
from returnn_lite.dims import Dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.unit import States, Unit
from returnn_lite.layers.cells.wrapping import Wrapper
from returnn_lite.layers.evaluate import evaluate
from returnn_lite.layers.host_calls import host_call


class Residual(Wrapper, names=("residual", "rnncellresidual")):
    """y = x + cell(x), or what `residual_fn` makes of both. The source has as many features as the cell's output."""

    paper = "He et al. 2016"

    residual_fn: Expression | None = option(
        'an expression of x and y, such as "x + 0.5 * y", or a function of both of a Python config; default: the sum',
        default=None,
    )

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        _require_like(self, b, x, out, "a residual")

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            y, after = self.inner_step(b, now[0], out, before)
            same = b.relabel(now[0], b.feature_of(now[0]), out, "the source of a residual")
            return b.with_feature(self._joined(b, b.with_feature(same, out), y), out), after

        return Unit((x,), step)

    def _joined(self, b: CellBuilder, x: View, y: View) -> View:
        if self.residual_fn is None:
            return b.add(x, y)
        if callable(self.residual_fn):
            return host_call(b, self.residual_fn, getattr(self.residual_fn, "__name__", "residual_fn"), (x, y))
        joined = evaluate(b, self.residual_fn, (), {"x": x, "y": y}, option="residual_fn")
        if set(joined.type.dims) != {*x.type.dims, *y.type.dims}:
            hint = "Make something of the shape of both."
            b.fail(f"residual_fn gives {joined.type}, which is not like {y.type}", hint)
        return joined


class Highway(Wrapper, names=("highway",)):
    """y = x * C + cell(x) * T, with C = sigmoid(x carry_w + carry_b), and T = 1 - C or a gate of its own, sigmoid(x
    transform_w + transform_b). The source has as many features as the cell's output."""

    paper = "Srivastava et al. 2015"

    couple_carry_transform_gates: bool = option("T is 1 - C", default=True)
    carry_bias_init: float = option("what carry_b starts with; transform_b with the negative of it", default=1.0)

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        _require_like(self, b, x, out, "a highway")
        gates = [self._gate(b, x, out, "carry", self.carry_bias_init)]
        if not self.couple_carry_transform_gates:
            gates.append(self._gate(b, x, out, "transform", -self.carry_bias_init))

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            source, carried, *own = now
            y, after = self.inner_step(b, source, out, before)
            transformed = own[0] if own else b.sub(1.0, carried)
            same = b.relabel(source, b.feature_of(source), out, "the source of a highway")
            return b.add(b.mul(b.with_feature(same, out), carried), b.mul(y, transformed)), after

        return Unit((x, *gates), step)

    def _gate(self, b: CellBuilder, x: View, out: Dim, name: str, bias: float) -> View:
        weights = b.param(f"{name}_w", (b.source(x), out), b.inits.input)
        return b.unary("sigmoid", b.input_product(x, weights, b.param(f"{name}_b", (out,), b.inits.bias_or(bias))))


def _require_like(cell: Wrapper, b: CellBuilder, x: View, out: Dim, what: str) -> None:
    """Fails unless a source has the dims of the output of a cell, but for the name of the features."""
    if x.type.sparse is not None or b.feature_of(x).size != out.size:
        b.fail(f"{what} needs a source of {out.size} features, not {x.type}", "Put a linear layer before it.")
    if set(b.places(x.type)) != set(cell.output(b, x.type, out)[:-1]):
        b.fail(f"{what} needs an output with the spatial dims of the source, {x.type}", "Pad it, and take no strides.")


CELLS = (Residual, Highway)
