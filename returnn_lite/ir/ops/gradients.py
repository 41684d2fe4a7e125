"""Primitives that leave values as they are and change gradients in a way that is not linear.

So it matters which gradient is meant. Of a value that does not vary over a loop, each step has its own: the operands
behind the first that vary (`StepIndex`) say so, as the result has their dims. And two layers that do the same to one
value change different gradients: `layer` keeps them apart.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from typing import ClassVar

from returnn_lite.dims import Dim, TensorType, union_of_dims
from returnn_lite.ir.kept import Kept
from returnn_lite.ir.op import Op


@dataclass(frozen=True)
class FilterGradient(Op):
    """The identity of the first operand, whose gradient g becomes 0 where the maximum of g**2 over `over` is not below
    `threshold`."""

    is_view: ClassVar[bool] = True
    works_along: ClassVar[tuple[str, ...]] = ("over",)
    layer: str = field(repr=False)
    over: tuple[Dim, ...]
    threshold: float

    def type_of(self, x: TensorType, *steps: TensorType) -> TensorType:
        x.require_dtype("float", "a gradient").require(*self.over)
        return x.with_dims(*union_of_dims((x, *steps)))


@dataclass(frozen=True)
class TransformGradient(Op):
    """The identity of the first operand, whose gradient g becomes scale * g + shift at real frames; the second and
    third operand are scale and shift, and get no gradient.

    With `sum_over` the shift is multiplied by the sum of abs(g) over that dim, with `clip_over` the result is between
    -m and m, where m is the maximum of abs(g) over that dim.
    """

    is_view: ClassVar[bool] = True
    works_along: ClassVar[tuple[str, ...]] = ("sum_over", "clip_over")
    layer: str = field(repr=False)
    sum_over: Dim | None = None
    clip_over: Dim | None = None

    def passes_gradient(self, operand: int) -> bool:
        return operand == 0

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        return Kept(operands=(1, 2))

    def type_of(self, x: TensorType, *others: TensorType) -> TensorType:
        x.require_dtype("float", "a gradient").require(*(d for d in (self.sum_over, self.clip_over) if d is not None))
        return x.with_dims(*union_of_dims((x, *others)))
