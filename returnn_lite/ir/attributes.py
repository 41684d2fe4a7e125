"""Dims in the attributes of primitives: alone, in tuples, and in dataclasses."""

from __future__ import annotations

import dataclasses
import enum
import functools
import re
from collections.abc import Hashable, Iterable, Mapping

from returnn_lite.dims import Dim, TensorType


def substitute_attribute(value: object, mapping: Mapping[Dim, Dim]) -> object:
    """An attribute with dims replaced, inside tuples and nested dataclasses too."""
    if isinstance(value, Dim):
        return value.substitute(mapping)
    if isinstance(value, TensorType):
        return value.substitute(mapping)
    if isinstance(value, tuple):
        return tuple(substitute_attribute(item, mapping) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and not isinstance(value, enum.Enum):
        fields = dataclasses.fields(value)
        return dataclasses.replace(
            value, **{f.name: substitute_attribute(getattr(value, f.name), mapping) for f in fields}
        )
    return value


WITHOUT_DIMS = frozenset(["str", "int", "float", "bool", "None", "TensorType", "Literal"])
NO_DIMS: frozenset[Dim] = frozenset()


@functools.cache
def fields_with_dims(cls: Hashable) -> tuple[str, ...]:
    """The fields of a dataclass whose types may have dims; not those of a tensor type."""
    assert isinstance(cls, type)
    words = {f.name: re.findall(r"\w+", str(f.type)) for f in dataclasses.fields(cls)}
    return tuple(name for name, of_type in words.items() if not WITHOUT_DIMS.issuperset(of_type))


def dims_of(value: object, names: Iterable[str]) -> list[Dim]:
    """The dims in attributes, in order, inside tuples and nested dataclasses too."""
    found: list[Dim] = []
    for name in names:
        _add_dims(getattr(value, name), found)
    return found


def _add_dims(value: object, found: list[Dim]) -> None:
    if isinstance(value, Dim):
        found.append(value)
    elif isinstance(value, tuple):
        for item in value:
            _add_dims(item, found)
    elif dataclasses.is_dataclass(value) and not isinstance(value, TensorType):
        cls: type = type(value)
        found += dims_of(value, fields_with_dims(cls))
