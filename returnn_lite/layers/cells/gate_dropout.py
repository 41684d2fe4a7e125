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


def dropped(b: CellBuilder, value: View, masks: Sequence[View]) -> list[View]:
    """What each gate sees of a value, or all of them do."""
    return [b.mul(value, mask) for mask in masks] or [value]


def dropped_source(b: CellBuilder, x: View, rate: float, dims: Dim | Sequence[Dim], count: int) -> list[View]:
    """The same of a source, whose masks are drawn as `dropout/0`, ... Raises LayerError for labels, in all modes."""
    if rate and x.type.sparse is not None:
        b.fail("dropout of a source of labels", "Put a linear layer before it.")
    return dropped(b, x, gate_masks(b, "dropout", rate, dims, count))


def product_by_gates(
    b: CellBuilder, seen: Sequence[View], weights: View, gates: Dim, hidden: Dim, product: Product
) -> View:
    """What the gates see times their blocks of the weights [rows, gates]: one product where all see the same."""
    if len(seen) == 1:
        return product(seen[0], weights)
    blocks = b.split(weights, gates, [hidden] * len(seen))
    parts = [(product(value, block), hidden) for value, block in zip(seen, blocks, strict=True)]
    return b.with_feature(b.concat(parts, gates), gates)
