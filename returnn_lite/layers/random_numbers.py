"""Random numbers as layers.

They depend on the seed of the run, the layer's name (or its own seed) and, in a loop, on the step: there is no state
that a draw would change. So a loop draws anew at each step, whether or not the layer stays in it, and outside one draw
has all frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from returnn_lite.config.options import DimSpec, LayerRef, option
from returnn_lite.dims import Dim, DimKind
from returnn_lite.ir.ops.sources import RandomDraw
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder
from returnn_lite.layers.constants import as_dim, feature_of_shape

Number = float | int | LayerRef
Bound = float | View
"""A number, or the value of a layer that computes one."""
NumberType = Literal["float16", "float32", "float64", "int32", "int64"]
STATELESS = (
    "random numbers depend on the run's seed, the layer and the step here, and on no state. Leave it out, and the "
    "variable of the state; give seed for numbers of its own, and static: true for the same ones in every run"
)


@dataclass(frozen=True)
class Draw:
    """What is drawn: `static`, the same numbers in every run."""

    dims: tuple[Dim, ...]
    dtype: str
    seed: int | Sequence[int] | None
    static: bool = False

    def standard(self, b: LayerBuilder, distribution: str, first: float, second: float, dtype: str) -> View:
        """Numbers of a distribution with fixed parameters; layers with equal seeds and shapes have equal ones."""
        name = f"{b.name}:random" if self.seed is None else f"seed {self.seed}"
        fresh = b.loop is not None and not self.static
        return b.apply(RandomDraw(distribution, first, second, self.dims, name, dtype, fresh, static=self.static))

    def uniform(self, b: LayerBuilder, low: Bound, high: Bound) -> View:
        """From [low, high)."""
        is_int = self.dtype.startswith("int")
        if not isinstance(low, View) and not isinstance(high, View):
            if low >= high:
                b.fail(f"there is nothing between {low} and {high}", "the upper bound itself is not drawn", "maxval")
            return self.standard(b, "uniform", low, high, self.dtype)
        precise = "float64" if is_int else self.dtype
        width = b.sub(_as(b, high, precise), _as(b, low, precise))
        drawn = b.mul(self.standard(b, "uniform", 0.0, 1.0, precise), width)
        if is_int:
            drawn = b.unary("floor", drawn)
        return b.cast(b.add(drawn, _as(b, low, precise)), self.dtype)

    def normal(self, b: LayerBuilder, mean: Bound, stddev: Bound, truncated: bool) -> View:
        """With a mean and a standard deviation; `truncated`, none further from the mean than two of them."""
        distribution = "truncated_normal" if truncated else "normal"
        if not isinstance(mean, View) and not isinstance(stddev, View):
            return self.standard(b, distribution, mean, stddev, self.dtype)
        drawn = self.standard(b, distribution, 0.0, 1.0, self.dtype)
        return b.add(b.mul(drawn, _as(b, stddev, self.dtype)), _as(b, mean, self.dtype))


class Random(Layer, names=("random",)):
    """Random numbers of a shape.

    "uniform" from [minval, maxval) or [-bound, bound) or with a mean and a standard deviation, "normal", or
    "truncated_normal": none further from the mean than two standard deviations. Parameters may be layers that compute
    one number. In a loop, each step draws anew.
    """

    source_count = (0, 0)

    shape: tuple[DimSpec, ...] = option("sizes or Dims; 'B' for the batch")
    distribution: Literal["uniform", "normal", "truncated_normal"] = option("what is drawn from")
    mean: Number | None = option("the mean; default 0", default=None)
    stddev: Number | None = option("the standard deviation; default 1 for a normal distribution", default=None)
    bound: Number | None = option("uniform from -bound to bound", default=None)
    minval: Number | None = option("uniform from here; default 0", default=None)
    maxval: Number | None = option("uniform up to here, exclusive", default=None)
    dtype: NumberType = option("dtype of the numbers; ints are uniform", default="float32")
    sparse_dim: DimSpec | None = option("the classes that the numbers are indices of", default=None)
    feature_dim: DimSpec | None = option("which Dim of the shape is the feature dim; default the last", default=None)
    seed: int | list[int] | None = option("for numbers of its own, whatever the layer's name", default=None)
    algorithm: Any = option(
        "the generator", default=None, unsupported="the numbers are those of TensorFlow's stateless draws. Leave it out"
    )
    explicit_state: LayerRef | None = option("a state to draw with", default=None, unsupported=STATELESS)
    auto_update_state: bool | None = option("whether a draw changes it", default=None, unsupported=STATELESS)
    static: bool | None = option("the same numbers in every run, and at every step of a loop", default=None)
    shape_deps: tuple[LayerRef, ...] = option("layers that the Dims in shape come from", default=())
    stop_grad: bool = option("without a gradient of the parameters", default=False)

    def build(self, b: LayerBuilder) -> View:
        for reference in self.shape_deps:
            b.layer(reference)
        dims = shape_of(b, self.shape)
        drawn = self._drawn(b, Draw(dims, self.dtype, self.seed, bool(self.static)))
        return marked(b, drawn, dims, self.sparse_dim, self._feature(b, dims))

    def _drawn(self, b: LayerBuilder, draw: Draw) -> View:
        if self.distribution == "uniform":
            return draw.uniform(b, *self._range(b))
        self._require_unset(b, "bound")
        if not self.dtype.startswith("float"):
            b.fail(f"a {self.distribution} distribution has no {self.dtype}", "take a float dtype", "dtype")
        truncated = self.distribution == "truncated_normal"
        if truncated:
            self._check_limits(b)
        else:
            self._require_unset(b, "minval", "maxval")
        mean, stddev = self._number(b, "mean", 0.0), self._number(b, "stddev", 1.0)
        return draw.normal(b, mean, stddev, truncated)

    def _range(self, b: LayerBuilder) -> tuple[Bound, Bound]:
        """The bounds of a uniform distribution."""
        if self.minval is not None or self.maxval is not None:
            self._require_unset(b, "mean", "stddev", "bound")
            if self.maxval is None:
                b.fail("minval without maxval", "give both, or bound", "minval")
            return self._number(b, "minval", 0), self._number(b, "maxval", 0)
        if self.bound is not None:
            self._require_unset(b, "mean", "stddev")
            bound = self._number(b, "bound", 0)
            return (b.unary("neg", bound) if isinstance(bound, View) else -bound), bound
        if self.stddev is None:
            b.fail("what is drawn from is not known", "give maxval, bound, or stddev", "distribution")
        # A uniform distribution of width w has the standard deviation w / sqrt(12).
        mean, stddev = self._number(b, "mean", 0.0), self._number(b, "stddev", 1.0)
        half = b.mul(math.sqrt(3.0), stddev) if isinstance(stddev, View) else math.sqrt(3.0) * stddev
        if isinstance(mean, View) or isinstance(half, View):
            center, reach = _as(b, mean, "float32"), _as(b, half, "float32")
            return b.sub(center, reach), b.add(center, reach)
        return mean - half, mean + half

    def _check_limits(self, b: LayerBuilder) -> None:
        """The limits of a truncated normal distribution follow from the rest."""
        for name, sign in (("minval", -2), ("maxval", 2)):
            given = getattr(self, name)
            if given is None:
                continue
            numbers = [0.0 if self.mean is None else self.mean, 1.0 if self.stddev is None else self.stddev]
            wanted = None if str in map(type, numbers) else numbers[0] + sign * numbers[1]  # type: ignore[operator]
            if given != wanted:
                b.fail(
                    f"a truncated normal distribution ends two standard deviations from its mean, not at {given}",
                    "leave it out",
                    name,
                )

    def _require_unset(self, b: LayerBuilder, *names: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                b.fail(f"{name} does not go with the others of {self.distribution!r}", "leave out one of them", name)

    def _number(self, b: LayerBuilder, name: str, default: float) -> Bound:
        given = getattr(self, name)
        number = number_or_layer(b, default if given is None else given, name)
        return b.stop_gradient(number) if self.stop_grad and isinstance(number, View) else number

    def _feature(self, b: LayerBuilder, dims: tuple[Dim, ...]) -> Dim | None:
        if self.feature_dim is None:
            return feature_of_shape(dims)
        if self.feature_dim not in dims:
            b.fail(f"feature_dim {self.feature_dim} is not in shape", "name a Dim of it", "feature_dim")
        if self.sparse_dim is not None:
            b.fail("class indices have no feature dim", "leave it out", "feature_dim")
        return self.feature_dim if isinstance(self.feature_dim, Dim) else None


class RandInt(Layer, names=("rand_int",)):
    """Uniform random numbers from [minval, maxval), which may be layers that compute one number."""

    source_count = (0, 0)

    shape: tuple[DimSpec, ...] = option("sizes or Dims; 'B' for the batch")
    maxval: int | LayerRef = option("the numbers are below")
    minval: int | LayerRef = option("the least number", default=0)
    dtype: NumberType = option("dtype of the numbers; floats are not only whole ones", default="int32")
    sparse_dim: DimSpec | None = option("the classes that the numbers are indices of", default=None)
    seed: int | None = option("for numbers of its own, whatever the layer's name", default=None)

    def build(self, b: LayerBuilder) -> View:
        dims = shape_of(b, self.shape)
        low, high = number_or_layer(b, self.minval, "minval"), number_or_layer(b, self.maxval, "maxval")
        drawn = Draw(dims, self.dtype, self.seed).uniform(b, low, high)
        return marked(b, drawn, dims, self.sparse_dim, feature_of_shape(dims))


class RandomStateInit(Layer, names=("random_state_init",)):
    """The state that random numbers begin with in RETURNN. There is none here; the layer is refused with the reason."""

    source_count = (0, 0)

    algorithm: Any = option("the generator", default=None)
    seed: int | list[int] | None = option("what the state depends on", default=None)
    out_dim: DimSpec | None = option("the dim of the state", default=None)

    def build(self, b: LayerBuilder) -> View:
        b.fail(STATELESS[0].upper() + STATELESS[1:], "", "class")


def shape_of(b: LayerBuilder, shape: Sequence[DimSpec]) -> tuple[Dim, ...]:
    """The dims of a shape; the last new one is a feature dim."""
    dims = []
    for i, item in enumerate(shape):
        is_batch = item == "B" or (isinstance(item, Dim) and item.kind is DimKind.BATCH)
        kind = DimKind.FEATURE if i == len(shape) - 1 else DimKind.SPATIAL
        dims.append(b.batch if is_batch else as_dim(b, item, f"static:{i}", kind, "shape"))
    if len(set(dims)) != len(dims):
        b.fail("a dim occurs twice", "", "shape")
    return tuple(dims)


def marked(b: LayerBuilder, drawn: View, dims: Sequence[Dim], classes: DimSpec | None, feature: Dim | None) -> View:
    """The numbers, as class indices if `classes` says so."""
    if classes is None:
        return b.with_feature(drawn, feature)
    if not drawn.type.dtype.startswith("int"):
        b.fail(f"class indices can't be {drawn.type.dtype}", "take an int dtype", "sparse_dim")
    sparse = as_dim(b, classes, "classes", DimKind.FEATURE, "sparse_dim")
    return b.with_feature(b.as_index(drawn, sparse), None)


def number_or_layer(b: LayerBuilder, given: Number, name: str) -> Bound:
    """A parameter of a distribution."""
    if not isinstance(given, str):
        return given
    value = b.layer(given)
    if value.type.dims:
        b.fail(f"'{given}' is {value.type}, not one number", "reduce it over its dims", name)
    return value


def _as(b: LayerBuilder, number: Bound, dtype: str) -> View:
    return b.cast(number, dtype) if isinstance(number, View) else b.constant(number, dtype)


LAYERS = (Random, RandInt, RandomStateInit)
