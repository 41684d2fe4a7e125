"""The page of the benchmarks: a section for each group of figures, written by what measures it; the others stay."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

SECTIONS = ("speed", "loops", "cells", "recompute", "compiler")
HEAD = """Speed
=====

Written by ``python tools/bench/run.py --write``, ``python -m tools.bench.recompute --write`` and
``python -m tools.bench.compiler --write``; not to be edited. The
tables of networks, loops and cells have medians in milliseconds, in brackets the ratio to returnn_lite (above 1: slower
than returnn_lite). All peers are processes that are alive at the same time and take turns, so only ratios mean
anything. Training steps are those of Adam, with sequences between half and the whole of the longest, where a section
says nothing else. The networks are in ``tools/bench/networks.py``, ``loop_networks.py`` and ``cell_networks.py``.
returnn_lite and RETURNN compute with the same parameters and data, and it is checked that they compute the same.
"""


def table(rows: Sequence[Sequence[str]]) -> str:
    """A reStructuredText table, the first row being its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    line = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([line, lines[0], line, *lines[1:], line])


def section(group: str, title: str, *paragraphs: str) -> str:
    """The text of a section."""
    return "\n\n".join([f".. group: {group}", f"{title}\n{'-' * len(title)}", *map(str.strip, paragraphs)]) + "\n"


def write(path: pathlib.Path, group: str, text: str) -> None:
    """Replaces one section of the page, and keeps the others."""
    known = _sections(path.read_text() if path.exists() else "")
    known[group] = text
    path.write_text("\n".join([HEAD, *(known[name] for name in SECTIONS if name in known)]))


def _sections(page: str) -> dict[str, str]:
    """The sections of a page by group."""
    parts = page.split("\n.. group: ")[1:]
    return {part.splitlines()[0]: f".. group: {part.rstrip()}\n" for part in parts}
