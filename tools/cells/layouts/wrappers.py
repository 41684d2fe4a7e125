"""Cells around others."""

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from tools.cells.layouts.layout import Layout, Masks


def _dropout_masks(options: Mapping[str, Any], states: Sequence[str]) -> Masks:
    """A state's mask is recorded under its key, under that of its cell, or under none; there may be one of a c that is
    not used."""
    names: dict[str, Sequence[str]] = {"input": ("input",), "output": ("output",)}
    for state in states:
        key = state.removeprefix("cell/")
        if not (posixpath.basename(key) == "c" and f"{state[:-1]}h" in states):
            names[f"state/{state}"] = (f"state/{key}", posixpath.dirname(f"state/{key}"), "state/s", "state")
    return names


LAYOUTS = {
    ("tf", "DropoutWrapper"): Layout((), inner="cell", masks=_dropout_masks),
    ("tf", "MultiRNNCell"): Layout((), inner="cells", inner_scope=lambda i: f"cell_{i}"),
    ("tf", "ResidualWrapper"): Layout((), inner="cell"),
}
