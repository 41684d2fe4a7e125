"""A dict of a config as an instance of an option class: names and values checked against the declared types.

Every mistake of the dict is reported, with what was expected, what was got, and the nearest name.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from returnn_lite.config.diagnostics import nearest
from returnn_lite.config.options import Kind, OptionInfo, UnspecifiedType, is_network

Report = Callable[[str, str, str], None]
"""Called with the option's name, what is wrong, and what to do."""

Decoded = TypeVar("Decoded")


def option_types(cls: type) -> Mapping[str, Any]:
    """The declared type of each option of a class."""
    return _cached_option_types(cls)


@functools.cache
def _cached_option_types(cls: Hashable) -> Mapping[str, Any]:
    assert isinstance(cls, type) and dataclasses.is_dataclass(cls)
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


@dataclasses.dataclass(frozen=True)
class DeclaredOption:
    """An option of a class: its declared type, what it is for, and its default."""

    type: Any
    info: OptionInfo
    default: object
    is_required: bool


@functools.cache
def _declared_options(cls: Hashable) -> Mapping[str, DeclaredOption]:
    """The options of a class by name, looked up once for all the layers of it."""
    assert isinstance(cls, type) and dataclasses.is_dataclass(cls)
    found = {}
    for field in dataclasses.fields(cls):
        is_required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        info = field.metadata["option"]
        assert isinstance(info, OptionInfo)
        found[field.name] = DeclaredOption(option_types(cls)[field.name], info, field.default, is_required)
    return types.MappingProxyType(found)


def option_info(cls: type, name: str) -> OptionInfo:
    """Description and support of an option."""
    return _declared_options(cls)[name].info


def option_names(cls: type) -> Sequence[str]:
    """The names of a class's options."""
    return tuple(_declared_options(cls))


def decode(
    cls: type[Decoded], values: Mapping[str, Any], report: Report, misspelt: Collection[str] = ()
) -> Decoded | None:
    """An instance from those of the values that are options of the class; None if any is wrong or missing.

    `misspelt` are options that are probably there under a wrong name, which is reported already: one mistake is one
    message.
    """
    options_class: type = cls
    arguments: dict[str, Any] = {}
    ok = True
    for name, option in _declared_options(options_class).items():
        if name not in values:
            if option.is_required:
                if name not in misspelt:
                    report(name, f"'{name}' is missing", f"Add it: {option.info.description}.")
                ok = False
            continue
        value = values[name]
        unsupported = option.info.unsupported
        if unsupported is not None and value != option.default:
            report(name, f"{name}: {value!r} is not supported", f"{unsupported[0].upper()}{unsupported[1:]}.")
            ok = False
            continue
        try:
            arguments[name] = decode_value(option.type, value)
        except ValueError as error:
            report(name, f"expected {describe(option.type)}, got {_shown(value)}", str(error))
            ok = False
            continue
        wanted = _other_number(option.info, value)
        if wanted:
            report(name, f"expected a number {wanted}, got {_shown(value)}", "")
            ok = False
    return cls(**arguments) if ok else None


def _other_number(info: OptionInfo, value: object) -> str:
    """What a number should be that is too small or too large."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return ""
    too_small = info.least is not None and value < info.least
    too_large = info.below is not None and value >= info.below
    if not too_small and not too_large:
        return ""
    limits = [f"of at least {info.least}"] if info.least is not None else []
    return " and ".join([*limits, *([f"below {info.below}"] if info.below is not None else [])])


def meant_options(given: Iterable[Any], known: Sequence[str]) -> set[str]:
    """The options that names which are none were probably meant to be."""
    return {found for name in given if name not in known and (found := nearest(str(name), known)) is not None}


def unknown_option(name: str, candidates: Sequence[str]) -> str:
    """What to do about an unknown option."""
    found = nearest(name, candidates)
    return f"Did you mean '{found}'?" if found is not None else "'rnn.py schema' has all options."


def decode_value(expected: Any, value: Any) -> Any:
    """The value as the declared type wants it. Raises ValueError, whose text is a hint or empty."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is Annotated:
        return _decode_kind(arguments[0], arguments[1], value)
    if origin in UNIONS:
        return _decode_union(members_of(expected), value)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        found = nearest(value, [c for c in arguments if isinstance(c, str)]) if isinstance(value, str) else None
        raise ValueError(f"Did you mean '{found}'?" if found else "")
    if expected in (Any, object):
        return value
    if expected is None or expected is type(None):
        return _accept(value is None, value)
    if origin in (list, tuple, set):
        return _decode_sequence(origin, arguments, value)
    if origin is dict or origin is Mapping:
        if not isinstance(value, Mapping):
            raise ValueError("")
        return {decode_value(arguments[0], k): decode_value(arguments[1], v) for k, v in value.items()}
    return _decode_plain(expected, value)


def _decode_plain(expected: Any, value: Any) -> Any:
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return value
    if expected is int and isinstance(value, bool):
        raise ValueError("")
    if origin_callable(expected):
        return _accept(callable(value), value)
    return _accept(isinstance(value, expected), value)


def origin_callable(expected: Any) -> bool:
    """True for the type of functions."""
    return expected is Callable or typing.get_origin(expected) in (
        Callable,
        getattr(typing.Callable, "__origin__", None),
    )


def _accept(condition: bool, value: Any) -> Any:
    if not condition:
        raise ValueError("")
    return value


def _decode_kind(base: Any, kind: Kind, value: Any) -> Any:
    if kind.name == "function" and not callable(value):
        raise ValueError("A function can only be given in a Python config.")
    if kind.name == "network" and isinstance(value, Mapping) and not is_network(value):
        raise ValueError("A dict with a 'class' is one layer, or one cell.")
    return decode_value(base, value)


def _decode_union(choices: Sequence[Any], value: Any) -> Any:
    hints = []
    for choice in choices:
        try:
            return decode_value(choice, value)
        except ValueError as error:
            hints.append(str(error))
    raise ValueError(" ".join(dict.fromkeys(hint for hint in hints if hint)))


def _decode_sequence(origin: type, arguments: Sequence[Any], value: Any) -> Any:
    if isinstance(value, str) or not isinstance(value, Sequence | set | frozenset):
        raise ValueError("")
    items = list(value)
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(items) != len(arguments):
            raise ValueError("")
        return tuple(decode_value(t, item) for t, item in zip(arguments, items, strict=True))
    return origin(decode_value(arguments[0], item) for item in items)


UNIONS = (typing.Union, types.UnionType)
NAMES = {bool: "true or false", int: "an int", float: "a number", str: "a string", type(None): "null", None: "null"}


KINDS = {"layer": "the name of a layer", "axis": "an axis", "network": "a dict of layers", "length": "a string"}


def describe(expected: Any) -> str:
    """A declared type in words."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is Annotated:
        kind = arguments[1].name
        return KINDS.get(kind, f"a {kind}" if kind[0] not in "aeiou" else f"an {kind}")
    if origin in UNIONS:
        named = [describe(choice) for choice in members_of(expected) if choice is not UnspecifiedType]
        return " or ".join(dict.fromkeys(named))
    if origin is Literal:
        return "one of " + ", ".join(repr(choice) for choice in arguments)
    if origin in (list, tuple, set):
        inner = " and ".join(dict.fromkeys(describe(a) for a in arguments if a is not Ellipsis))
        return f"a list of {inner}" if inner else "a list"
    if origin in (dict, Mapping):
        return "a dict"
    return NAMES.get(expected, getattr(expected, "__name__", "a value"))


@functools.cache
def members_of(union: Any) -> tuple[Any, ...]:
    """The members of a union: layers, other kinds, the rest, null. Python gives the order of whichever equal union it
    saw first, so that messages would depend on what was read before."""
    members = typing.get_args(union)
    return tuple(sorted(members, key=_rank))


def _rank(member: Any) -> tuple[object, ...]:
    kind = member.__metadata__[0].name if hasattr(member, "__metadata__") else ""
    return member is type(None), kind != "layer", not kind, describe(member)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
