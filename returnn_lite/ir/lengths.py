"""Lengths of dims that a graph computes, as values of the graph: where a loop's step makes a dim, this is how others in
the step know its length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from returnn_lite.dims import Dim, DimError
from returnn_lite.ir.expressions import Expressions
from returnn_lite.ir.nodes import Node
from returnn_lite.ir.ops.sources import Length
from returnn_lite.ir.views import View, view_of


def length_as_computed(b: Expressions, of: Dim, makers: Mapping[Dim, Node]) -> View:
    """The length (int32) of a dim from what makes it, or what it is computed from.

    `makers` has the nodes that create dims. Raises DimError if one of them does not tell the length.
    """

    def known(dim: Dim) -> LengthValue:
        if dim in makers:
            return _not_negative(LengthValue(b, b.cast(_told_by(dim, makers[dim]), "int32")))
        if dim.operands():
            return dim.length_from(known, _not_negative)
        return LengthValue(b, b.apply(Length(dim)))

    return of.length_from(known, _not_negative).value


def _told_by(dim: Dim, maker: Node) -> View:
    position = maker.op.length_at
    if position is None:
        raise DimError(f"the length of {dim}, which {maker.op.label} makes in each step, can't be read in the loop")
    return view_of((*maker.inputs, *maker.outputs)[position])


@dataclass(frozen=True)
class LengthValue:
    """A length as a value of a graph, with the arithmetic that dims ask for."""

    builder: Expressions
    value: View

    def __add__(self, other: LengthValue | int) -> LengthValue:
        return self._combined("add", other)

    def __mul__(self, other: LengthValue | int) -> LengthValue:
        return self._combined("mul", other)

    def __floordiv__(self, other: int) -> LengthValue:
        return self._combined("floordiv", other)

    def _combined(self, kind: str, other: LengthValue | int) -> LengthValue:
        operand = other if isinstance(other, int) else other.value
        return LengthValue(self.builder, self.builder.binary(kind, self.value, operand))


def _not_negative(length: LengthValue) -> LengthValue:
    return LengthValue(length.builder, length.builder.binary("maximum", length.value, 0))
