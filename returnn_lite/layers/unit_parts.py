"""What recurrent units are made from: their options and parameters, and what a unit is once it has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from returnn_lite.config.options import Init
from returnn_lite.dims import Dim, DimKind, Symbol, linear_dim
from returnn_lite.ir.ops.recurrence import Recurrence, Step
from returnn_lite.ir.ops.sources import Initializer, RandomDraw
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder

States = Mapping[str, View]


@dataclass(frozen=True)
class Unit:
    """A unit with its parameters made.

    `inputs` is what does not depend on the state: products of the source, at all frames or at one. `states` has the
    dim of each state by key. `step` goes from inputs and states to the output and the next states; `whole` does the
    same for the frames of a dim, or backwards over them. Without it a whole sequence is a loop over steps.
    """

    inputs: tuple[View, ...]
    states: Mapping[str, Dim]
    step: Callable[[Sequence[View], States], tuple[View, States]]
    whole: Callable[[Dim, bool, States], tuple[View, States]] | None = None


@dataclass(frozen=True)
class UnitOptions:
    """What a unit is made from."""

    name: str
    options: Mapping[str, Any]
    input_init: Init
    recurrent_init: Init
    bias_init: Init
    input_projection: bool = True

    def number(self, b: LayerBuilder, name: str, default: float) -> float:
        """A number of unit_opts."""
        value = self.options.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            b.fail(f"unit_opts: {name} is a number, not {value!r}", "", "unit_opts")
        return float(value)

    def rate(self, b: LayerBuilder, name: str) -> float:
        """A probability of unit_opts, 0 by default."""
        value = self.number(b, name, 0.0)
        if not 0.0 <= value < 1.0:
            b.fail(f"unit_opts: {name} is at least 0 and below 1, not {value}", "", "unit_opts")
        return value

    def flag(self, b: LayerBuilder, name: str, default: bool) -> bool:
        """A yes or no of unit_opts."""
        value = self.options.get(name, default)
        if not isinstance(value, bool):
            b.fail(f"unit_opts: {name} is true or false, not {value!r}", "", "unit_opts")
        return value

    def activation(self, b: LayerBuilder) -> str:
        """The activation function of unit_opts, tanh by default."""
        value = self.options.get("activation") or "tanh"
        if not isinstance(value, str):
            b.fail(f"unit_opts: activation is the name of a function, not {value!r}", "", "unit_opts")
        return value


def fused_unit(
    b: LayerBuilder,
    inputs: tuple[View, ...],
    weights: tuple[View, ...],
    states: Mapping[str, Dim],
    step: Step,
) -> Unit:
    """A unit of one primitive, whose operands are inputs, weights, states; the first state is the output."""

    def named(results: Sequence[View]) -> tuple[View, States]:
        found = [b.as_features(result, dim) for result, dim in zip(results, states.values(), strict=True)]
        return found[0], dict(zip(states, found, strict=True))

    def one_step(now: Sequence[View], before: States) -> tuple[View, States]:
        return named(b.emit(step, *now, *weights, *(before[key] for key in states)))

    def whole_sequence(over: Dim, reverse: bool, before: States) -> tuple[View, States]:
        return named(b.emit(Recurrence(step, over, reverse), *inputs, *weights, *(before[key] for key in states)))

    return Unit(inputs, states, one_step, whole_sequence)


def check_options(b: LayerBuilder, options: UnitOptions, known: Sequence[str]) -> None:
    """Refuses unit_opts that the unit does not have."""
    for name in options.options:
        if name not in known:
            listed = ", ".join(known) or "none"
            b.fail(f"unit_opts: '{name}' is not an option of {options.name}", f"It has {listed}.", "unit_opts")


def require_input_projection(b: LayerBuilder, options: UnitOptions) -> None:
    """Refuses `input_projection: false` for units whose input weights are no parameter of their own."""
    if not options.input_projection:
        b.fail(
            f"input_projection: {options.name} can't go without its input weights",
            "Use nativelstm2, or leave it out.",
            "input_projection",
        )


def hidden_dims(b: LayerBuilder) -> tuple[Dim, Dim]:
    """The output dim of a unit, and the dim of the rows of recurrent weights: a matrix can't have a dim twice."""
    hidden = b.out_feature()
    return hidden, Symbol(f"{b.name}:recurrent", DimKind.FEATURE, hidden.size)


def source_dim(b: LayerBuilder, x: View) -> Dim:
    """The dim of the rows of the input weights."""
    return x.type.sparse if x.type.sparse is not None else b.feature_of(x)


def input_product(b: LayerBuilder, x: View, weights: View, source: Dim, bias: View | None = None) -> View:
    """x times the weights, or their rows for sparse x, with the bias added."""
    (gates,) = (dim for dim in weights.type.dims if dim is not source)
    if x.type.sparse is not None:
        product = b.gather(weights, x, source)
    else:
        product = b.dot(x, weights, source)
    product = b.with_feature(product, gates)
    return product if bias is None else b.add(product, bias)


def recurrent_product(b: LayerBuilder, h: View, weights: View, hidden: Dim, recurrent: Dim) -> View:
    """h [hidden] times weights [recurrent, gates]."""
    (gates,) = (dim for dim in weights.type.dims if dim is not recurrent)
    return b.with_feature(
        b.dot(b.relabel(h, hidden, recurrent, "rows of recurrent weights"), weights, recurrent), gates
    )


def joint_kernel(
    b: LayerBuilder, name: str, x: View, recurrent: Dim, out: Dim, options: UnitOptions
) -> tuple[Dim, View, View]:
    """TensorFlow's kernel over [x; h], as the part for x and the part for h."""
    source = source_dim(b, x)
    rows = linear_dim([(source, 1), (recurrent, 1)], 0)
    kernel = b.param(name, (rows, out), options.input_init)
    for_x = b.slice(kernel, rows, 0, source)
    return source, for_x, b.slice(kernel, rows, source, recurrent)


def bias_blocks(b: LayerBuilder, options: UnitOptions, name: str, values: Sequence[float]) -> Initializer | Init:
    """What a bias starts with where unit_opts say: a number for the part of each gate; else `bias_init`."""
    if not any(values):
        return options.bias_init
    if options.bias_init not in (0, "zeros"):
        b.fail(f"unit_opts: {name} says what the bias starts with, and bias_init, too", "Leave out one.", "unit_opts")
    return Initializer("blocks", tuple((str(number), value) for number, value in enumerate(values)))


def sequence_mask(b: LayerBuilder, options: UnitOptions, name: str, hidden: Dim) -> View | None:
    """Dropout on a state, one mask for all steps of a sequence (Gal and Ghahramani 2016); None where nothing drops."""
    rate = options.rate(b, name)
    if not rate or not b.mode.train:
        return None
    return kept_or_zero(b, (b.batch, hidden), rate, f"{b.name}:{name}", fresh=False)


def dropped_weights(b: LayerBuilder, weights: View, options: UnitOptions) -> View:
    """Recurrent weights with dropout, one mask for the whole sequence (`rec_weight_dropout`)."""
    rate = options.rate(b, "rec_weight_dropout")
    if not rate or not b.mode.train:
        return weights
    return b.mul(weights, kept_or_zero(b, weights.type.dims, rate, f"{b.name}:rec_weight_dropout", fresh=False))


def kept_or_zero(b: LayerBuilder, dims: Sequence[Dim], rate: float, seed: str, *, fresh: bool) -> View:
    """Numbers to multiply by for dropout: 0 with probability `rate`, else 1 / (1 - rate)."""
    drawn = b.apply(RandomDraw("uniform", 0.0, 1.0, tuple(dims), seed, fresh=fresh))
    return b.select(b.binary("greater_equal", drawn, rate), 1.0 / (1.0 - rate), 0.0)
