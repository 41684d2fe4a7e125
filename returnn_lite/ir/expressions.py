"""Primitives as methods: the vocabulary in which layers are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from returnn_lite.dims import Dim, DimError, MarkedType, Symbol, linear_dim
from returnn_lite.ir.op import Op
from returnn_lite.ir.ops import axes, contraction, elementwise, indexing, reduction, sources
from returnn_lite.ir.values import Value
from returnn_lite.ir.views import View

Number = float | int | bool
DTYPES_BY_RANGE = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
"""All dtypes of values. Where two meet, both become the one that stands later here."""


class Expressions:
    """Methods that emit one primitive, or a few that belong together. Operands may be numbers where an example
    gives the dtype."""

    def emit(self, op: Op, *inputs: Value) -> tuple[View, ...]:
        """Adds a node and returns its results."""
        raise TypeError(f"{type(self).__name__} does not emit")

    def apply(self, op: Op, *inputs: Value) -> View:
        """Adds a node of one result."""
        (output,) = self.emit(op, *inputs)
        return output

    # Sources

    def constant(
        self, value: Number, dtype: str = "float32", dims: Iterable[Dim] = (), sparse: Dim | None = None
    ) -> View:
        """The same number everywhere."""
        return self.apply(sources.Constant(value, dtype, tuple(dims), sparse))

    def like(self, value: View | Number, example: View) -> View:
        """A number as a value of the example's dtype and class dim; a value as it is."""
        if isinstance(value, View):
            return value
        return self.constant(value, example.type.dtype, sparse=example.type.sparse)

    def zeros_like(self, example: View) -> View:
        """Zeros with all dims of the example."""
        return self.constant(0, example.type.dtype, example.type.dims, example.type.sparse)

    def iota(self, over: Dim, dtype: str = "int32") -> View:
        """0, 1, 2, ... along a dim."""
        return self.apply(sources.Iota(over, dtype))

    def length(self, of: Dim, dtype: str = "int32") -> View:
        """The length of a dim."""
        return self.apply(sources.Length(of, dtype))

    # Element by element

    def unary(self, kind: str, x: View) -> View:
        """A function of one operand, named as in `elementwise.KINDS`."""
        return self.apply(elementwise.Elementwise(kind), x)

    def binary(self, kind: str, a: View | Number, b: View | Number) -> View:
        """A function of two operands, one of which may be a number. int meets float as float, as in NumPy."""
        if not isinstance(a, View) and not isinstance(b, View):
            raise DimError(f"{kind} of two numbers")
        a_value = a if isinstance(a, View) else self._number(a, b)
        b_value = b if isinstance(b, View) else self._number(b, a)
        if a_value.type.dtype != b_value.type.dtype:
            a_value, b_value = self._common_dtype(a_value, b_value)
        return self.apply(elementwise.Elementwise(kind), a_value, b_value)

    def _number(self, number: Number, other: View | Number) -> View:
        assert isinstance(other, View)
        dtype = other.type.dtype
        if isinstance(number, float) and not other.type.is_float:
            dtype = "float32"
        elif not isinstance(number, bool) and dtype == "bool":
            dtype = "int32" if isinstance(number, int) else "float32"
        return self.constant(number, dtype)

    def _common_dtype(self, a: View, b: View) -> tuple[View, View]:
        dtype = max(a.type.dtype, b.type.dtype, key=DTYPES_BY_RANGE.index)
        return self.cast(a, dtype), self.cast(b, dtype)

    def add(self, a: View | Number, b: View | Number) -> View:
        """a + b."""
        return self.binary("add", a, b)

    def sub(self, a: View | Number, b: View | Number) -> View:
        """a - b."""
        return self.binary("sub", a, b)

    def mul(self, a: View | Number, b: View | Number) -> View:
        """a * b."""
        return self.binary("mul", a, b)

    def select(self, condition: View, if_true: View | Number, if_false: View | Number) -> View:
        """if_true where the condition holds, else if_false."""
        if not isinstance(if_true, View) and not isinstance(if_false, View):
            both_int = isinstance(if_true, int) and isinstance(if_false, int)
            if_true = self.constant(if_true, "int32" if both_int else "float32")
        true_value = if_true if isinstance(if_true, View) else self._number(if_true, if_false)
        false_value = if_false if isinstance(if_false, View) else self._number(if_false, true_value)
        if true_value.type.dtype != false_value.type.dtype:
            true_value, false_value = self._common_dtype(true_value, false_value)
        return self.apply(elementwise.Select(), condition, true_value, false_value)

    def cast(self, x: View, dtype: str) -> View:
        """x in a dtype; x itself if it has it."""
        return x if x.type.dtype == dtype else self.apply(elementwise.Cast(dtype), x)

    def as_index(self, x: View, of: Dim | None) -> View:
        """x as numbers of the entries of a dim, such as classes, or of nothing; x itself if it is that."""
        return x if x.type.sparse == of else self.apply(elementwise.AsIndex(of), x)

    def stop_gradient(self, x: View) -> View:
        """x without a gradient."""
        return self.unary("stop_gradient", x)

    # What dims mean: another view of the same value, and no node

    def marked(self, x: View, feature: Dim | None, time: Dim | None) -> View:
        """x with these as its feature and its time dim, as far as it has them."""
        if (x.type.feature, x.type.time) == (feature, time):
            return x
        return x.with_type(MarkedType(x.type.dims, x.type.dtype, x.type.sparse, feature, time))

    def with_feature(self, x: View, feature: Dim | None) -> View:
        """x with another dim as its feature dim."""
        return self.marked(x, feature, x.type.time)

    def with_time(self, x: View, time: Dim | None) -> View:
        """x with another dim as its time dim."""
        return self.marked(x, x.type.feature, time)

    def with_markers_of(self, x: View, type_: MarkedType) -> View:
        """x with the feature, time and class dim of a type."""
        return self.marked(self.as_index(x, type_.sparse), type_.feature, type_.time)

    def as_features(self, x: View, dim: Dim) -> View:
        """x with a dim as its feature dim, the last one."""
        return self.reorder(self.with_feature(x, dim), (dim,))

    def reorder(self, x: View, dims: Sequence[Dim]) -> View:
        """x with its dims declared in another order, behind those that are not named."""
        others = tuple(dim for dim in x.type.require(*dims).dims if dim not in dims)
        return x.with_type(x.type.of_dims((*others, *dims)))

    # Over dims

    def dot(self, a: View, b: View, over: Dim | Sequence[Dim]) -> View:
        """The sum of products over dims, the feature dim last."""
        y = self.apply(contraction.Dot((over,) if isinstance(over, Dim) else tuple(over)), a, b)
        return y.with_type(y.type.feature_last)

    def reduce(self, kind: str, x: View, over: Dim | Sequence[Dim]) -> View:
        """sum, mean, max, ... over dims."""
        dims = (over,) if isinstance(over, Dim) else tuple(over)
        return self.apply(reduction.Reduce(kind, dims), x) if dims else x

    def softmax(self, x: View, over: Dim, log: bool = False) -> View:
        """softmax, or its logarithm, over one dim."""
        return self.apply(reduction.Softmax(over, log), x)

    def gather(self, x: View, index: View, over: Dim, clip: bool = False) -> View:
        """x at the indices along `over`; its feature dim is that of x."""
        y = self.apply(indexing.Gather(over, clip), x, index)
        return self.with_feature(y, None if x.type.feature is over else x.type.feature)

    def expand(self, x: View, *dims: Dim) -> View:
        """x repeated along those of the dims that it lacks."""
        new = tuple(dim for dim in dims if dim not in x.type)
        return self.apply(axes.Expand(new), x) if new else x

    def relabel(self, x: View, old: Dim, new: Dim, reason: str = "") -> View:
        """x with `old` called `new`."""
        if old.is_settled:
            new.settle(old.over)
        return x if old == new else self.apply(axes.Relabel(old, new, reason), x)

    def concat(self, parts: Sequence[tuple[View, Dim]], out: Dim | None = None) -> View:
        """Values one after the other along a dim of each; `out` is by default the sum of the dims."""
        if out is None:
            out = linear_dim([(dim, 1) for _, dim in parts], 0)
        if len(parts) == 1:
            return self.relabel(parts[0][0], parts[0][1], out)
        dtype = max((part.type.dtype for part, _ in parts), key=DTYPES_BY_RANGE.index)
        values = [self.cast(part, dtype) for part, _ in parts]
        return self.apply(indexing.Concat(tuple(dim for _, dim in parts), out), *values)

    def slice(self, x: View, over: Dim, start: int | Dim, out: Dim, step: int = 1) -> View:
        """x[start::step] along `over`, ended by the length of `out`."""
        return self.apply(indexing.Slice(over, out, start, step), x)

    def split(self, x: View, over: Dim, outs: Sequence[Dim]) -> list[View]:
        """Consecutive static pieces of x along `over`."""
        pieces, start = [], 0
        for out in outs:
            if out.size is None:
                raise DimError(f"split needs static sizes, not {out}")
            pieces.append(self.slice(x, over, start, out))
            start += out.size
        return pieces

    def split_dim(self, x: View, dim: Dim, outs: Sequence[Dim], pad_value: float = 0.0) -> View:
        """A dim taken apart, first of `outs` slowest. Of features the last are features, of frames the first dynamic
        ones are frames."""
        y = self.apply(axes.SplitDim(dim, tuple(outs), pad_value), x)
        frames = next((out for out in outs if out.size != 1 and out.is_dynamic), outs[0])
        feature = outs[-1] if x.type.feature is dim else x.type.feature
        time = frames if x.type.time is dim else x.type.time
        return self.marked(y, feature, time)

    def merge_dims(self, x: View, dims: Sequence[Dim], out: Dim) -> View:
        """Dims put together, first slowest: features, and frames if there is no saying how many, stay such."""
        y = self.apply(axes.MergeDims(tuple(dims), out), x)
        feature = out if x.type.feature in dims else x.type.feature
        time = out if x.type.time in dims and out.is_dynamic else x.type.time
        return self.marked(y, feature, time)

    def copy_of_dim(self, dim: Dim, suffix: str = "'") -> Dim:
        """A new dim with the length of `dim`, for a value that needs it twice. Use with `relabel`."""
        return Symbol(dim.name + suffix, dim.kind, dim.size, dim.over)

    def concat_features(self, values: Sequence[View]) -> View:
        """Values joined along their feature dims, as several sources of a layer are; sparse ones can't be joined."""
        if len(values) == 1:
            return values[0]
        parts = []
        for value in values:
            if value.type.feature is None:
                raise DimError(f"'{value.name}' has no feature dim to join: {value.type}")
            parts.append((value, value.type.feature))
        out = linear_dim([(dim, 1) for _, dim in parts], 0)
        return self.with_feature(self.apply(indexing.Concat(tuple(d for _, d in parts), out), *values), out)
