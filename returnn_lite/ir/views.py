"""What layers see of the values of a graph that is being built."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.dims import MarkedType
from returnn_lite.dims.markers import marked
from returnn_lite.ir.op import Op
from returnn_lite.ir.values import Value


class View(Value):
    """A value of the graph, `of`, with what its dims mean to layers. All views of one value are equal to it and to each
    other; none is in a graph."""

    __slots__ = ("of",)
    type: MarkedType

    def __init__(self, of: Value, type_: MarkedType) -> None:
        super().__init__(of.name, type_, of.layer)
        self.of = of

    def __eq__(self, other: object) -> bool:
        return self.of is (other.of if isinstance(other, View) else other)

    def __hash__(self) -> int:
        return hash(self.of)

    def with_type(self, type_: MarkedType) -> View:
        """Another view of the same value; this one if it has the type."""
        return self if type_ is self.type else View(self.of, type_)


def new_view(name: str, type_: MarkedType) -> View:
    """A new value, as layers see it."""
    return View(Value(name, type_.plain), type_)


def view_of(value: Value) -> View:
    """A value as layers see it: one of the graph itself is without markers."""
    return value if isinstance(value, View) else View(value, marked(value.type))


def result_types(op: Op, operands: Sequence[View]) -> tuple[MarkedType, ...]:
    """The types of what a primitive makes, as layers see them."""
    types = tuple([operand.type for operand in operands])
    return tuple([marked(type_, types) for type_ in op.output_types(types)])


def in_graph(value: Value) -> Value:
    """The value of the graph that a view shows."""
    return value.of if isinstance(value, View) else value
