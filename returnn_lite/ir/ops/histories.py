"""Histories: the frames of a loop so far, as an axis that grows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from returnn_lite.dims import Dim, TensorType
from returnn_lite.ir.op import InLoop, Op


@dataclass(frozen=True)
class EmptyHistory(Op):
    """What a `CumConcatStep` starts from: no frames along `history`. The operand gives the other dims."""

    works_along: ClassVar[tuple[str, ...]] = ()
    history: Dim

    def type_of(self, like: TensorType) -> TensorType:
        return like.with_dims(self.history)

    def named_dims(self) -> frozenset[Dim]:
        """None whose length must be known: it has no frames yet."""
        return frozenset()

    def measured_dims(self) -> frozenset[Dim]:
        return frozenset()  # it has none of its frames


@dataclass(frozen=True)
class CumConcatStep(Op):
    """x appended to the frames so far along `history`, whose length varies over the loop's dim.

    Operands: x, the history before, the number of frames before (int, 0 first), and, on a slower clock that is run in
    the loop of a faster one, the mask that says which sequences append. Results: the history and the number after.
    """

    in_loop: ClassVar[InLoop] = InLoop.RECURRENCE
    state_inputs: ClassVar[tuple[int, ...]] = (1, 2)
    state_outputs: ClassVar[tuple[int, ...]] = (0, 1)
    mask_at: ClassVar[int | None] = 3
    length_at: ClassVar[int | None] = -1
    works_along: ClassVar[tuple[str, ...]] = ("history",)
    history: Dim

    @property
    def roles(self) -> tuple[str, ...]:
        return ("history", "count")

    def type_of(
        self, x: TensorType, before: TensorType, count: TensorType, *mask: TensorType
    ) -> tuple[TensorType, TensorType]:
        mask_dims = mask[0].dims if mask else ()
        return before.with_dims(*x.dims, *mask_dims), count.with_dims(*mask_dims)

    def vectorize(self, over: Dim) -> Op:
        return CumConcat(over, self.history)

    def created_dims(self) -> tuple[Dim, ...]:
        return (self.history,)

    @property
    def causal(self) -> bool:
        return True


@dataclass(frozen=True)
class CumConcat(Op):
    """The whole form: x with `over` renamed to `history`, of which frame t of `over` sees the first t + 1. Second
    result: t + 1."""

    works_along: ClassVar[tuple[str, ...]] = ("over", "history")
    over: Dim
    history: Dim

    @property
    def roles(self) -> tuple[str, ...]:
        return ("history", "count")

    def type_of(self, x: TensorType, before: TensorType, count: TensorType) -> tuple[TensorType, TensorType]:
        kept = tuple(d for d in x.dims if d is not self.over)
        return x.of_dims((self.history, *kept)).with_dims(*before.dims), count.with_dims(self.over)

    def created_dims(self) -> tuple[Dim, ...]:
        return (self.history,)

    @property
    def causal(self) -> bool:
        return True
