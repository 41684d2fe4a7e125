"""Cells whose source or output goes through a layer of its own: linear, or an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from returnn_lite.config.options import Activation, Init, option
from returnn_lite.dims import Dim, DimKind, MarkedType, Symbol
from returnn_lite.ir.ops.axes import Squeeze
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.unit import DimsOfStates, States, Unit
from returnn_lite.layers.cells.wrapping import Wrapper, below


class _OnOtherSource(Wrapper):
    """A cell on what is made of the source, at all frames: features along a dim of the wrapper's own."""

    def width(self) -> int:
        """How many features."""
        raise TypeError(f"{type(self).__name__} makes no source")

    def made_of(self, b: CellBuilder, x: View, features: Dim) -> View:
        """What the cell reads instead of x."""
        raise TypeError(f"{type(self).__name__} makes no source")

    def out_size_on(self, x: MarkedType) -> int | None:
        source = Symbol("source", DimKind.FEATURE, self.width())
        return self.cell.out_size_on(MarkedType((source,), feature=source))

    def states(self, b: CellBuilder, x: MarkedType, out: Dim) -> DimsOfStates:
        return super().states(b, self._type(b, x), out)

    def output(self, b: CellBuilder, x: MarkedType, out: Dim) -> tuple[Dim, ...]:
        return super().output(b, self._type(b, x), out)

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            return self.inner_step(b, now[0], out, before)

        return Unit((self.made_of(b, x, self._features(b)),), step)

    def _features(self, b: CellBuilder) -> Dim:
        return b.dim("source", self.width())

    def _type(self, b: CellBuilder, x: MarkedType) -> MarkedType:
        features = self._features(b)
        return MarkedType((*(dim for dim in x.dims if dim is not x.feature), features), feature=features)


class InputProjection(_OnOtherSource, names=("inputprojection",)):
    """The cell reads activation(x kernel + bias)."""

    paper = "Sutskever et al. 2014"
    old_options: ClassVar = {**Wrapper.old_options, "num_proj": "projection"}

    projection: int = option("how many features the cell reads", least=1)
    activation: Activation | None = option("the activation function", default=None)
    input_size: int | None = option("has no influence on results: it is that of the source", default=None)

    def width(self) -> int:
        return self.projection

    def reads_labels(self) -> bool:
        return False

    def made_of(self, b: CellBuilder, x: View, features: Dim) -> View:
        return _affine(b, x, features, self.activation)


class Embedding(_OnOtherSource, names=("embedding",)):
    """The cell reads the row of `embedding` for each label. What it starts with is uniform, with variance 1."""

    paper = "Bengio et al. 2003"

    embedding_classes: int | None = option("the number of labels; default: as the source says", default=None, least=1)
    embedding_size: int = option("how many features the cell reads", least=1)
    initializer: Init | None = option("what the rows start with; default: forward_weights_init, if given", default=None)

    def width(self) -> int:
        return self.embedding_size

    def reads_labels(self) -> bool:
        return True

    def made_of(self, b: CellBuilder, x: View, features: Dim) -> View:
        labels = self._labels(b, x)
        assert labels.type.sparse is not None
        bound = 3.0**0.5
        uniform = {"class": "random_uniform_initializer", "minval": -bound, "maxval": bound}
        init = b.inits.input_or(uniform) if self.initializer is None else self.initializer
        rows = b.param("embedding", (labels.type.sparse, features), init)
        return b.with_feature(b.gather(rows, labels, labels.type.sparse), features)

    def _labels(self, b: CellBuilder, x: View) -> View:
        """The source as labels: whole numbers along a feature dim of 1 are some, too, as in TensorFlow."""
        known = x.type.sparse
        if known is not None and self.embedding_classes in (None, known.size):
            return x
        if known is not None:
            assert self.embedding_classes is not None
            if known.size is not None and known.size > self.embedding_classes:
                message = f"embedding_classes is {self.embedding_classes}, but the source has {known.size} labels"
                b.fail(message, "Leave it out.")
            return b.as_index(x, b.dim("labels", self.embedding_classes))
        if x.type.is_float or x.type.feature is None or x.type.feature.size != 1:
            b.fail(f"an embedding needs labels, not {x.type}", "Give a sparse source.")
        if self.embedding_classes is None:
            b.fail("nothing says how many labels there are", "Give embedding_classes.")
        return b.as_index(b.apply(Squeeze(x.type.feature), x), b.dim("labels", self.embedding_classes))


class OutputProjection(Wrapper, names=("outputprojection",)):
    """activation(y kernel + bias) of the cell's output y; its states are as they are."""

    paper = "Sutskever et al. 2014"
    old_options: ClassVar = {**Wrapper.old_options, "output_size": "units"}

    units: int | None = option("size of the output; default: that of the layer's output", default=None, least=1)
    activation: Activation | None = option("the activation function", default=None)

    def out_size(self) -> int | None:
        return self.units

    def out_size_on(self, x: MarkedType) -> int | None:
        return self.units

    def states(self, b: CellBuilder, x: MarkedType, out: Dim) -> DimsOfStates:
        return below("cell", self.cell.states(b.inside("cell"), x, self._hidden(b, x, out)))

    def output(self, b: CellBuilder, x: MarkedType, out: Dim) -> tuple[Dim, ...]:
        hidden = self._hidden(b, x, out)
        inner = self.cell.output(b.inside("cell"), x, hidden)
        return (*(dim for dim in inner if dim is not hidden), out)

    def unit_of_inputs(self, b: CellBuilder, inputs: Sequence[View], out: Dim) -> Unit:
        hidden = self._hidden(b, inputs[-1].type, out)

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            y, after = self.inner_step(b, now, hidden, before)
            return _affine(b, y, out, self.activation), after

        return Unit(tuple(inputs), step)

    def _hidden(self, b: CellBuilder, x: MarkedType, out: Dim) -> Dim:
        """The feature dim of the cell's output: as large as that of the projection, unless it says."""
        size = self.cell.out_size_on(x) or out.size
        assert size is not None
        return b.dim("hidden", size)


def _affine(b: CellBuilder, x: View, out: Dim, activation: str | None) -> View:
    kernel = b.param("kernel", (b.source(x), out), b.inits.input)
    return b.activation(activation, b.input_product(x, kernel, b.param("bias", (out,), b.inits.bias)))


CELLS = (InputProjection, Embedding, OutputProjection)
