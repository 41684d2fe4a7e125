"""The tables of the benchmarks and the page that they are in: a section for each group of cases."""

from __future__ import annotations

import datetime
import os
import pathlib
import subprocess
from collections.abc import Mapping

from cases import CASES, GROUPS

PACKAGES = {
    "lite": ("returnn_lite", "tensorflow-cpu"),
    "returnn": ("returnn", "tensorflow-cpu"),
    "keras": ("keras",),
    "torch": ("torch",),
}
HEAD = """Speed
=====

Written by ``python tools/bench/run.py --write``; not to be edited. The tables have medians in milliseconds, in brackets
the ratio to returnn_lite (above 1: slower than returnn_lite). All peers are processes that are alive at the same time
and take turns, so only ratios mean anything. Training steps are those of Adam, with sequences between half and the
whole of the longest. The networks are in ``tools/bench/networks.py`` and ``loop_networks.py``. returnn_lite and RETURNN
compute with the same parameters and data, and it is checked that they compute the same.
"""
SECTIONS = {
    "speed": """\
PyTorch's and Keras' versions are written by hand. PyTorch builds no graph: its time to build is that of its first step.
""",
    "loops": """\
Networks whose speed depends on what leaves the loop. ``lite_plain`` and ``returnn_plain`` are without that:
``optimize=False`` here, ``optimize_move_layers_out=False`` in RETURNN. RETURNN with optimisation fails on the scores of
the second model. The masks of training are false in padding, as RETURNN fails otherwise.
""",
}
TITLES = {"speed": "Networks", "loops": "Loops"}


def table(results: Mapping[str, Mapping[str, float]], names: list[str]) -> str:
    """A reStructuredText table: milliseconds, and in brackets the ratio to returnn_lite (above 1: the peer is
    slower)."""
    head = ["case", *names]
    rows = [head]
    for case, medians in results.items():
        own = medians.get("lite")
        cells = []
        for name in names:
            seconds = medians.get(name)
            ratio = f" ({seconds / own:.2f})" if seconds is not None and own and name != "lite" else ""
            cells.append("–" if seconds is None else f"{seconds * 1000:.1f}{ratio}")
        rows.append([CASES[case].title, *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    line = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([line, lines[0], line, *lines[1:], line])


def write(path: pathlib.Path, group: str, text: str, pythons: Mapping[str, str], rounds: int) -> None:
    """Replaces the section of a group in the page, and keeps those of the others."""
    known = sections(path.read_text() if path.exists() else "")
    known[group] = section(group, text, pythons, rounds)
    path.write_text("\n".join([HEAD, *(known[name] for name in GROUPS if name in known)]))


def sections(page: str) -> dict[str, str]:
    """The sections of a page by group."""
    found = {}
    for part in page.split("\n.. group: ")[1:]:
        group = part.splitlines()[0]
        found[group] = f".. group: {part.rstrip()}\n"
    return found


def section(group: str, text: str, pythons: Mapping[str, str], rounds: int) -> str:
    """The text of a group: what was measured, with what, and when."""
    peers = {name.removesuffix("_plain"): python for name, python in pythons.items()}
    names = sorted({version(python, package) for name, python in peers.items() for package in PACKAGES[name]})
    return f""".. group: {group}

{TITLES[group]}
{"-" * len(TITLES[group])}

{SECTIONS[group]}
{text}

{datetime.date.today()}, {rounds} rounds on {os.cpu_count()} cores (load {os.getloadavg()[0]:.1f} in the end, 1
being the benchmark itself): {", ".join(names)}.
"""


def version(python: str, package: str) -> str:
    """Name and version of a package in a virtual environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return f"{package} {found.stdout.strip()}"
