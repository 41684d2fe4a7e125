"""How other systems keep the parameters and the states of a cell, and how ours are made of them.

A layout goes from what was recorded to ours, as TensorFlow operations: so gradients of ours come back as theirs.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

Tensors = Mapping[str, Any]
Convert = Callable[[Mapping[str, Any], Tensors], dict[str, Any]]
"""From the options of a cell and what is recorded below its scope, to ours below the cell."""


def as_they_are(options: Mapping[str, Any], recorded: Tensors) -> dict[str, Any]:
    """Under the same names; shards are joined along rows."""
    found: dict[str, Any] = {}
    for name in recorded:
        whole, _, part = name.partition("/part_")
        if not part:
            found[name] = recorded[name]
        elif part == "0":
            shards = [one for one in recorded if one.startswith(f"{whole}/part_")]
            found[whole] = tf.concat([recorded[f"{whole}/part_{i}"] for i in range(len(shards))], 0)
    return found


@dataclass(frozen=True)
class Layout:
    """Of one class of another system. `states` are our keys in its order; `inner` the option that has the cell, or the
    cells, inside."""

    states: tuple[str, ...] = ("h",)
    parameters: Convert = as_they_are
    inner: str = ""
    inner_scope: Callable[[int], str] = lambda i: ""
    """Where the parameters of the i-th inner cell are, below those of this one."""
    folder: str = ""
    """What our names of its parameters begin with."""


LAYOUTS: dict[tuple[str, str], Layout] = {
    ("tf", "BasicLSTMCell"): Layout(("c", "h"), folder="basic_lstm_cell/"),
    ("tf", "BasicRNNCell"): Layout(folder="basic_rnn_cell/"),
    ("tf", "GRUCell"): Layout(folder="gru_cell/"),
    ("tf", "LSTMCell"): Layout(("c", "h"), folder="lstm_cell/"),
    ("tf", "ResidualWrapper"): Layout((), inner="cell"),
    ("tf", "MultiRNNCell"): Layout((), inner="cells", inner_scope=lambda i: f"cell_{i}"),
}
"""By system and class; others have one state, and parameters with our names."""


def layout_of(system: str, name: str) -> Layout:
    return LAYOUTS.get((system, name), Layout())


def inner_cells(layout: Layout, constructor: Mapping[str, Any]) -> Sequence[tuple[str, Mapping[str, Any]]]:
    """The cells inside of one, each with its name here."""
    if not layout.inner:
        return []
    inside = constructor[layout.inner]
    return [(str(i), one) for i, one in enumerate(inside)] if isinstance(inside, list) else [("cell", inside)]


def state_keys(system: str, constructor: Mapping[str, Any]) -> list[str]:
    """Our keys of all states, in the order of the other system."""
    layout = layout_of(system, constructor["class"])
    found = []
    for name, inside in inner_cells(layout, constructor):
        found += [f"{name}/{key}" for key in state_keys(system, inside)]
    return [*found, *layout.states]


def ours(system: str, constructor: Mapping[str, Any], recorded: Tensors) -> dict[str, Any]:
    """Our parameters below the cell, made of what is recorded. An inner cell's are below its name."""
    layout = layout_of(system, constructor["class"])
    own, found = dict(recorded), {}
    scope = _common_folder(own)
    below = {name.removeprefix(f"{scope}/"): value for name, value in own.items()} if scope else own
    for i, (name, inside) in enumerate(inner_cells(layout, constructor)):
        inner_scope = layout.inner_scope(i)
        part = {key: value for key, value in below.items() if key.startswith(inner_scope)}
        if not inner_scope:
            part = {key: value for key, value in below.items() if "/" in key} or below
        below = {key: value for key, value in below.items() if key not in part}
        stripped = {key.removeprefix(f"{inner_scope}/"): value for key, value in part.items()}
        found |= {f"{name}/{key}": value for key, value in ours(system, inside, stripped).items()}
    return {**found, **{layout.folder + key: value for key, value in layout.parameters(constructor, below).items()}}


def _common_folder(names: Mapping[str, Any]) -> str:
    folders = [posixpath.dirname(name) for name in names]
    return posixpath.commonpath(folders) if folders and all(folders) else ""
