"""All layouts by system and class, and what they say of a whole constructor."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tools.cells.case import Array
from tools.cells.layouts import caffe2, convolutional, frequency, gru, lstm, normalized, small_cells, wrappers
from tools.cells.layouts.layout import Layout, Tensors

LAYOUTS: Mapping[tuple[str, str], Layout] = {
    **caffe2.LAYOUTS,
    **convolutional.LAYOUTS,
    **frequency.LAYOUTS,
    **gru.LAYOUTS,
    **lstm.LAYOUTS,
    **normalized.LAYOUTS,
    **small_cells.LAYOUTS,
    **wrappers.LAYOUTS,
}
"""By system and class; others have one state, and parameters with our names."""


def layout_of(system: str, name: str) -> Layout:
    """The layout of a class. One of Keras' is entered for `keras`, or for each of TensorFlow's modes, `keras.v1` and
    `keras.v2`."""
    if name.startswith("keras."):
        bare = name.removeprefix("keras.").removesuffix("(v2)")
        mode = "keras.v2" if name.endswith("(v2)") else "keras.v1"
        return LAYOUTS.get((mode, bare)) or LAYOUTS.get(("keras", bare), Layout())
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
    return [*found, *layout.keys(constructor)]


def state_sizes(system: str, constructor: Mapping[str, Any], total: int) -> list[int]:
    """The sizes of states that were recorded joined, `total` together: `units`, of an output the projection's."""
    found: list[int] = []
    layout = layout_of(system, constructor["class"])
    for _, inside in inner_cells(layout, constructor):
        found += state_sizes(system, inside, 0)
    if layout.sizes is not None:
        return [*found, *layout.sizes(constructor)]
    units = int(constructor.get("num_units") or constructor.get("units") or 0)
    projection = int(constructor.get("num_proj") or units)
    found += [projection if key == "h" else units for key in layout.keys(constructor)]
    return found if sum(found) == total or not total else [total // len(found)] * len(found)


def ours(system: str, constructor: Mapping[str, Any], recorded: Tensors) -> dict[str, Any]:
    """Our parameters below the cell, made of what is recorded. An inner cell's are below its name."""
    layout = layout_of(system, constructor["class"])
    own, found = dict(recorded), {}
    scope = _common_folder(own)
    below = {name.removeprefix(f"{scope}/"): value for name, value in own.items()} if scope else own
    for i, (name, inside) in enumerate(inner_cells(layout, constructor)):
        part = _names_of_inner(layout, i, below)
        inner = {part[key]: value for key, value in below.items() if key in part}
        below = {key: value for key, value in below.items() if key not in part}
        found |= {f"{name}/{key}": value for key, value in ours(system, inside, inner).items()}
    return {**found, **{layout.folder + key: value for key, value in layout.parameters(constructor, below).items()}}


def _names_of_inner(layout: Layout, i: int, names: Iterable[str]) -> dict[str, str]:
    """The names of the parameters of the i-th inner cell among those below the one around it; and what they are called
    below itself."""
    folder, suffix = layout.inner_scope(i), layout.inner_suffix(i)
    before = f"{folder}/" if folder else ""
    found = [name for name in names if name.startswith(before) and not f"{name}/".startswith(_starts(layout.own))]
    if layout.inner_suffix(1):  # the first one has none, as Keras numbers
        found = [name for name in found if name.rpartition("_")[2].isdigit() == bool(suffix) and name.endswith(suffix)]
    return {name: name.removeprefix(before).removesuffix(suffix) for name in found}


def _starts(own: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{name.rstrip('/')}/" for name in own)


def masks(system: str, constructor: Mapping[str, Any], recorded: Mapping[str, Array]) -> dict[str, Array]:
    """The recorded dropout masks by the names of our draws below the layer's name."""
    layout = layout_of(system, constructor["class"])
    found: dict[str, Array] = {}
    for draw, names in layout.masks(constructor, state_keys(system, constructor)).items():
        there = [name for name in names if name in recorded]
        if there:
            found[draw] = recorded[there[0]]
    for name, inside in inner_cells(layout, constructor):
        own = {key.removeprefix(f"{name}/"): mask for key, mask in recorded.items() if key.startswith(f"{name}/")}
        found |= {f"{name}/{draw}": mask for draw, mask in masks(system, inside, own or recorded).items()}
    return found


def _common_folder(names: Mapping[str, Any]) -> str:
    folders = [posixpath.dirname(name) for name in names]
    return posixpath.commonpath(folders) if folders and all(folders) else ""
