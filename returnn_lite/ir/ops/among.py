"""Primitives among some frames of a dim: which of them take part is known only at run time.

In a step of a loop a batch is those of its sequences that have not ended before, and, where something is masked, at
whose step the mask is true. What compares, sums or orders over the batch there sees these alone.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import ClassVar

from returnn_lite.dims import Dim, DimError, TensorType
from returnn_lite.ir.kept import Kept
from returnn_lite.ir.op import Op


@dataclass(frozen=True)
class Among(Op):
    """`op` on the frames of `over` without those at which the first operand (bool) is true: as if these did not exist.

    The other operands are those of `op`. If the first has more dims than `over`, others are absent at each frame of
    these; where such a dim is longer than a sequence is, it is absent whatever the operand says. Results have `over`
    with all its frames, of which those that are absent are 0, and numbers of its frames count them all. Where all are
    absent nobody reads a result, and none is infinite. One whose size would be that of the frames that are there is
    refused. If an operand numbers frames, absent ones stay, as 0.
    """

    works_along: ClassVar[tuple[str, ...]] = ("over", "op")
    op: Op
    over: Dim

    @property
    def label(self) -> str:
        return f"{self.op.label}_among"

    def shown_attributes(self) -> dict[str, object]:
        return {"among": self.over, **self.op.shown_attributes()}

    def along(self, *inputs: TensorType) -> tuple[Dim, ...]:
        return tuple(dict.fromkeys((self.over, *inputs[0].dims, *self.op.along(*inputs[1:]))))

    @property
    def roles(self) -> tuple[str, ...]:
        return self.op.roles

    def type_of(self, absent: TensorType, *inputs: TensorType) -> tuple[TensorType, ...]:
        absent.require(self.over).require_dtype("bool", "what says who is absent")
        results = self.op.output_types(tuple(x.with_dims(*absent.dims) if self.over in x else x for x in inputs))
        known = {self.over}.union(*(x.dims for x in (absent, *inputs)))
        new = [dim for result in results for dim in result.dims if dim.is_dynamic and dim not in known]
        if new or self.op.created_dims():
            raise DimError(
                f"{self.op.label} along {self.over} gives {(*new, *self.op.created_dims())[0]}, but how many of "
                f"{self.over} there are differs from step to step of a loop, and from frame to frame: do it outside of "
                "the loop, before anything has a time dim"
            )
        return results

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        """Besides what `op` keeps, who is absent."""
        kept = self.op.kept_for_gradient(inputs[1:], {i - 1 for i in wanted})
        return Kept((0, *(i + 1 for i in kept.operands)), kept.results, kept.inner)

    def products(self, inputs: tuple[TensorType, ...]) -> tuple[tuple[Dim, ...], ...]:
        return self.op.products(inputs[1:])
