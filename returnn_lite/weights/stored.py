"""The cells whose weights are among arrays by name, as in a checkpoint or an archive."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from returnn_lite.weights.conversion import read
from returnn_lite.weights.gates import Gates
from returnn_lite.weights.layouts import LAYOUTS, Layout

if TYPE_CHECKING:
    from returnn_lite.weights.gates import Array

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class StoredCell:
    """A cell whose arrays have names that begin with `scope`, in the layout of a system."""

    scope: str
    kind: str
    system: str
    has_bias: bool = True

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.kind][self.system]

    def names(self, present: Shapes) -> tuple[str, ...]:
        """The arrays of the cell, of those that are there."""
        optional = [self.scope + name for name in self.layout.optional()]
        always = (self.scope + name for name in self.layout.names(with_bias=self.has_bias))
        return (*always, *(name for name in optional if name in present))

    def is_among(self, shapes: Shapes) -> bool:
        """Whether all its arrays are there, with sizes that belong together."""
        return _fits(self, shapes)

    def gates(self, arrays: Mapping[str, Array], forget_bias: float | None = None) -> Gates:
        """Its weights; `forget_bias` as for `read`. Raises WeightsError."""
        below = {name.removeprefix(self.scope): arrays[name] for name in self.names(_shapes(arrays))}
        return read(below, self.layout, forget_bias)


def stored_cells(
    shapes: Shapes, kinds: Collection[str] = tuple(LAYOUTS), systems: Collection[str] | None = None
) -> list[StoredCell]:
    """The cells whose arrays are all there, in the order of their names; those of some kinds or systems. Where arrays
    could be those of several, they are those of the cell that has most of them."""
    wanted = [(k, s) for k in LAYOUTS if k in kinds for s in LAYOUTS[k] if systems is None or s in systems]
    candidates = sorted(_candidates(shapes, wanted), key=lambda cell: -len(cell.names(shapes)))
    found: list[StoredCell] = []
    taken: set[str] = set()
    for cell in candidates:
        if taken.isdisjoint(cell.names(shapes)):
            found.append(cell)
            taken.update(cell.names(shapes))
    return sorted(found, key=lambda cell: cell.scope)


def _candidates(shapes: Shapes, wanted: Sequence[tuple[str, str]]) -> Iterator[StoredCell]:
    for kind, system in wanted:
        first = LAYOUTS[kind][system].names()[0]
        for name in shapes:
            scope = name.removesuffix(first)
            if scope == name or (scope and scope[-1] not in "/."):
                continue
            cell = StoredCell(scope, kind, system, any(scope + bias in shapes for bias in LAYOUTS[kind][system].biases))
            if cell.is_among(shapes):
                yield cell


def _fits(cell: StoredCell, shapes: Shapes) -> bool:
    """Whether all arrays of the layout are there, with sizes that belong together. A matrix alone is no cell."""
    scope, layout = cell.scope, cell.layout
    names = layout.names(with_bias=cell.has_bias)
    if len(names) < 2 or not all(scope + name in shapes for name in names):
        return False
    side, rows = (0, 1) if layout.by_rows else (1, 0)
    for group in layout.groups:
        kernels = [shapes[scope + name] for name in group.kernels]
        if any(len(shape) != 2 for shape in kernels) or len({shape[side] for shape in kernels}) != 1:
            return False
        units, left = divmod(kernels[0][side], len(group.order))
        of_h = _state_size(scope, layout, units, shapes)
        last = kernels[-1][rows]
        if left or not units or (last <= of_h if len(kernels) == 1 else last != of_h):
            return False
        for name in group.biases if cell.has_bias else ():
            bias = (2, units * len(group.order)) if layout.stacked else (units * len(group.order),)
            if tuple(shapes[scope + name]) != bias:
                return False
    return True


def _state_size(scope: str, layout: Layout, units: int, shapes: Shapes) -> int:
    """The size of h: that of the projection, if there is one."""
    projection = shapes.get(scope + layout.more.get("projection", ""))
    if projection is None or len(projection) != 2:
        return units
    return projection[0 if layout.by_rows else 1]


def _shapes(arrays: Mapping[str, Array]) -> Shapes:
    return {name: array.shape for name, array in arrays.items()}
