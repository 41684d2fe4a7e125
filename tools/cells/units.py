"""The constructor of a cell of another system as a unit of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tools.cells.layouts.table import layout_of

Net = dict[str, Any]
NO_NUMBERS = ("seed", "dropout_prob_seed", "memory_optimization")
"""Options that no recorded number depends on: the masks are given, and what is computed again is the same."""


def unit_of(system: str, constructor: Mapping[str, Any]) -> Net:
    """The options as they are, with the system before the name of the class; so for the cells inside."""
    found: Net = {}
    for name, value in layout_of(system, str(constructor["class"])).options(constructor).items():
        if name in NO_NUMBERS:
            continue
        if name == "class":
            found[name] = class_of(system, str(value))
        elif isinstance(value, Mapping) and "class" in value:
            found[name] = unit_of(system, value)
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            found[name] = [unit_of(system, one) for one in value]
        else:
            found[name] = value
    return found


def class_of(system: str, recorded: str) -> str:
    """The name of a recorded class in a config; that of Keras is TensorFlow's, of mode 1 unless it says `(v2)`."""
    if recorded.startswith("keras."):
        name = recorded.removeprefix("keras.")
        return f"keras.v2.{name.removesuffix('(v2)')}" if name.endswith("(v2)") else f"keras.v1.{name}"
    return f"{system}.{recorded}"
