"""The step of a recurrent cell that another system runs."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from returnn_lite.dims import Dim, DimError, DimKind, TensorType, union_of_dims
from returnn_lite.ir.foreign_cells import StepFunction
from returnn_lite.ir.kept import Kept
from returnn_lite.ir.op import Op

T = TypeVar("T")


@dataclass(frozen=True)
class CellStep(Op):
    """One step of a foreign cell: x [features], its states, weights, and seeds [pair] -> output [out], next states.

    It works on features alone: sequences, hypotheses and whatever else source and states are over are rows to the cell.
    So a step in no cycle needs no loop, and one in a cycle stays in it. What it draws depends on its seeds alone.
    """

    works_along: ClassVar[tuple[str, ...]] = ("features", "states", "pair")
    cell: StepFunction = field(repr=False)
    name: str
    features: Dim
    states: tuple[Dim, ...]
    out: Dim
    weights: tuple[tuple[Dim, ...], ...] = field(repr=False)
    pair: Dim | None = None
    """Of the two numbers of a seed."""
    training: bool = False

    @property
    def roles(self) -> tuple[str, ...]:
        return ("output", *(f"state{number}" for number in range(len(self.states))))

    def type_of(self, x: TensorType, *others: TensorType) -> tuple[TensorType, ...]:
        before, weights, seeds = self.parts(others)
        for type_, dim in zip((x, *before), (self.features, *self.states), strict=True):
            if dim not in type_:
                raise DimError(f"{self.name}: {type_} has no dim {dim}")
        for type_, dims in zip(weights, self.weights, strict=True):
            type_.require(*dims)
        rows = self.rows(x, before, seeds)
        return tuple(TensorType((*rows, dim), x.dtype) for dim in (self.out, *self.states))

    def rows(self, x: TensorType, before: Sequence[TensorType], seeds: Sequence[TensorType]) -> tuple[Dim, ...]:
        """The dims over which there is a result for each entry."""
        own = [(x, self.features), *zip(before, self.states, strict=True), *((seed, self.pair) for seed in seeds)]
        return union_of_dims([TensorType(tuple(one for one in type_.dims if one != dim)) for type_, dim in own])

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        """What goes in and comes out; what it keeps inside is not known."""
        return Kept(tuple(range(len(inputs))), tuple(range(1 + len(self.states))))

    def frames(self, rows: Sequence[Dim]) -> tuple[Dim, ...]:
        """Those of the rows that draw as often as there are entries. Without seeds none: all are done at once."""
        return tuple(dim for dim in rows if self.pair and dim.kind not in (DimKind.BATCH, DimKind.BEAM))

    def parts(self, others: Sequence[T]) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
        """The operands behind x: states, weights and seeds."""
        first, last = len(self.states), len(self.states) + len(self.weights)
        return others[:first], others[first:last], others[last:]
