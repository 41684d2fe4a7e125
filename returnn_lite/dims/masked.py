"""The dim of the frames that a mask leaves."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from returnn_lite.dims.dim import Dim, Expression, set_found
from returnn_lite.dims.names import shortened


@dataclass(frozen=True, eq=False, repr=False)
class Masked(Expression):
    """The frames of `dim` at which a mask is true. `mask` identifies the mask: an IR value or any hashable token.

    The `label` is for the name only: of equal ones that of the first stays.
    """

    dim: Dim
    mask: Hashable
    label: str
    mask_over: tuple[Dim, ...]

    @classmethod
    def identity(cls, *fields: Any) -> tuple[Hashable, ...]:
        dim, mask, _, mask_over = fields
        return dim, mask, mask_over

    def __post_init__(self) -> None:
        super().__post_init__()
        name = shortened(f"mask({self.dim.name},{self.label})")
        set_found(self, name=name, kind=self.dim.kind, size=None, least=0)

    def parts(self) -> tuple[Dim, ...]:
        return (self.dim, *self.mask_over)

    def part_of(self) -> Dim | None:
        return self.dim

    def with_parts(self, parts: Sequence[Dim]) -> Dim:
        return Masked(parts[0], self.mask, self.label, tuple(parts[1:]))

    def _found_over(self) -> tuple[Dim, ...]:
        return self.mask_over
