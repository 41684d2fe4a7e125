"""What a cell works with: a layer's builder that knows how the parameters of the cell are called and initialised."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from returnn_lite.config.options import Init
from returnn_lite.dims import Dim, DimKind, MarkedType, Symbol, linear_dim
from returnn_lite.ir.ops.recurrence import Recurrence, Step
from returnn_lite.ir.ops.reduction import Normalize
from returnn_lite.ir.ops.sources import Initializer, RandomDraw
from returnn_lite.ir.views import View
from returnn_lite.layers.builder import LayerBuilder
from returnn_lite.layers.cells.unit import States, Unit
from returnn_lite.layers.errors import LayerError
from returnn_lite.layers.initializers import initializer as initializer_of


@dataclass(frozen=True)
class Inits:
    """The initialisers of a unit, as the options of its layer say; None where they say nothing."""

    given_input: Init | None = None
    given_recurrent: Init | None = None
    given_bias: Init | None = None

    @property
    def input(self) -> Init:
        return self.input_or("glorot_uniform")

    def input_or(self, default: Init) -> Init:
        """What input weights start with, where a cell has a default of its own."""
        return default if self.given_input is None else self.given_input

    @property
    def recurrent(self) -> Init:
        return self.recurrent_or("glorot_uniform")

    @property
    def bias(self) -> Init:
        return self.bias_or(0.0)

    def recurrent_or(self, default: Init) -> Init:
        """What recurrent weights start with, where a cell has a default of its own."""
        return default if self.given_recurrent is None else self.given_recurrent

    def bias_or(self, default: Init) -> Init:
        """What a bias starts with, where a cell has a default of its own."""
        return default if self.given_bias is None else self.given_bias


class CellBuilder(LayerBuilder):
    """A layer's builder for the cell `scope` of its unit: parameters are called after that."""

    def __init__(
        self, b: LayerBuilder, scope: str, inits: Inits, input_projection: bool = True, frames: Dim | None = None
    ) -> None:
        super().__init__(b.ir, b.surroundings, b.name, b.local_name)
        self.scope = f"{scope}/"
        self._dims: dict[str, Dim] = {}
        self._copies: dict[Dim, Dim] = {}
        self._inside: dict[str, CellBuilder] = {}
        self.inits = inits
        self.input_projection = input_projection
        """False: the source goes into the gates as it is."""
        self.frames = frames
        """What the unit runs over, as far as the source has it: no dim of a step."""
        self.beside_h: View | None = None
        """What recurrent weights are multiplied with, behind h."""

    def seeing(self, beside_h: View) -> CellBuilder:
        """This builder, for a cell whose recurrent weights see a value behind h."""
        found = copy.copy(self)
        found.beside_h = beside_h
        return found

    def starting_with(self, initializer: Init | None) -> CellBuilder:
        """This builder, for a cell that says what its weights start with, where its layer says nothing. Raises
        LayerError for what is no initialiser."""
        if initializer is None:
            return self
        try:
            initializer_of(initializer)
        except LayerError as error:
            self.fail(error.message, error.hint)
        found, own = copy.copy(self), self.inits
        found.inits = Inits(
            initializer if own.given_input is None else own.given_input,
            initializer if own.given_recurrent is None else own.given_recurrent,
            own.given_bias,
        )
        return found

    def inside(self, name: str) -> CellBuilder:
        """The builder of a cell inside of this one, the same one each time that it is asked for."""
        if name not in self._inside:
            self._inside[name] = CellBuilder(self, f"{self.scope}{name}", self.inits, frames=self.frames)
        return self._inside[name]

    def fail(self, message: str, hint: str = "", option: str = "unit") -> NoReturn:
        super().fail(message, hint, option)

    def activation(self, name: str | None, value: View, options: Mapping[str, float | int] | None = None) -> View:
        try:
            return super().activation(name, value, options)
        except LayerError as error:
            self.fail(error.message, error.hint)

    def dim(self, name: str, size: int) -> Dim:
        """A static feature dim of the cell, the same one each time that it is asked for."""
        if name not in self._dims:
            self._dims[name] = Symbol(self._named(name), DimKind.FEATURE, size)
        return self._dims[name]

    def own_copy(self, of: Dim) -> Dim:
        """A copy of a dim, the same one each time that it is asked for."""
        return self._copies.setdefault(of, self.copy_of_dim(of))

    def places(self, x: MarkedType) -> tuple[Dim, ...]:
        """The spatial dims of a source: all but those of sequences, frames and features."""
        outer = (DimKind.BATCH, DimKind.BEAM)
        return tuple(dim for dim in x.dims if dim not in (x.feature, self.frames) and dim.kind not in outer)

    def seed(self, name: str) -> str:
        """What a random draw of the cell is called."""
        return self._named(name)

    def _named(self, name: str) -> str:
        """A name of the cell with the layer's before it, and those of the cells around it: `rnn:0/cell/name`."""
        _, _, inside = self.scope.partition("/")
        return f"{self.name}:{inside}{name}"

    # Parameters

    def rows(self, of: Dim, name: str = "recurrent") -> Dim:
        """The dim of the rows of weights that are multiplied with states along `of`, and with what is beside them: a
        matrix can't have a dim twice."""
        size = of.size
        if size is not None and self.beside_h is not None:
            size += self.feature_of(self.beside_h).size or 0
        return Symbol(f"{self.name}:{name}", DimKind.FEATURE, size)

    def source(self, x: View) -> Dim:
        """The dim of the rows of the input weights."""
        return x.type.sparse if x.type.sparse is not None else self.feature_of(x)

    def joint_kernel(self, name: str, x: View, recurrent: Dim, out: Dim) -> tuple[View, View]:
        """TensorFlow's kernel over [x; h], as the part for x and the part for h."""
        for_x, for_h = self.kernel_parts(name, (self.source(x), recurrent), out)
        return for_x, for_h

    def kernel_parts(self, name: str, rows: Sequence[Dim], out: Dim) -> list[View]:
        """A kernel over joined inputs, as the parts for each."""
        joined = linear_dim([(dim, 1) for dim in rows], 0)
        kernel = self.param(name, (joined, out), self.inits.input)
        starts = [linear_dim([(dim, 1) for dim in rows[:i]], 0) if i else 0 for i in range(len(rows))]
        return [self.slice(kernel, joined, start, dim) for start, dim in zip(starts, rows, strict=True)]

    def bias_blocks(self, name: str, values: Sequence[float]) -> Initializer | Init:
        """What a bias starts with where the option `name` says: a number for the part of each gate; else
        `bias_init`."""
        if not any(values):
            return self.inits.bias
        if self.inits.bias not in (0, "zeros"):
            self.fail(f"{name} says what the bias starts with, and bias_init, too", "Leave out one.", "bias_init")
        return Initializer("blocks", tuple((str(number), value) for number, value in enumerate(values)))

    def require_input_projection(self) -> None:
        """Refuses `input_projection: false` for cells whose input weights are no parameter of their own."""
        if not self.input_projection:
            hint = "Use nativelstm2, or leave it out."
            self.fail("input_projection: this unit can't go without its input weights", hint, "input_projection")

    # Products

    def input_product(self, x: View, weights: View, bias: View | None = None) -> View:
        """x times the weights, or their rows for sparse x, with the bias added."""
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

    def fused(
        self, inputs: tuple[View, ...], weights: tuple[View, ...], keys: Sequence[str], hidden: Dim, step: Step
    ) -> Unit:
        """A unit of one primitive, whose operands are inputs, weights, states; the first state is the output."""

        def named(results: Sequence[View]) -> tuple[View, States]:
            found = [self.as_features(result, hidden) for result in results]
            return found[0], dict(zip(keys, found, strict=True))

        def one_step(now: Sequence[View], before: States) -> tuple[View, States]:
            return named(self.emit(step, *now, *weights, *(before[key] for key in keys)))

        def whole_sequence(over: Dim, reverse: bool, before: States) -> tuple[View, States]:
            recurrence = Recurrence(step, over, reverse)
            return named(self.emit(recurrence, *inputs, *weights, *(before[key] for key in keys)))

        return Unit(inputs, one_step, whole_sequence)
