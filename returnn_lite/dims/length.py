"""What lengths are computed with."""

from __future__ import annotations

from typing import Protocol, Self, TypeVar


class LengthArithmetic(Protocol):
    """What a dim needs of lengths to compute its own: they are ints, NumPy arrays, tensors or values of a graph."""

    def __add__(self, other: Self | int, /) -> Self: ...
    def __mul__(self, other: Self | int, /) -> Self: ...
    def __floordiv__(self, other: int, /) -> Self: ...


AnyLength = TypeVar("AnyLength", bound=LengthArithmetic)
