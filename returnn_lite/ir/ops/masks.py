"""Frames at which a mask is true, and values held between them: slower clocks, as sequences and in loops."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import ClassVar

from returnn_lite.dims import Dim, TensorType, require_one_dtype
from returnn_lite.ir.kept import Kept
from returnn_lite.ir.op import Crossing, InLoop, Op


@dataclass(frozen=True)
class Compress(Op):
    """The frames of x along `over` at which the mask (second operand, bool) is true, giving `out`.

    Frames beyond a sequence's length are never taken, whatever the mask says there. x may lack `over`: then it is
    repeated.
    """

    picks_from: ClassVar[tuple[int, ...]] = (0,)
    works_along: ClassVar[tuple[str, ...]] = ("over",)
    over: Dim
    out: Dim

    def type_of(self, x: TensorType, mask: TensorType) -> TensorType:
        mask.require(self.over).require_dtype("bool", "a mask")
        batch = tuple(dim for dim in mask.dims if dim is not self.over)
        if self.over in x:
            return x.renamed({self.over: self.out}).with_dims(*batch)
        return x.with_dims(self.out, *batch)

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        return Kept(operands=(1,))

    def created_dims(self) -> tuple[Dim, ...]:
        return (self.out,)


@dataclass(frozen=True)
class Hold(Op):
    """Undoes `Compress`, holding values: frame t of `out` gets the frame of `over` of the last true mask up to t.

    Operands: y along `over`, the mask along `out`, and the value before the first true. Lustre's `current`.
    """

    picks_from: ClassVar[tuple[int, ...]] = (0, 2)
    works_along: ClassVar[tuple[str, ...]] = ("over", "out")
    over: Dim
    out: Dim

    def type_of(self, y: TensorType, mask: TensorType, init: TensorType) -> TensorType:
        mask.require(self.out).require_dtype("bool", "a mask")
        require_one_dtype("hold", (y, init))
        return y.require(self.over).renamed({self.over: self.out}).with_dims(*mask.dims, *init.dims)

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        return Kept(operands=(1,))

    @property
    def causal(self) -> bool:
        return True


@dataclass(frozen=True)
class When(Op):
    """x on a slower clock: only the steps at which the mask (second operand) is true. In a loop body only.

    The node's own `clock` is the slower one, whose dim is `out`. The pass `clocks` makes these, no layer does.
    """

    picks_from: ClassVar[tuple[int, ...]] = (0,)
    works_along: ClassVar[tuple[str, ...]] = ()
    over: Dim
    out: Dim

    @property
    def crossing(self) -> Crossing:
        return Crossing(self.over, self.out, holds=False)

    def type_of(self, x: TensorType, mask: TensorType) -> TensorType:
        mask.require_dtype("bool", "a mask")
        return x

    def measured_dims(self) -> frozenset[Dim]:
        return frozenset()

    def vectorize(self, over: Dim) -> Op:
        return Compress(self.over, self.out)


@dataclass(frozen=True)
class Current(Op):
    """y of a slower clock held until it changes; `init` before the first. In a loop body only: operands y, mask,
    init. The pass `clocks` makes these, no layer does."""

    picks_from: ClassVar[tuple[int, ...]] = (0, 2)
    in_loop: ClassVar[InLoop] = InLoop.RECURRENCE
    works_along: ClassVar[tuple[str, ...]] = ()
    over: Dim
    out: Dim

    @property
    def crossing(self) -> Crossing:
        return Crossing(self.out, self.over, holds=True)

    def type_of(self, y: TensorType, mask: TensorType, init: TensorType) -> TensorType:
        mask.require_dtype("bool", "a mask")
        return y.with_dims(*init.dims, *mask.dims)

    def measured_dims(self) -> frozenset[Dim]:
        return frozenset()

    def vectorize(self, over: Dim) -> Op:
        return Hold(self.over, self.out)
