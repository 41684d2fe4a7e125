"""The cells whose weights are among arrays by name, as in a checkpoint or an archive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from returnn_lite.weights.gates import KINDS, Gates
from returnn_lite.weights.layouts import LAYOUTS, Layout, read

if TYPE_CHECKING:
    from returnn_lite.weights.gates import Array

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class StoredCell:
    """A cell whose arrays have names that begin with `scope`, in the layout of a system."""

    scope: str
    kind: str
    system: str

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.kind][self.system]

    def names(self, present: Shapes) -> tuple[str, ...]:
        """The arrays of the cell, of those that are there."""
        optional = [self.scope + name for name in self.layout.more.values()]
        return (*(self.scope + name for name in self.layout.names()), *(name for name in optional if name in present))

    def is_among(self, shapes: Shapes) -> bool:
        """Whether all its arrays are there, with sizes that belong together."""
        return _fits(self.scope, self.kind, self.layout, shapes)

    def gates(self, arrays: Mapping[str, Array]) -> Gates:
        """Its weights. Raises WeightsError."""
        below = {name.removeprefix(self.scope): arrays[name] for name in self.names(_shapes(arrays))}
        return read(below, self.layout)


def stored_cells(shapes: Shapes) -> list[StoredCell]:
    """The cells whose arrays are all there, in the order of their names. Where arrays could be those of several, they
    are those of the cell that has most of them."""
    candidates = sorted(_candidates(shapes), key=lambda cell: -len(cell.names(shapes)))
    found: list[StoredCell] = []
    taken: set[str] = set()
    for cell in candidates:
        if taken.isdisjoint(cell.names(shapes)):
            found.append(cell)
            taken.update(cell.names(shapes))
    return sorted(found, key=lambda cell: cell.scope)


def _candidates(shapes: Shapes) -> Iterator[StoredCell]:
    for kind, layouts in LAYOUTS.items():
        for system, layout in layouts.items():
            first = layout.names()[0]
            for name in shapes:
                scope = name.removesuffix(first)
                cell = StoredCell(scope, kind, system)
                if scope != name and (not scope or scope[-1] in "/.") and cell.is_among(shapes):
                    yield cell


def _fits(scope: str, kind: str, layout: Layout, shapes: Shapes) -> bool:
    """Whether all arrays of the layout are there, with sizes that belong together."""
    if not all(scope + name in shapes for name in layout.names()):
        return False
    gates = len(KINDS[kind])
    bias = shapes[scope + layout.groups[-1].biases[-1]]
    units = bias[-1] // len(layout.groups[-1].order)
    if len(bias) != (2 if layout.stacked else 1) or not units:
        return False
    for group in layout.groups:
        side = units * len(group.order)
        for name in group.kernels:
            shape = shapes[scope + name]
            if len(shape) != 2 or shape[0 if layout.by_rows else 1] != side:
                return False
        rows = shapes[scope + group.kernels[-1]][1 if layout.by_rows else 0]
        if rows <= units if len(group.kernels) == 1 else rows != _state_size(scope, layout, units, shapes):
            return False
    return gates == sum(len(group.order) for group in layout.groups)


def _state_size(scope: str, layout: Layout, units: int, shapes: Shapes) -> int:
    """The size of h: that of the projection, if there is one."""
    projection = shapes.get(scope + layout.more.get("projection", ""))
    return units if projection is None else projection[0 if layout.by_rows else 1]


def _shapes(arrays: Mapping[str, Array]) -> Shapes:
    return {name: array.shape for name, array in arrays.items()}
