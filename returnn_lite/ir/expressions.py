"""Primitives as methods: the vocabulary in which layers are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from returnn_lite.dims import Dim, DimError, Symbol, linear_dim
from returnn_lite.ir.graph import Value
from returnn_lite.ir.op import Op
from returnn_lite.ir.ops import axes, contraction, elementwise, indexing, reduction, sources

Number = float | int | bool
DTYPES_BY_RANGE = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
"""All dtypes of values. Where two meet, both become the one that stands later here."""


class Expressions:
    """Methods that emit one primitive, or a few that belong together. Operands may be numbers where an example
    gives the dtype."""

    def emit(self, op: Op, *inputs: Value) -> tuple[Value, ...]:
        """Adds a node and returns its results."""
        raise TypeError(f"{type(self).__name__} does not emit")

    def apply(self, op: Op, *inputs: Value) -> Value:
        """Adds a node of one result."""
        (output,) = self.emit(op, *inputs)
        return output

    # Sources

    def constant(
        self, value: Number, dtype: str = "float32", dims: Iterable[Dim] = (), sparse: Dim | None = None
    ) -> Value:
        """The same number everywhere."""
        return self.apply(sources.Constant(value, dtype, tuple(dims), sparse))

    def like(self, value: Value | Number, example: Value) -> Value:
        """A number as a value of the example's dtype and class dim; a value as it is."""
        if isinstance(value, Value):
            return value
        return self.constant(value, example.type.dtype, sparse=example.type.sparse)

    def zeros_like(self, example: Value) -> Value:
        """Zeros with all dims of the example."""
        return self.constant(0, example.type.dtype, example.type.dims, example.type.sparse)

    def iota(self, over: Dim, dtype: str = "int32") -> Value:
        """0, 1, 2, ... along a dim."""
        return self.apply(sources.Iota(over, dtype))

    def length(self, of: Dim, dtype: str = "int32") -> Value:
        """The length of a dim."""
        return self.apply(sources.Length(of, dtype))

    # Element by element

    def unary(self, kind: str, x: Value) -> Value:
        """A function of one operand, named as in `elementwise.KINDS`."""
        return self.apply(elementwise.Elementwise(kind), x)

    def binary(self, kind: str, a: Value | Number, b: Value | Number) -> Value:
        """A function of two operands, one of which may be a number. int meets float as float, as in NumPy."""
        if not isinstance(a, Value) and not isinstance(b, Value):
            raise DimError(f"{kind} of two numbers")
        a_value = a if isinstance(a, Value) else self._number(a, b)
        b_value = b if isinstance(b, Value) else self._number(b, a)
        if a_value.type.dtype != b_value.type.dtype:
            a_value, b_value = self._common_dtype(a_value, b_value)
        return self.apply(elementwise.Elementwise(kind), a_value, b_value)

    def _number(self, number: Number, other: Value | Number) -> Value:
        assert isinstance(other, Value)
        dtype = other.type.dtype
        if isinstance(number, float) and not other.type.is_float:
            dtype = "float32"
        elif not isinstance(number, bool) and dtype == "bool":
            dtype = "int32" if isinstance(number, int) else "float32"
        return self.constant(number, dtype)

    def _common_dtype(self, a: Value, b: Value) -> tuple[Value, Value]:
        dtype = max(a.type.dtype, b.type.dtype, key=DTYPES_BY_RANGE.index)
        return self.cast(a, dtype), self.cast(b, dtype)

    def add(self, a: Value | Number, b: Value | Number) -> Value:
        """a + b."""
        return self.binary("add", a, b)

    def sub(self, a: Value | Number, b: Value | Number) -> Value:
        """a - b."""
        return self.binary("sub", a, b)

    def mul(self, a: Value | Number, b: Value | Number) -> Value:
        """a * b."""
        return self.binary("mul", a, b)

    def select(self, condition: Value, if_true: Value | Number, if_false: Value | Number) -> Value:
        """if_true where the condition holds, else if_false."""
        if not isinstance(if_true, Value) and not isinstance(if_false, Value):
            both_int = isinstance(if_true, int) and isinstance(if_false, int)
            if_true = self.constant(if_true, "int32" if both_int else "float32")
        true_value = if_true if isinstance(if_true, Value) else self._number(if_true, if_false)
        false_value = if_false if isinstance(if_false, Value) else self._number(if_false, true_value)
        if true_value.type.dtype != false_value.type.dtype:
            true_value, false_value = self._common_dtype(true_value, false_value)
        return self.apply(elementwise.Select(), condition, true_value, false_value)

    def cast(self, x: Value, dtype: str) -> Value:
        """x in a dtype; x itself if it has it."""
        return x if x.type.dtype == dtype else self.apply(elementwise.Cast(dtype), x)

    def annotate(self, x: Value, *, sparse: Dim | None, feature: Dim | None, time: Dim | None) -> Value:
        """x with exactly these markers; x itself if it has them."""
        if (x.type.sparse, x.type.feature, x.type.time) == (sparse, feature, time):
            return x
        return self.apply(elementwise.Annotate(sparse, feature, time), x)

    def with_feature(self, x: Value, feature: Dim | None) -> Value:
        """x with another dim as its feature dim."""
        return self.annotate(x, sparse=x.type.sparse, feature=feature, time=x.type.time)

    def stop_gradient(self, x: Value) -> Value:
        """x without a gradient."""
        return self.unary("stop_gradient", x)

    # Over dims

    def dot(self, a: Value, b: Value, over: Dim | Sequence[Dim]) -> Value:
        """The sum of products over dims."""
        return self.apply(contraction.Dot((over,) if isinstance(over, Dim) else tuple(over)), a, b)

    def reduce(self, kind: str, x: Value, over: Dim | Sequence[Dim]) -> Value:
        """sum, mean, max, ... over dims."""
        dims = (over,) if isinstance(over, Dim) else tuple(over)
        return self.apply(reduction.Reduce(kind, dims), x) if dims else x

    def softmax(self, x: Value, over: Dim, log: bool = False) -> Value:
        """softmax, or its logarithm, over one dim."""
        return self.apply(reduction.Softmax(over, log), x)

    def gather(self, x: Value, index: Value, over: Dim, clip: bool = False) -> Value:
        """x at the indices along `over`."""
        return self.apply(indexing.Gather(over, clip), x, index)

    def expand(self, x: Value, *dims: Dim) -> Value:
        """x repeated along those of the dims that it lacks."""
        new = tuple(dim for dim in dims if dim not in x.type)
        return self.apply(axes.Expand(new), x) if new else x

    def relabel(self, x: Value, old: Dim, new: Dim, reason: str = "") -> Value:
        """x with `old` called `new`."""
        if old.is_settled:
            new.settle(old.over)
        return x if old == new else self.apply(axes.Relabel(old, new, reason), x)

    def concat(self, parts: Sequence[tuple[Value, Dim]], out: Dim | None = None) -> Value:
        """Values one after the other along a dim of each; `out` is by default the sum of the dims."""
        if out is None:
            out = linear_dim([(dim, 1) for _, dim in parts], 0)
        if len(parts) == 1:
            return self.relabel(parts[0][0], parts[0][1], out)
        dtype = max((part.type.dtype for part, _ in parts), key=DTYPES_BY_RANGE.index)
        values = [self.cast(part, dtype) for part, _ in parts]
        return self.apply(indexing.Concat(tuple(dim for _, dim in parts), out), *values)

    def slice(self, x: Value, over: Dim, start: int | Dim, out: Dim, step: int = 1) -> Value:
        """x[start::step] along `over`, ended by the length of `out`."""
        return self.apply(indexing.Slice(over, out, start, step), x)

    def split(self, x: Value, over: Dim, outs: Sequence[Dim]) -> list[Value]:
        """Consecutive static pieces of x along `over`."""
        pieces, start = [], 0
        for out in outs:
            if out.size is None:
                raise DimError(f"split needs static sizes, not {out}")
            pieces.append(self.slice(x, over, start, out))
            start += out.size
        return pieces

    def split_dim(self, x: Value, dim: Dim, outs: Sequence[Dim]) -> Value:
        """A dim taken apart, first of `outs` slowest."""
        return self.apply(axes.SplitDim(dim, tuple(outs)), x)

    def merge_dims(self, x: Value, dims: Sequence[Dim], out: Dim) -> Value:
        """Dims put together, first slowest."""
        return self.apply(axes.MergeDims(tuple(dims), out), x)

    def copy_of_dim(self, dim: Dim, suffix: str = "'") -> Dim:
        """A new dim with the length of `dim`, for a value that needs it twice. Use with `relabel`."""
        return Symbol(dim.name + suffix, dim.kind, dim.size, dim.over)

    def concat_features(self, values: Sequence[Value]) -> Value:
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
