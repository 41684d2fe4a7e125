"""What a cell works with: a layer's builder with the arithmetic that cells share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from returnn_lite.dims import Dim, DimKind
from returnn_lite.ir import Op, Origin, Value
from returnn_lite.ir.ops.recurrence import Recurrence, Step
from returnn_lite.ir.ops.reduction import Normalize
from returnn_lite.ir.ops.sources import RandomDraw
from returnn_lite.ir.views import View
from returnn_lite.layers.builder import LayerBuilder
from returnn_lite.layers.cells.inits import Inits
from returnn_lite.layers.cells.parameters import ParameterBuilder
from returnn_lite.layers.cells.unit import States, Steps, Unit

INPUTS = "/inputs"
"""What is behind the mark of steps in that of their input products."""


class CellBuilder(ParameterBuilder):
    """The builder of the cell `scope` of a unit."""

    def __init__(
        self, b: LayerBuilder, scope: str, inits: Inits, input_projection: bool = True, frames: Dim | None = None
    ) -> None:
        super().__init__(b, scope, inits, input_projection, frames)
        self._inside: dict[str, CellBuilder] = {}
        self.unlike_primitive: tuple[str, ...] = ()
        """The options because of which the cell is no primitive."""
        self._origin: tuple[Origin, Origin] | None = None
        """That of the nodes around, and that of the cell's own then."""
        self._mark: str = b._mark if isinstance(b, CellBuilder) else self.ir.origin.recompute
        """What is recomputed where the unit is built, its steps aside."""

    def emit(self, op: Op, *inputs: Value) -> tuple[View, ...]:
        outer = self.ir.origin
        if self._origin is None or self._origin[0] is not outer:
            cell = self.scope.partition("/")[2].rstrip("/")
            self._origin = (outer, replace(outer, cell=cell, unlike_primitive=self.unlike_primitive))
        with self.ir.within(self._origin[1]):
            return super().emit(op, *inputs)

    def inside(self, name: str) -> CellBuilder:
        """The builder of a cell inside of this one, the same one each time that it is asked for."""
        if name not in self._inside:
            self._inside[name] = CellBuilder(self, f"{self.scope}{name}", self.inits, frames=self.frames)
        return self._inside[name]

    # Products

    def input_product(self, x: View, weights: View, bias: View | None = None) -> View:
        """x times the weights, or their rows for sparse x, with the bias added. Where steps alone are recomputed, what
        is made outside of loops is apart from them, so that it is kept."""
        mark = self.ir.origin.recompute
        if mark != self._mark and not mark.endswith(INPUTS):
            with self.ir.within(replace(self.ir.origin, recompute=f"{mark}{INPUTS}")):
                return self.input_product(x, weights, bias)
        source = self.source(x)
        (gates,) = (dim for dim in weights.type.dims if dim is not source)
        product = self.gather(weights, x, source) if x.type.sparse is not None else self.dot(x, weights, source)
        product = self.with_feature(product, gates)
        return product if bias is None else self.add(product, bias)

    def recurrent_product(self, h: View, weights: View, hidden: Dim, recurrent: Dim) -> View:
        """h [hidden], and what is beside it, times weights [recurrent, gates]."""
        (gates,) = (dim for dim in weights.type.dims if dim is not recurrent)
        if self.beside_h is not None:
            h = self.concat_features((self.with_feature(h, hidden), self.beside_h))
            hidden = self.feature_of(h)
        rows = self.relabel(h, hidden, recurrent, "rows of recurrent weights")
        return self.with_feature(self.dot(rows, weights, recurrent), gates)

    def clipped(self, x: View, limit: float | None) -> View:
        """x between -limit and limit; as it is if the limit is None, 0 or less."""
        if limit is None or limit <= 0:
            return x
        return self.binary("maximum", self.binary("minimum", x, limit), -limit)

    def layer_norm(
        self, name: str, over: Dim, gain: float = 1.0, shift: float = 0.0, epsilon: float = 1e-12
    ) -> Callable[[View], View]:
        """(v - mean) / sqrt(variance + epsilon) * gamma + beta over a dim (Ba et al. 2016), with the parameters
        `name`/gamma and `name`/beta, which start with `gain` and `shift`."""
        gamma, beta = self.param(f"{name}/gamma", (over,), gain), self.param(f"{name}/beta", (over,), shift)

        def normed(v: View) -> View:
            return self.add(self.mul(self.apply(Normalize((over,), epsilon), v), gamma), beta)

        return normed

    def blocks(self, gates: View, over: Dim, hidden: Dim, order: str | Sequence[str]) -> dict[str, View]:
        """The blocks of pre-activations [over] by name, each with the hidden dim."""
        blocks = self.split(gates, over, [hidden] * len(order))
        return {name: self.with_feature(block, hidden) for name, block in zip(order, blocks, strict=True)}

    def mixture(self, gate: View, one: View, other: View) -> View:
        """gate * one + (1 - gate) * other."""
        return self.add(self.mul(gate, one), self.mul(self.sub(1.0, gate), other))

    # Dropout

    def kept_or_zero(self, dims: Sequence[Dim], rate: float, name: str, *, fresh: bool) -> View:
        """Numbers to multiply by for dropout: 0 with probability `rate`, else 1 / (1 - rate)."""
        drawn = self.apply(RandomDraw("uniform", 0.0, 1.0, tuple(dims), self.seed(name), fresh=fresh))
        return self.select(self.binary("greater_equal", drawn, rate), 1.0 / (1.0 - rate), 0.0)

    def sequence_mask(self, name: str, rate: float, *dims: Dim) -> View | None:
        """Dropout with one mask for all steps of a sequence (Gal and Ghahramani 2016); None where nothing drops."""
        if not rate or not self.mode.train:
            return None
        return self.kept_or_zero((self.batch, *dims), rate, name, fresh=False)

    def dropped(self, value: View, rate: float, name: str, *, fresh: bool, shared_by_batch: bool = False) -> View:
        """A value with dropout: with a mask of each step, `fresh`, or one for all steps; and one of each sequence (and
        of all else that it is computed for), or one for all of them. The value itself out of training."""
        if not rate or not self.mode.train:
            return value
        dims = value.type.dims
        if shared_by_batch:
            dims = tuple(dim for dim in dims if not dim.is_dynamic and dim.kind in (DimKind.FEATURE, DimKind.SPATIAL))
        elif not any(dim.kind is DimKind.BATCH for dim in dims):
            # The batch may not be among the dims yet, where a cycle is being built.
            dims = (self.batch, *dims)
        return self.mul(value, self.kept_or_zero(dims, rate, name, fresh=fresh))

    def dropped_weights(self, weights: View, rate: float) -> View:
        """Recurrent weights with dropout, one mask for the whole sequence (`rec_weight_dropout`)."""
        if not rate or not self.mode.train:
            return weights
        return self.mul(weights, self.kept_or_zero(weights.type.dims, rate, "rec_weight_dropout", fresh=False))

    # Units

    def stepwise(
        self,
        inputs: tuple[View, ...],
        step: Callable[[Sequence[View], States], tuple[View, States]],
        unlike_primitive: Sequence[str],
    ) -> Unit:
        """A unit that would be a primitive but for these options."""
        self.unlike_primitive, self._origin = tuple(unlike_primitive), None
        return Unit(inputs, step)

    def fused(
        self, inputs: tuple[View, ...], weights: tuple[View, ...], keys: Sequence[str], hidden: Dim, step: Step
    ) -> Unit:
        """A unit of one primitive, whose operands are inputs, weights, states; the first state is the output."""

        def named(results: Sequence[View]) -> tuple[View, States]:
            found = [self.as_features(result, hidden) for result in results]
            return found[0], dict(zip(keys, found, strict=True))

        def one_step(now: Sequence[View], before: States) -> tuple[View, States]:
            return named(self.emit(step, *now, *weights, *(before[key] for key in keys)))

        def whole_sequence(steps: Steps, before: States) -> tuple[View, States]:
            recurrence = Recurrence(step, steps.over, steps.reverse, steps.unroll)
            return named(self.emit(recurrence, *inputs, *weights, *(before[key] for key in keys)))

        return Unit(inputs, one_step, whole_sequence)
