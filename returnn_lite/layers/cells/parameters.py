"""The parameters and dims of a cell: what they are called, what they start with, and kernels over joined inputs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import NoReturn, Self

from returnn_lite.config.options import Init
from returnn_lite.dims import Dim, DimKind, MarkedType, Symbol, linear_dim
from returnn_lite.ir.ops.sources import Initializer
from returnn_lite.ir.views import View
from returnn_lite.layers.builder import LayerBuilder
from returnn_lite.layers.cells.inits import Inits
from returnn_lite.layers.errors import LayerError
from returnn_lite.layers.initializers import initializer as initializer_of


class ParameterBuilder(LayerBuilder):
    """A layer's builder that makes the parameters of the cell `scope` of its unit: they are called after that."""

    def __init__(
        self, b: LayerBuilder, scope: str, inits: Inits, input_projection: bool = True, frames: Dim | None = None
    ) -> None:
        super().__init__(b.ir, b.surroundings, b.name, b.local_name)
        self.scope = f"{scope}/"
        self._dims: dict[str, Dim] = {}
        self._copies: dict[Dim, Dim] = {}
        self.inits = inits
        self.input_projection = input_projection
        """False: the source goes into the gates as it is."""
        self.frames = frames
        """What the unit runs over, as far as the source has it: no dim of a step."""
        self.beside_h: View | None = None
        """What recurrent weights are multiplied with, behind h."""

    def seeing(self, beside_h: View) -> Self:
        """This builder, for a cell whose recurrent weights see a value behind h."""
        found = copy.copy(self)
        found.beside_h = beside_h
        return found

    def starting_with(self, initializer: Init | None) -> Self:
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

    def fail(self, message: str, hint: str = "", option: str = "unit") -> NoReturn:
        super().fail(message, hint, option)

    def activation(self, name: str | None, value: View, options: Mapping[str, float | int] | None = None) -> View:
        try:
            return super().activation(name, value, options)
        except LayerError as error:
            self.fail(error.message, error.hint)

    def dim(self, name: str, size: int | None) -> Dim:
        """A feature dim of the cell, the same one each time that it is asked for; without a size while the source has
        none."""
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
