"""A unit as the graph of one step: from a frame of its source and the states to its output and the next states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from returnn_lite.dims import Dim, DimKind, MarkedType, Symbol
from returnn_lite.ir import Graph, walk
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.sources import Parameter, RandomDraw
from returnn_lite.ir.views import View
from returnn_lite.layers.builder import LayerBuilder
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.inits import Inits
from returnn_lite.layers.cells.wrapping import unit_on
from returnn_lite.layers.errors import LayerError
from returnn_lite.layers.preactivations import Preactivations
from returnn_lite.layers.surroundings import Compilation, Given, Mode, Outputs
from returnn_lite.passes.pipeline import optimize

TRAINING = Mode(train=True, losses=False, search=False)
INFERENCE = Mode(train=False, losses=False, search=False)
BEHAVIOR = 21
"""The version of RETURNN's defaults: the last one."""
SOURCE, OUTPUT = "source", "output"
SCOPE = "rec"
"""What names of parameters begin with below a layer."""
NO_LAYERS = "Run the cell in a network of ours: {class: rec, unit: ...}."


@dataclass(frozen=True)
class Step:
    """The graph, whose inputs are called `SOURCE` and by the keys of the states, its outputs `OUTPUT` and by these.

    `axes` has the dims of each of them in the order that the world around has: the batch, spatial dims, features.
    """

    graph: Graph
    batch: Dim
    axes: Mapping[str, tuple[Dim, ...]]
    keys: tuple[str, ...]
    """Of the states, in their order."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The sizes of each without the batch."""
        return {name: tuple(dim.size or 0 for dim in dims[1:]) for name, dims in self.axes.items()}

    @property
    def draws(self) -> bool:
        """Whether it draws random numbers."""
        return bool(self._draws)

    @property
    def draws_anew(self) -> bool:
        """Whether it draws some at each step."""
        return any(op.fresh for op in self._draws)

    @property
    def _draws(self) -> list[RandomDraw]:
        return [node.op for node in walk(self.graph.nodes) if isinstance(node.op, RandomDraw)]


def step_of(cell: Cell, shape: Sequence[int], inits: Inits, *, training: bool, labels: bool) -> Step:
    """The step of a cell on a frame of this shape, without the batch. Raises LayerError.

    Of a cell with several inputs the frame has all of them, joined along the features, of which each but the last has
    one. `labels`: the frame has whole numbers.
    """
    around = _Around(TRAINING if training else INFERENCE)
    builder, b = around.builder, around.cells(inits)
    x = around.source(shape, "int32" if labels else "float32")
    sources = _parts(b, x, len(cell.input_names()))
    out = _output_dim(b, cell, sources[-1].type)
    states = cell.states(b, sources[-1].type, out)
    unit = unit_on(b, cell, sources, out)
    before = {key: builder.input(key, _state(around.batch, dims)) for key, dims in states.items()}
    y, after = unit.step(unit.inputs, before)
    axes = {
        SOURCE: x.type.dims,
        OUTPUT: (around.batch, *cell.output(b, sources[-1].type, out)),
        **{key: (around.batch, *dims) for key, dims in states.items()},
    }
    results = {OUTPUT: y, **{key: after[key] for key in states}}
    return Step(optimize(builder.graph(results), enabled=False, verify_each=False), around.batch, axes, tuple(states))


def shapes_on_any_source(cell: Cell) -> dict[str, tuple[int, ...]]:
    """The shapes of the output and the states of a cell on a source of features, whatever their number. Raises
    LayerError if they depend on it."""
    around = _Around(INFERENCE)
    b = around.cells(Inits())
    x = MarkedType((around.batch, features := Symbol("x:features", DimKind.FEATURE)), feature=features)
    out = _output_dim(b, cell, x)
    dims = {OUTPUT: cell.output(b, x, out), **cell.states(b, x, out)}
    found: dict[str, tuple[int, ...]] = {}
    for name, each in dims.items():
        found[name] = tuple(dim.size for dim in each if dim.size is not None)
        if len(found[name]) < len(each):
            b.fail(f"the size of '{name}' depends on the source")
    return found


def _output_dim(b: CellBuilder, cell: Cell, x: MarkedType) -> Dim:
    """The feature dim of the output. Raises LayerError if the options of the cell do not say its size."""
    size = cell.out_size_on(x)
    if size is None:
        b.fail("nothing says the size of the output", "Give units.")
    return b.new_feature(size)


def _state(batch: Dim, dims: tuple[Dim, ...]) -> MarkedType:
    feature = dims[-1] if dims[-1].kind is DimKind.FEATURE else None
    return MarkedType((batch, *dims), feature=feature)


def _parts(b: CellBuilder, x: View, count: int) -> list[View]:
    """The inputs of a cell that are joined in a source. Raises LayerError for a source that is too small."""
    if count == 1:
        return [x]
    features = b.feature_of(x)
    rest = (features.size or 0) - (count - 1)
    if rest < 1:
        b.fail(f"the source has {features.size} features, which are no {count} inputs", "Join them along features.")
    dims = [b.dim(f"input{i}", 1) for i in range(count - 1)] + [b.dim("features", rest)]
    return [b.with_feature(part, dim) for part, dim in zip(b.split(x, features, dims), dims, strict=True)]


class _Around:
    """What a cell sees of the network around it: nothing but its parameters, under their names below the cell."""

    def __init__(self, mode: Mode) -> None:
        preactivations = Preactivations()
        self.batch = Symbol("B", DimKind.BATCH)
        self.builder = Builder(preactivations.follow)
        self.compilation = Compilation(mode, BEHAVIOR, self.batch, {}, preactivations)
        self.given = Given()
        self._parameters: dict[str, View] = {}

    def cells(self, inits: Inits) -> CellBuilder:
        """The builder of a cell."""
        return CellBuilder(LayerBuilder(self.builder, self, "cell", "cell"), SCOPE, inits)

    def source(self, shape: Sequence[int], dtype: str) -> View:
        """A frame of the source: features last, spatial dims before."""
        *places, size = shape
        spatial = [Symbol(f"x:place{i}", DimKind.SPATIAL, each) for i, each in enumerate(places)]
        features = Symbol("x:features", DimKind.FEATURE, size)
        return self.builder.input(SOURCE, MarkedType((self.batch, *spatial, features), dtype, feature=features))

    @property
    def target(self) -> Any:
        """There is none."""
        raise LayerError("a cell has no target")

    @property
    def search(self) -> Any:
        """There is none."""
        raise LayerError("a cell is in no search")

    def layer(self, reference: str) -> Outputs:
        """There is no other layer."""
        raise LayerError(f"there is no layer '{reference}': Keras' loops give a cell its source only", NO_LAYERS)

    def out_feature(self) -> Dim | None:
        """The cell says itself."""
        return None

    def initial_output(self, type_: MarkedType, part: str = "") -> View | None:
        """States begin as Keras says."""
        return None

    def parameter(self, parameter: Parameter) -> View:
        """A parameter of the cell."""
        if parameter.name not in self._parameters:
            self._parameters[parameter.name] = self.builder.apply(parameter)
        return self._parameters[parameter.name]
