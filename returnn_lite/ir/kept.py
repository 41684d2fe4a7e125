"""What the gradient of a primitive needs of its forward pass: what stays in memory until the backward pass comes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from returnn_lite.dims import Dim, TensorType


@dataclass(frozen=True)
class Kept:
    """The positions of operands and of results that are kept, and the types of what a primitive computes on its way and
    keeps besides."""

    operands: tuple[int, ...] = ()
    results: tuple[int, ...] = ()
    inner: tuple[TensorType, ...] = ()


NOTHING = Kept()


def has_padding(*types: TensorType) -> bool:
    """Whether there are frames beyond a sequence's length, which are masked before what is kept is computed."""
    return any(dim.is_ragged for type_ in types for dim in type_.dims)


WORTHWHILE = 2**17
"""Elements of a loop-invariant factor from which on it pays to make its gradient behind the backward loop: below,
appending costs more than adding up. Measured on two cores."""

TYPICAL_SIZE = 32
"""What a dynamic dim counts for in that."""


def width(dims: Iterable[Dim]) -> int:
    """How many elements there are over the dims, where the dynamic ones have a typical size."""
    return math.prod(dim.size or TYPICAL_SIZE for dim in dims)
