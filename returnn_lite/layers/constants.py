"""Layers that need no source: constants and variables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from returnn_lite.config.options import DimSpec, Init, LayerRef, option
from returnn_lite.dims import Dim, DimKind, Symbol
from returnn_lite.ir.ops.sources import ConstantArray, Initializer, Storage
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder
from returnn_lite.layers.pointwise import checked_dtype, dtype_of

Number = float | int | bool


class Constant(Layer, names=("constant",)):
    """The same number everywhere, or an array of fixed numbers. Without `with_batch_dim` it has no batch dim."""

    source_count = (0, 0)

    value: Any = option("a number, or nested lists of numbers", default=0.0)
    shape: tuple[DimSpec, ...] | None = option("sizes or Dims; default that of the value", default=None)
    dtype: str | None = option("default int32 for an int, float32 for a float, bool for a bool", default=None)
    with_batch_dim: bool = option("whether the result has the batch dim", default=False)
    sparse_dim: DimSpec | None = option("the classes that the value is an index of: a number or a Dim", default=None)
    feature_dim: DimSpec | None = option("which of the dims in shape is the feature dim, a Dim", default=None)
    shape_deps: tuple[LayerRef, ...] = option("layers that the Dims in shape come from", default=())

    def build(self, b: LayerBuilder) -> View:
        for reference in self.shape_deps:
            b.layer(reference)
        array = self.value.tolist() if hasattr(self.value, "tolist") else self.value
        sizes, numbers = tuple(_sizes(array)), tuple(_flat(array))
        if not numbers or not all(isinstance(number, int | float) for number in numbers):
            b.fail(f"expected a number or nested lists of numbers, got {self.value!r}", option="value")
        if not _is_full(array, sizes):
            b.fail("the rows of the value differ in length", option="value")
        dtype = checked_dtype(b, self.dtype) if self.dtype else max(map(dtype_of, numbers), key=_RANK.index)
        dims = self._dims(b, sizes)
        result = (
            b.apply(ConstantArray(numbers, dims, dtype))
            if sizes
            else b.constant(numbers[0], dtype, dims, self._sparse(b))
        )
        if self._sparse(b) is not None and self.feature_dim is not None:
            b.fail("class indices have no feature dim", "leave it out", "feature_dim")
        feature = self._feature(b, dims) if not self._sparse(b) else None
        result = b.marked(b.as_index(result, self._sparse(b)), feature, None)
        return b.expand(result, b.batch) if self.with_batch_dim else result

    def _dims(self, b: LayerBuilder, sizes: tuple[int, ...]) -> tuple[Dim, ...]:
        shape = self.shape if self.shape is not None else sizes
        if sizes and len(shape) != len(sizes):
            b.fail(f"the value has {len(sizes)} dims, 'shape' says {len(shape)}", option="shape")
        dims = shape_dims(b, shape)
        for dim, size in zip(dims, sizes, strict=False):
            if dim.size != size:
                b.fail(f"the value has {size} entries where 'shape' says {dim}", option="shape")
        return dims

    def _feature(self, b: LayerBuilder, dims: tuple[Dim, ...]) -> Dim | None:
        if isinstance(self.feature_dim, Dim):
            if self.feature_dim not in dims:
                b.fail(f"feature_dim {self.feature_dim} is not in shape", option="feature_dim")
            return self.feature_dim
        if self.feature_dim is not None:
            b.fail("feature_dim must be a Dim of shape", "leave it out: the last dim is the feature dim", "feature_dim")
        return feature_of_shape(dims)

    def _sparse(self, b: LayerBuilder) -> Dim | None:
        return as_dim(b, self.sparse_dim, "classes", DimKind.FEATURE) if self.sparse_dim is not None else None


class Variable(Layer, names=("variable",)):
    """A parameter as a value: `<layer>/<param_name>`, by default named as the layer. Its last dim is the feature."""

    source_count = (0, 0)

    shape: tuple[DimSpec, ...] = option("sizes or Dims, without batch")
    dtype: str = option("dtype of the parameter", default="float32")
    add_batch_axis: bool = option("whether the value has the batch dim", default=False)
    add_time_axis: bool = option("whether the value has a time dim of size 1", default=False)
    trainable: bool = option("whether training changes it", default=True)
    saveable: bool = option("whether checkpoints have it", default=True)
    non_critical_for_restore: bool = option("whether a checkpoint may lack it", default=False)
    init: Init | None = option("initialiser", default=None)
    init_by_layer: LayerRef | None = option("a layer whose value it has at first, one of no data", default=None)
    param_name: str | None = option("default the name of the layer", default=None)

    def build(self, b: LayerBuilder) -> View:
        dims = shape_dims(b, self.shape)
        dtype = checked_dtype(b, self.dtype)
        init = self._value_of_layer(b, dims, dtype) or (0.0 if self.init is None else self.init)
        storage = Storage(self.saveable, not self.non_critical_for_restore)
        name = self.param_name or b.local_name
        value = b.param(name, dims, init, trainable=self.trainable, dtype=dtype, storage=storage)
        value = b.with_feature(value, feature_of_shape(dims))
        if self.add_time_axis:
            time = b.new_dim("time", 1)
            value = b.with_time(b.expand(value, time), time)
        return b.expand(value, b.batch) if self.add_batch_axis else value

    def _value_of_layer(self, b: LayerBuilder, dims: tuple[Dim, ...], dtype: str) -> Initializer | None:
        """The initialiser that is a layer's value; the same dims stay, the others are taken in order."""
        if self.init_by_layer is None:
            return None
        if self.init is not None:
            b.fail("init and init_by_layer exclude each other", "give one of them", "init_by_layer")
        value = b.layer(self.init_by_layer)
        have, want = (
            [dim for dim in a if dim not in other] for a, other in ((value.type.dims, dims), (dims, value.type))
        )
        if [dim.size for dim in have] != [dim.size for dim in want]:
            b.fail(f"'{self.init_by_layer}' is {value.type}, not [{', '.join(map(str, dims))}]", option="init_by_layer")
        for old, new in zip(have, want, strict=True):
            value = b.relabel(value, old, new, f"'{self.init_by_layer}' and the variable")
        computed = b.ir.computed(b.reorder(b.cast(value, dtype), dims))
        if computed is None:
            b.fail(
                f"'{self.init_by_layer}' depends on data, or on a loop, and is not known before there is any",
                "take a layer that is computed from constants and variables",
                "init_by_layer",
            )
        return Initializer("computed", value=computed)


def shape_dims(b: LayerBuilder, shape: Sequence[DimSpec]) -> tuple[Dim, ...]:
    """The dims that a shape says; the last new one is a feature dim."""
    last = len(shape) - 1
    kinds = [DimKind.FEATURE if i == last else DimKind.SPATIAL for i in range(len(shape))]
    return tuple(as_dim(b, size, f"static:{i}", kind) for i, (size, kind) in enumerate(zip(shape, kinds, strict=True)))


def feature_of_shape(dims: Sequence[Dim]) -> Dim | None:
    """The feature dim of what has a shape that a config lists: the last one, if it is static."""
    return dims[-1] if dims and dims[-1].size is not None else None


def as_dim(b: LayerBuilder, given: DimSpec, suffix: str, kind: DimKind = DimKind.SPATIAL, option_name: str = "") -> Dim:
    """A Dim as it is; a size as a new dim of the layer."""
    if isinstance(given, Dim):
        return given
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        b.fail(f"expected a size or a Dim, got {given!r}", option=option_name)
    return Symbol(f"{b.name}:{suffix}", kind, given)


def renamed(b: LayerBuilder, x: View, made: Dim, given: DimSpec | None, option_name: str) -> View:
    """x with the dim that the layer made called as an option says; a size is only checked."""
    if given is None or given == made:
        return x
    size = given.size if isinstance(given, Dim) else given
    if isinstance(size, bool) or not isinstance(size, int | None) or size != made.size:
        hint = "give a dynamic Dim" if made.size is None else f"give {made.size}, or a Dim of that size"
        b.fail(f"{option_name} is {given}, but the layer makes {made}", f"{hint}; or leave it out", option_name)
    return b.relabel(x, made, given, f"{option_name} of '{b.name}'") if isinstance(given, Dim) else x


_RANK = ("bool", "int32", "float32")


def _sizes(array: Any) -> Iterator[int]:
    while isinstance(array, list | tuple):
        yield len(array)
        array = array[0] if array else None


def _is_full(array: Any, sizes: Sequence[int]) -> bool:
    """True if the nested lists have these sizes everywhere, not only at the first entry of each."""
    if not isinstance(array, list | tuple):
        return not sizes
    return bool(sizes) and len(array) == sizes[0] and all(_is_full(item, sizes[1:]) for item in array)


def _flat(array: Any) -> Iterator[Any]:
    if isinstance(array, list | tuple):
        for item in array:
            yield from _flat(item)
    else:
        yield array


LAYERS = (Constant, Variable)
