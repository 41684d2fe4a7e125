"""Dropout with a mask for each gate of a cell, or one for all (Gal and Ghahramani 2016)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from returnn_lite.dims import Dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder

Product = Callable[[View, View], View]
"""Of a value and weights."""


def gate_masks(b: CellBuilder, name: str, rate: float, dims: Dim | Sequence[Dim], count: int) -> list[View]:
    """As many masks of a sequence as there are gates, or one; none where nothing drops. They are drawn as `name/0`,
    `name/1`, ..."""
    each = (dims,) if isinstance(dims, Dim) else dims
    masks = [b.sequence_mask(f"{name}/{i}", rate, *each) for i in range(count)]
    return [mask for mask in masks if mask is not None]


def require_features(b: CellBuilder, x: View, rate: float) -> None:
    """Refuses dropout of labels."""
    if rate and x.type.sparse is not None:
        b.fail("dropout of a source of labels", "Put a linear layer before it.")


def dropped(b: CellBuilder, value: View, masks: Sequence[View]) -> list[View]:
    """What each gate sees of a value, or all of them do."""
    return [b.mul(value, mask) for mask in masks] or [value]


def product_by_gates(
    b: CellBuilder, seen: Sequence[View], weights: View, gates: Dim, hidden: Dim, product: Product
) -> View:
    """What the gates see times their blocks of the weights [rows, gates]: one product where all see the same."""
    if len(seen) == 1:
        return product(seen[0], weights)
    blocks = b.split(weights, gates, [hidden] * len(seen))
    parts = [(product(value, block), hidden) for value, block in zip(seen, blocks, strict=True)]
    return b.with_feature(b.concat(parts, gates), gates)
