"""What the gradient of a primitive needs of its forward pass: what stays in memory until the backward pass comes."""

from __future__ import annotations

from dataclasses import dataclass

from returnn_lite.dims import TensorType


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
