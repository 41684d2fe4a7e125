"""The cells of a layer's unit as decoded, in lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.ir.layer_reads import CellRecord


def lines_of_cells(cells: Sequence[CellRecord]) -> list[tuple[str, str, str]]:
    """The path of each in the unit; its name with the options that differ from their defaults, a cell inside of another
    indented; and the keys of its own states."""
    return [(cell.path, "  " * _depth(cell, cells) + _in_words(cell), ", ".join(cell.states)) for cell in cells]


def is_around(outer: str, inner: str) -> bool:
    """Whether the cell of a path is another one, or has it inside."""
    return not outer or inner == outer or inner.startswith(f"{outer}/")


def _depth(cell: CellRecord, cells: Sequence[CellRecord]) -> int:
    """How many cells are around it."""
    return sum(is_around(one.path, cell.path) for one in cells) - 1


def _in_words(cell: CellRecord) -> str:
    options = (f"{name}={value if isinstance(value, str) else repr(value)}" for name, value in cell.options.items())
    return " ".join([cell.name, *options])
