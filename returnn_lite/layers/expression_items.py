"""What expressions in configs evaluate to, and what it means as an operand: a tensor, a number, a dtype, an axis.

An axis is a number of the per-step view, batch first (negative from the end), or what `source(i, as_data=True)` says of
its axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from returnn_lite.dims import Dim, DimKind
from returnn_lite.ir.expressions import DTYPES_BY_RANGE as DTYPES
from returnn_lite.ir.views import View
from returnn_lite.layers.align import align
from returnn_lite.layers.base import LayerBuilder, LayerError

Number = float | int | bool


@dataclass(frozen=True)
class AxisOf:
    """An axis of a source that an expression names by what it is, not by number."""

    dim: Dim


@dataclass(frozen=True)
class ShapeOf:
    """tf.shape(x): the sizes of x's axes, usable where a shape is expected."""

    value: View


Item = Any
"""What an expression evaluates to: a View, a number, a string (a dtype), None, an AxisOf, a ShapeOf or a list."""


def axes_in_order(b: LayerBuilder, value: View) -> tuple[Dim, ...]:
    """The dims of a value as TensorFlow would number them: batch, then the others as declared.

    What `prev:x` is read for is not known to have the batch dim before x is built; it is numbered as if it had.
    """
    first = [dim for dim in value.type.dims if dim.kind is DimKind.BATCH]
    others = [dim for dim in value.type.dims if dim not in first]
    if not first and b.ir.is_behind_state(value):
        first = [b.batch]
    return (*first, *others)


def dim_of(b: LayerBuilder, value: View, axis: Item) -> Dim:
    """The dim that an axis argument means for a value."""
    if isinstance(axis, AxisOf):
        if axis.dim not in value.type:
            b.fail(f"there is no {axis.dim} in {value.type}")
        return axis.dim
    if isinstance(axis, bool) or not isinstance(axis, int):
        b.fail(f"an axis is a number, not {axis!r}")
    order = axes_in_order(b, value)
    if not -len(order) <= axis < len(order):
        b.fail(f"there is no axis {axis} in {value.type} of {len(order)} dims")
    return order[axis]


def dims_of(b: LayerBuilder, value: View, axis: Item) -> tuple[Dim, ...]:
    """The dims that an axis argument means: one, several, or all for None."""
    if axis is None:
        return value.type.dims
    items = axis if isinstance(axis, Sequence) else [axis]
    return tuple(dict.fromkeys(dim_of(b, value, item) for item in items))


def tensor(b: LayerBuilder, item: Item, what: str = "a tensor") -> View:
    """The item as a value; a number becomes a constant."""
    if isinstance(item, View):
        return item
    if isinstance(item, bool | int | float):
        return b.constant(item, "bool" if isinstance(item, bool) else "int32" if isinstance(item, int) else "float32")
    raise LayerError(f"expected {what}, got {item!r}")


def pair(b: LayerBuilder, kind: str, left: Item, right: Item) -> Item:
    """A function of two operands, aligned as the sources of a combine layer are."""
    left_number, right_number = not isinstance(left, View), not isinstance(right, View)
    if left_number and right_number:
        left, left_number = tensor(b, left), False
    if left_number:
        return b.binary(kind, number(b, left), _divisible(b, kind, right, left))
    if right_number:
        return b.binary(kind, _divisible(b, kind, left, right), number(b, right))
    first, second = align(b, [left, right])
    return b.binary(kind, _divisible(b, kind, first, second), second)


def _divisible(b: LayerBuilder, kind: str, value: View, other: Item) -> View:
    """The value as a float, if ints are to be divided."""
    other_float = other.type.is_float if isinstance(other, View) else isinstance(other, float)
    if kind in ("truediv", "divide_no_nan", "logaddexp") and not value.type.is_float and not other_float:
        return b.cast(value, "float32")
    return value


def number(b: LayerBuilder, item: Item) -> Number:
    """The item, if it is a number."""
    if isinstance(item, bool | int | float):
        return item
    raise LayerError(f"expected a number, got {item!r}")


def dtype_name(b: LayerBuilder, item: Item) -> str:
    """The dtype of a dtype argument: "int32" or tf.int32."""
    if not isinstance(item, str) or item not in DTYPES:
        b.fail(f"expected a dtype, got {item!r}", f"known are {', '.join(DTYPES)}")
    return item
