"""The values of a kind, such as references to layers, among the options of a class or an instance."""

from __future__ import annotations

import functools
import typing
from collections.abc import Hashable, Iterator, Mapping
from typing import Annotated, Any

from returnn_lite.config.decode import UNIONS, decode_value, members_of, option_types


def values_of_kind(instance: object, name: str) -> Iterator[Any]:
    """Every value inside an instance's options that is declared as a kind: all "layer" references, all "network"
    dicts."""
    return (value for _, value in options_of_kind(instance, name))


def options_of_kind(instance: object, name: str) -> Iterator[tuple[str, Any]]:
    """The same, each with the name of its option."""
    cls: type = type(instance)
    for option_name, expected in _typed_options_with_kind(cls, name):
        given = getattr(instance, option_name)
        if given is not None:
            yield from ((option_name, value) for value in values_of_type(expected, given, name))


def options_with_kind(cls: type, name: str) -> tuple[str, ...]:
    """The names of a class's options whose declared type has the kind anywhere."""
    return tuple(option for option, _ in _typed_options_with_kind(cls, name))


@functools.cache
def _typed_options_with_kind(cls: Hashable, name: str) -> tuple[tuple[str, Any], ...]:
    """The options of a class whose declared type has the kind anywhere: for most classes none or one."""
    assert isinstance(cls, type)
    return tuple((option, expected) for option, expected in option_types(cls).items() if _has_kind(expected, name))


def _has_kind(expected: Any, name: str) -> bool:
    if typing.get_origin(expected) is Annotated:
        return bool(expected.__metadata__[0].name == name)
    return any(_has_kind(argument, name) for argument in typing.get_args(expected))


def values_of_type(expected: Any, value: Any, name: str) -> Iterator[Any]:
    """Every value of a kind inside one value of a declared type."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is Annotated:
        if arguments[1].name == name and value is not None:
            yield value
    elif origin in UNIONS:
        for choice in members_of(expected):
            try:
                decode_value(choice, value)
            except ValueError:
                continue
            yield from values_of_type(choice, value, name)
            return
    elif origin in (list, tuple, set) and not isinstance(value, str):
        for item in value:
            yield from values_of_type(arguments[0], item, name)
    elif origin is dict and isinstance(value, Mapping):
        for item in value.values():
            yield from values_of_type(arguments[1], item, name)
