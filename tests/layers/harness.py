"""Builds single layers without a network around them, and runs them: what tests of layers share.

bench = Bench(train=True)
x = bench.input("x", bench.batch, bench.time, bench.feature(4))
y = bench.build(Linear(activation="relu"), x, n_out=3)
assert str(y.type) == "[B, T, probe:feature(3)]"
array = bench.run(y, {"x": ...}, parameters={"probe/W": ...}).value
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from returnn_lite.dims import Dim, DimKind, MarkedType, Symbol
from returnn_lite.ir import Origin
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.open_body import OUTERMOST
from returnn_lite.ir.ops.sources import Parameter
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder, LayerError, Mode, Outputs
from returnn_lite.layers.preactivations import Preactivations
from returnn_lite.layers.surroundings import Compilation, Given
from returnn_lite.tf import executable

LENGTHS = (3, 2)
"""The lengths of `T` of the two sequences of a batch."""


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    """Random numbers around zero."""
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype("float32")


def real_frames(array: np.ndarray, lengths: Sequence[int] = LENGTHS) -> list[np.ndarray]:
    """The frames of each sequence of an array [B, T, ..], without padding."""
    return [row[:length] for row, length in zip(array, lengths, strict=True)]


def assert_frames_equal(got: np.ndarray, expected: np.ndarray, lengths: Sequence[int] = LENGTHS) -> None:
    """Compares arrays [B, T, ..] at the real frames."""
    for row, wanted in zip(real_frames(got, lengths), real_frames(expected, lengths), strict=True):
        np.testing.assert_allclose(row, wanted, rtol=1e-5, atol=1e-5)


@dataclass
class FakeSurroundings:
    """The network around one layer: hidden references are looked up in `layers`, parameters made under their names.

    There is no search around.
    """

    builder: Builder
    name: str
    compilation: Compilation
    given: Given
    layers: dict[str, Outputs]
    parameters: dict[str, View]
    out: Dim | None = None

    @property
    def target(self) -> FakeSurroundings:
        return self

    @property
    def search(self) -> FakeSurroundings:
        return self

    def reaches(self, value: View) -> bool:
        return False

    def value(self) -> View:
        return self.layer("data:classes").value

    def class_dim(self) -> Dim:
        sparse = self.value().type.sparse
        assert sparse is not None
        return sparse

    def layer(self, reference: str) -> Outputs:
        if reference not in self.layers:
            raise LayerError(f"there is no layer '{reference}'")
        return self.layers[reference]

    def initial_output(self, type_: MarkedType) -> View | None:
        return None

    def out_feature(self) -> Dim | None:
        return self.out

    def parameter(self, parameter: Parameter) -> View:
        name = f"{self.name}/{parameter.name}"
        if name not in self.parameters:
            named = Parameter(name, parameter.dims, parameter.initializer, parameter.dtype, parameter.trainable)
            with self.builder.at(OUTERMOST):
                self.parameters[name] = self.builder.apply(named)
        return self.parameters[name]


class Bench:
    """A builder with a batch dim `B` and a time dim `T`, in which layers are built one by one."""

    def __init__(
        self, *, train: bool = False, losses: bool = True, search: bool = False, behavior_version: int = 21
    ) -> None:
        self.preactivations = Preactivations()
        self.builder = Builder(self.preactivations.follow)
        self.mode = Mode(train=train, losses=losses, search=search)
        self.behavior_version = behavior_version
        self.batch: Dim = Symbol("B", DimKind.BATCH)
        self.time: Dim = Symbol("T", DimKind.SPATIAL, None, (self.batch,))
        self.layers: dict[str, Outputs] = {}
        self.parameters: dict[str, View] = {}
        self.variables: dict[str, np.ndarray] = {}

    # Dims and values

    def feature(self, size: int, name: str = "F") -> Dim:
        """A new feature dim."""
        return Symbol(name, DimKind.FEATURE, size)

    def spatial(self, name: str, size: int | None = None) -> Dim:
        """A new spatial dim: static, or with lengths over the batch."""
        return Symbol(name, DimKind.SPATIAL, size, () if size is not None else (self.batch,))

    def input(self, name: str, *dims: Dim, dtype: str = "float32", sparse: Dim | None = None) -> View:
        """An input of the graph; a last dim of feature kind is its feature dim."""
        feature = dims[-1] if dims and dims[-1].kind is DimKind.FEATURE else None
        value = self.builder.input(name, MarkedType(dims, dtype, sparse, feature))
        self.layers[name] = Outputs(value)
        return value

    # Layers

    def outputs(
        self,
        layer: Layer,
        *sources: View,
        name: str = "probe",
        n_out: int | Dim | None = None,
        out_shape: bool = False,
        out_type: dict[str, Any] | None = None,
    ) -> Outputs:
        """All that a layer makes of its sources."""
        out = Symbol(f"{name}:feature", DimKind.FEATURE, n_out) if isinstance(n_out, int) else n_out
        given = Given(out_type=out_type or {}, has_out_shape=out_shape)
        b = self.layer_builder(name, given, out)
        with self.builder.within(Origin(name)):
            if layer.joins_sources and len(sources) > 1:
                sources = (b.concat_features(sources),)
            built = layer.build(b, *sources)
        self.layers[name] = built if isinstance(built, Outputs) else Outputs(built)
        return self.layers[name]

    def layer_builder(self, name: str, given: Given, out: Dim | None = None) -> LayerBuilder:
        """What a layer of that name builds with."""
        shared = Compilation(self.mode, self.behavior_version, self.batch, {}, self.preactivations)
        around = FakeSurroundings(self.builder, name, shared, given, self.layers, self.parameters, out)
        return LayerBuilder(self.builder, around, name, name)  # type: ignore[arg-type]

    def build(self, layer: Layer, *sources: View, **options: Any) -> View:
        """The value that a layer makes of its sources."""
        return self.outputs(layer, *sources, **options).value

    @contextmanager
    def loop(self, over: Dim | None = None) -> Iterator[dict[str, View]]:
        """A loop body: what is built inside belongs to one step. Values put into the yielded dict are stacked by name;
        afterwards it has the stacks."""
        self.builder.open_loop(over or self.time)
        stacks: dict[str, View] = {}
        yield stacks
        wholes = self.builder.close_loop(list(stacks.items()))
        stacks.update(wholes)

    # Values

    def run(
        self,
        values: View | Mapping[str, View],
        feed: Mapping[str, Any],
        *,
        parameters: Mapping[str, Any] | None = None,
        lengths: Sequence[int] = LENGTHS,
        seed: int | None = None,
    ) -> Any:
        """The value, or each of several by name, as a RunOutput. The parameters that are not given are random.

        `lengths` are those of `T`. Afterwards `self.variables` has the parameters as the run left them.
        """
        outputs = {"value": values} if isinstance(values, View) else dict(values)
        program = executable.Executable(self.builder.graph(outputs), self.batch)
        for name, array in (parameters or {}).items():
            program.params[name].assign(array)
        given = {self.time: np.asarray(lengths)} if self.time in program.length_dims else {}
        results = program.run(dict(feed), given, seed=seed)
        self.variables = {name: variable.numpy() for name, variable in program.params.items()}
        return results["value"] if isinstance(values, View) else results

    def parameter_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """The shape of each parameter by name."""
        shapes = {}
        for name, value in self.parameters.items():
            node = self.builder.producer(value)
            assert node is not None and isinstance(node.op, Parameter)
            shapes[name] = tuple(dim.size for dim in node.op.dims)
        return shapes
