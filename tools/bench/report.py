"""The tables of the benchmarks against peers: a section of the page for each group of cases."""

from __future__ import annotations

import datetime
import os
import pathlib
import subprocess
from collections.abc import Mapping

import page
from cases import CASES

PACKAGES = {
    "lite": ("returnn_lite", "tensorflow-cpu"),
    "returnn": ("returnn", "tensorflow-cpu"),
    "keras": ("keras",),
    "torch": ("torch",),
}
SECTIONS = {
    "speed": """\
PyTorch's and Keras' versions are written by hand. PyTorch builds no graph: its time to build is that of its first step.
""",
    "loops": """\
Networks whose speed depends on what leaves the loop. ``lite_plain`` and ``returnn_plain`` are without that:
``optimize=False`` here, ``optimize_move_layers_out=False`` in RETURNN. RETURNN with optimisation fails on the scores of
the second model. The masks of training are false in padding, as RETURNN fails otherwise.
""",
    "cells": """\
Objective and gradients of one recurrent layer, without an optimiser's step: 32 sequences of 50 frames, 256 features and
units (attention: 20 frames, 40 of the encoder; convolutions: 8 sequences of 20 frames). All sequences of a batch have
one length, and Keras has no mask. Keras' versions are ``keras.layers.RNN`` over each cell by its formula
(``tools/bench/keras_cells``) or Keras' own cell; it is checked that they compute the same objective and gradients as
returnn_lite, but where what is drawn differs (zoneout). PyTorch's are its layers, on other random numbers.
""",
}
TITLES = {"speed": "Networks", "loops": "Loops", "cells": "Cells"}


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
    return page.table(rows)


def write(path: pathlib.Path, group: str, text: str, pythons: Mapping[str, str], rounds: int) -> None:
    """Replaces the section of a group in the page: what was measured, with what, and when."""
    peers = {name.removesuffix("_plain"): python for name, python in pythons.items()}
    names = sorted({version(python, package) for name, python in peers.items() for package in PACKAGES[name]})
    measured = (
        f"{datetime.date.today()}, {rounds} rounds on {os.cpu_count()} cores (load {os.getloadavg()[0]:.1f} in the "
        f"end, 1 being the benchmark itself):\n{', '.join(names)}."
    )
    page.write(path, group, page.section(group, TITLES[group], SECTIONS[group], text, measured))


def version(python: str, package: str) -> str:
    """Name and version of a package in a virtual environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return f"{package} {found.stdout.strip()}"
