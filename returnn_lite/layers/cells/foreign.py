"""Cells that another system runs, such as a user's Keras cell: a step is one primitive, of which nothing is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from returnn_lite.config.options import Kind, option
from returnn_lite.dims import Dim, MarkedType, Unknown
from returnn_lite.ir.foreign_cells import CellError, CellSeed, CellWeight, ForeignCell, StepFunction
from returnn_lite.ir.ops.foreign import CellStep
from returnn_lite.ir.ops.sources import Initializer, RandomDraw
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.unit import DimsOfStates, States, Unit

LARGEST_SEED = 2**31 - 1


class NotBuilt:
    """Stands for a cell on a source whose size is not known yet, where only types are asked for."""

    weights: Sequence[CellWeight] = ()

    def seeds(self, training: bool) -> Sequence[CellSeed]:
        return ()

    def step(
        self, inputs: Any, states: Sequence[Any], weights: Sequence[Any], seeds: Sequence[Any], training: bool
    ) -> tuple[Any, ...]:
        raise CellError("no step can be run of a cell whose source has no size")


class Foreign(Cell):
    """The cell of another system. Its parameters are called as there, and start as there; a state is called after its
    path in what the cell says of its states: 0, 1, or 0/1."""

    cell: Annotated[ForeignCell, Kind("foreign cell")] = option("the cell")

    @property
    def called(self) -> str:
        return self.cell.name

    def state_keys(self) -> tuple[str, ...]:
        return tuple(self.cell.state_sizes)

    def out_size(self) -> int | None:
        return self.cell.output_size

    def states(self, b: CellBuilder, x: MarkedType, out: Dim) -> DimsOfStates:
        return {key: (b.dim(f"state {key}", size),) for key, size in self.cell.state_sizes.items()}

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        self._refuse_options(b, x, out)
        features = b.feature_of(x)
        training = b.mode.train
        try:
            function = self._on(b, features)
            seeds = function.seeds(training)
        except CellError as error:
            b.fail(error.message, error.hint)
        weights = [self._weight(b, function, place) for place in range(len(function.weights))]
        keys = self.state_keys()
        states = tuple(dims[-1] for dims in self.states(b, x.type, out).values())
        pair = b.dim("seed", 2) if seeds else None
        shapes = tuple(weight.type.dims for weight in weights)
        op = CellStep(function, self.cell.name, features, states, out, shapes, pair, training)

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            drawn = [] if pair is None else [
                b.apply(RandomDraw("uniform", 0, LARGEST_SEED, (pair,), b.seed(one.name), "int32", one.each_step))
                for one in seeds
            ]  # fmt: skip
            results = b.emit(op, now[0], *(before[key] for key in keys), *weights, *drawn)
            y, *after = (b.as_features(one, dim) for one, dim in zip(results, (out, *states), strict=True))
            return y, dict(zip(keys, after, strict=True))

        return Unit((x,), step)

    def _on(self, b: CellBuilder, features: Dim) -> StepFunction:
        if features.size is not None:
            return self.cell.on(features.size)
        # A layer that is tried before it is built may not know yet what it reads.
        if not any(isinstance(part, Unknown) for part in features.leaves):
            b.fail(f"{self.cell.name} needs a source of a fixed size, not {features}", "", "from")
        return NotBuilt()

    def _weight(self, b: CellBuilder, function: StepFunction, place: int) -> View:
        weight = function.weights[place]
        dims = [b.dim(f"{weight.name} {axis}", size) for axis, size in enumerate(weight.shape)]
        first = Initializer("given", given=weight.first)
        return b.param(weight.name, dims, first, trainable=weight.trainable)

    def _refuse_options(self, b: CellBuilder, x: View, out: Dim) -> None:
        """Fails for what the options of the layer ask, but the cell decides."""
        if x.type.sparse is not None or not x.type.is_float:
            b.fail(
                f"{self.cell.name} needs a source of features, not {x.type}", "Put a linear layer before it.", "from"
            )
        if b.inits.given_input is not None or b.inits.given_recurrent is not None or b.inits.given_bias is not None:
            b.fail(f"{self.cell.name} says itself what its weights start with", "Give it initialisers there.")
        b.require_input_projection()
        if out.size != self.cell.output_size:
            b.fail(f"{self.cell.name} has {self.cell.output_size} features, but {out.size} are needed here")
