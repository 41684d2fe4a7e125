"""The variables of a Keras layer under names that do not depend on what else a process has made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras

UNNAMED = re.compile(r"variable(_\d+)?")
"""What Keras calls a weight without a name, by how many it has made before."""


@dataclass(frozen=True)
class Found:
    """What an attribute of a layer, or of one inside of it, has: a layer, a variable or a seed generator."""

    name: str
    value: Any
    layer: keras.Layer


def layers_of(layer: keras.Layer) -> list[keras.Layer]:
    """A layer and those inside of it."""
    return [layer, *(one.value for one in attributes_of(layer) if isinstance(one.value, keras.Layer))]


def weight_names(layer: keras.Layer) -> list[str]:
    """The names of `layer.weights`, in order: the path of attributes to the layer inside that has it, then its own
    name, or that of its attribute where it has none: `kernel`, `dense/kernel`, `cells/0/bias`."""
    found = attributes_of(layer)
    below = [("", layer), *((f"{one.name}/", one.value) for one in found if isinstance(one.value, keras.Layer))]
    # Those inside come behind those around them, so the last one that has a weight is its own.
    owners = {id(weight): prefix for prefix, owner in below for weight in owner.weights}
    attributes = {id(one.value): one.name.removeprefix("_") for one in found if isinstance(one.value, keras.Variable)}
    names: list[str] = []
    for weight in layer.weights:
        is_named = UNNAMED.fullmatch(weight.name) is None
        name = f"{owners[id(weight)]}{weight.name}" if is_named else attributes[id(weight)]
        same = sum(other == name or other.startswith(f"{name}:") for other in names)
        names.append(f"{name}:{same}" if same else name)
    return names


def attributes_of(layer: keras.Layer) -> list[Found]:
    """All that is found, each thing once; what has a public name under that."""
    found: dict[int, Found] = {}
    for one in _walk(layer, "", {id(layer)}):
        found.setdefault(id(one.value), one)
    return list(found.values())


def _walk(layer: keras.Layer, prefix: str, seen: set[int]) -> Iterator[Found]:
    for name, value in sorted(vars(layer).items(), key=lambda one: one[0].startswith("_")):
        yield from _inside(layer, value, f"{prefix}{name}", seen)


def _inside(layer: keras.Layer, value: Any, name: str, seen: set[int]) -> Iterator[Found]:
    if isinstance(value, list | tuple):
        for place, one in enumerate(value):
            yield from _inside(layer, one, f"{name}/{place}", seen)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _inside(layer, one, f"{name}/{key}", seen)
    elif isinstance(value, keras.Variable | keras.random.SeedGenerator):
        yield Found(name, value, layer)
    elif isinstance(value, keras.Layer) and id(value) not in seen:
        seen.add(id(value))
        yield Found(name, value, layer)
        yield from _walk(value, f"{name}/", seen)
