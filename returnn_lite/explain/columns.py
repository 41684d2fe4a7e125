"""Tables for a terminal and for `grep`: plain text, a row a line whatever the width, columns aligned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def columns(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The header and the rows, each column as wide as its widest cell."""
    table = [list(header), *(list(row) for row in rows)]
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )
