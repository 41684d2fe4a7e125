"""2D LSTMs over the plane that two sequences span (SEMANTICS 4, 8.4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from returnn_lite.config.options import Init, option
from returnn_lite.dims import Dim, DimKind, Symbol, linear_dim
from returnn_lite.ir.ops.planes import PlaneLstmCell, PlaneLstmStep
from returnn_lite.ir.ops.reduction import Last
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder


@dataclass(frozen=True)
class Sides:
    """The sequences that span the plane: frames of the first, [.., along, F], and one frame or all of the second."""

    first: View
    second: View
    along: Dim


class TwoDLstm(Layer, names=("twod_lstm",)):
    """A 2D LSTM over each frame of the first source with each of the second, pooled over the first (Leifert et al.
    2016; Voigtlaender et al. 2016; for translation Bahar et al. 2018).

    Where the second source is one step of the loop around, the step computes one row of the plane below the row of the
    step before; else the whole plane. A frame of the plane sees the frame before along the first source, and the one
    before along the second. The parameters Vh_re, Vv_re [n, 5n] and W_re [both sources, 5n] have the gates i, f,
    lambda, o and the cell candidate; there is no bias.
    """

    source_count = (2, 2)

    pooling: Literal["last", "max", "average", "weighted"] = option(
        "what of each row is the output; weighted: its mean by the softmax of a product with the second source",
        default="last",
    )
    unit_opts: dict[str, Any] | None = option("options of the unit, which has none", default=None)
    forward_weights_init: Init | None = option(
        "initialiser of all weights, if recurrent_weights_init is not given", default=None
    )
    recurrent_weights_init: Init | None = option("initialiser of all weights; default glorot_uniform", default=None)
    bias_init: Init | None = option(
        "initialiser of the bias", default=None, unsupported="a 2D LSTM has no bias. Leave it out"
    )

    def build(self, b: LayerBuilder, first: View, second: View) -> View:
        if self.unit_opts:
            b.fail(f"unit_opts: a 2D LSTM has no option '{next(iter(self.unit_opts))}'", "Leave it out.", "unit_opts")
        hidden = b.out_feature()
        recurrent = Symbol(f"{b.name}:recurrent", DimKind.FEATURE, hidden.size)
        time = second.type.default_time
        if time is None and b.loop is None:
            b.fail(f"the second source has no time axis: {second.type}", "Give one that has, or use a loop.", "from")
        sides = _sides(b, first, second, hidden, time)
        gates = linear_dim([(hidden, 5)], 0)
        cell = PlaneLstmCell(hidden, recurrent, gates, sides.along)
        products = self._products(b, sides, gates)
        weights = [b.param(f"rec-twod/{name}", (recurrent, gates), self._init) for name in ("Vh_re", "Vv_re")]
        over = time if time is not None else b.loop
        assert over is not None
        zero = b.constant_outside(0.0, products[0].type.dtype, (sides.along, hidden)) if over is b.loop else None
        if zero is None:  # as long as the first source, whose length only the step may know by this name
            never = b.binary("greater", b.slice(products[0], gates, 0, hidden), math.inf)
            zero = b.cast(never, products[0].type.dtype)
        plane, _ = b.recurrence(PlaneLstmStep(cell), *products, *weights, zero, zero, over=over, names=("h", "c"))
        pooled = self._pooled(b, b.as_features(plane, hidden), sides, hidden)
        return b.marked(pooled, hidden, second.type.time)

    @property
    def _init(self) -> Init:
        given = (self.recurrent_weights_init, self.forward_weights_init)
        return next((init for init in given if init is not None), "glorot_uniform")

    def _products(self, b: LayerBuilder, sides: Sides, gates: Dim) -> list[View]:
        """Each source with its rows of the input weights."""
        rows, columns = b.feature_of(sides.first), b.feature_of(sides.second)
        joint = linear_dim([(rows, 1), (columns, 1)], 0)
        weights = b.param("rec-twod/W_re", (joint, gates), self._init)
        parts = [b.slice(weights, joint, 0, rows), b.slice(weights, joint, rows, columns)]
        return [
            b.with_feature(b.dot(source, part, b.feature_of(source)), gates)
            for source, part in zip((sides.first, sides.second), parts, strict=True)
        ]

    def _pooled(self, b: LayerBuilder, plane: View, sides: Sides, hidden: Dim) -> View:
        match self.pooling:
            case "last":
                return b.apply(Last(sides.along), plane, b.constant(0.0, plane.type.dtype))
            case "max" | "average":
                return b.reduce("mean" if self.pooling == "average" else "max", plane, sides.along)
            case "weighted":
                columns = b.feature_of(sides.second)
                weights = b.param("rec-twod/W_att", (columns, hidden), self._init)
                query = b.dot(sides.second, weights, columns)
                energy = b.dot(query, plane, hidden)
                return b.dot(b.softmax(energy, sides.along), plane, sides.along)


def _sides(b: LayerBuilder, first: View, second: View, hidden: Dim, time: Dim | None) -> Sides:
    """The sources, with names of their own for dims that the plane would have twice."""
    for position, source in enumerate((first, second)):
        if source.type.feature is None or not source.type.is_float:
            b.fail(f"'{b.source_names[position]}' must have a feature dim, of floats: {source.type}", "", "from")
    along = first.type.default_time
    if along is None:
        b.fail(f"the first source has no time axis: {first.type}", "Give the sequence that rows go along.", "from")
    if b.ir.is_made_by_step(along) or any(b.loop in dim.over for dim in along.leaves):
        b.fail(
            f"the length of {along} differs from step to step, so that rows do not fit each other",
            "Give a first source of the same length at each step.",
            "from",
        )
    if along in (time, b.loop) or along in second.type:
        other = b.copy_of_dim(along)
        first, along = b.relabel(first, along, other), other
    return Sides(_with_own_feature(b, first, hidden), _with_own_feature(b, second, hidden), along)


def _with_own_feature(b: LayerBuilder, source: View, hidden: Dim) -> View:
    return b.relabel(source, hidden, b.copy_of_dim(hidden)) if hidden in source.type else source


LAYERS = (TwoDLstm,)
