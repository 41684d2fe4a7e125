"""Composition of configs: `extends`, and overrides from the command line; and configs written back as YAML."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import yaml

from returnn_lite.config.diagnostics import COMMAND_LINE, ConfigError, ConfigPath, Diagnostic, Position, nearest_hint
from returnn_lite.config.scalars import is_text_unquoted
from returnn_lite.config.source import Source, parse_scalar, read_yaml


def read_composed(path: str | pathlib.Path) -> Source:
    """A YAML config with what it `extends`: later files win, dicts merge deeply, null removes. Raises ConfigError."""
    return _read(pathlib.Path(path), ())


def _read(path: pathlib.Path, around: tuple[pathlib.Path, ...]) -> Source:
    source = read_yaml(path)
    bases = source.data.pop("extends", [])
    where = source.locate(("extends",))
    if isinstance(bases, str):
        bases = [bases]
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError([Diagnostic(where, ("extends",), f"expected a list of files, got {bases!r}")])
    data: dict[str, Any] = {}
    positions: dict[ConfigPath, tuple[Position, Position]] = {}
    for base in bases:
        other = (path.parent / base).resolve()
        if other in (*around, path.resolve()):
            raise ConfigError(
                [Diagnostic(where, ("extends",), f"'{base}' extends this file in turn", "Break the cycle.")]
            )
        if not other.is_file():
            raise ConfigError([Diagnostic(where, ("extends",), f"there is no file '{base}' beside '{path.name}'")])
        inherited = _read(other, (*around, path.resolve()))
        data = merged(data, inherited.data)
        positions |= inherited.positions
    return Source(source.file, merged(data, source.data) if bases else source.data, positions | dict(source.positions))


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The dicts merged deeply; null in `over` removes a key that `base` has, and lists are replaced."""
    result = dict(base)
    for key, value in over.items():
        if value is None and key in base:
            del result[key]
        elif isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            result[key] = merged(base[key], value)
        else:
            result[key] = value
    return result


Override = tuple[str, Any, bool]
"""The dotted key, the value, and whether the key may be new."""


def overridden(source: Source, overrides: Sequence[Override]) -> Source:
    """The config with values replaced; messages about them say "command line". Raises ConfigError if one matches
    nothing."""
    data = source.data
    positions = dict(source.positions)
    diagnostics: list[Diagnostic] = []
    for key, value, new in overrides:
        parts = _parts(data, key)
        mistake = _mistake(data, key, parts, new)
        if mistake is not None:
            diagnostics.append(mistake)
            continue
        data = _removed(data, parts) if value is None and _is_dict_at(data, parts) else _with(data, parts, value)
        positions = {path: place for path, place in positions.items() if path[: len(parts)] != parts}
        positions[parts] = (COMMAND_LINE, COMMAND_LINE)
    if diagnostics:
        raise ConfigError(diagnostics)
    return Source(source.file, data, positions)


def _mistake(data: Mapping[str, Any], key: str, parts: ConfigPath, new: bool) -> Diagnostic | None:
    """What is wrong with the key of an override: it matches nothing, or can't be added where it should."""
    missing = _missing(data, parts)
    if missing is None:
        return None
    index, there = missing
    if there is not None and not isinstance(there, Mapping):
        what = f"a list of {len(there)}" if isinstance(there, list) else f"{there!r}, no dict"
        at = ".".join(map(str, parts[:index]))
        message = f"there is no '{parts[index]}' in '{at}', which is {what}"
        return Diagnostic(COMMAND_LINE, parts, message, f"Write '{at}=...' to replace it as a whole.")
    if new:
        return None
    known = [] if there is None else [str(name) for name in there]
    hint = f"{nearest_hint(str(parts[index]), known).strip()} Write '+{key}=...' to add it.".strip()
    return Diagnostic(COMMAND_LINE, parts, "this override matches nothing in the config", hint)


def parse_overrides(arguments: Sequence[str]) -> list[Override]:
    """What `a.b=value`, `+a.b=value` and `++key value` say. Raises ConfigError for a value that is no YAML."""
    found = []
    rest = iter(arguments)
    for argument in rest:
        if argument.startswith("++") and "=" not in argument:
            found.append((argument[2:], _value_of(argument[2:], next(rest, "")), True))
        else:
            key, _, value = argument.partition("=")
            name = key.lstrip("+")
            found.append((name, _value_of(name, value), key.startswith("+")))
    return found


def _value_of(key: str, text: str) -> Any:
    """The value of an override. Raises ConfigError, whose messages name the key."""
    if not key:
        raise ConfigError([Diagnostic(COMMAND_LINE, (), f"'={text}' has no key", "Write 'key=value'.")])
    try:
        return parse_scalar(text)
    except ConfigError as error:
        path = tuple(key.split("."))
        found = [Diagnostic(COMMAND_LINE, (*path, *one.path[1:]), one.message, one.hint) for one in error.diagnostics]
        raise ConfigError(found) from None


def _parts(data: Mapping[str, Any], key: str) -> ConfigPath:
    """The path of a dotted key; a part that is an index of a list, or the name of a number's key, is that number."""
    parts: list[str | int] = []
    current: Any = data
    for text in key.split("."):
        is_number = text.isdecimal() and text not in _keys(current) and int(text) in _keys(current)
        part: str | int = int(text) if is_number else text
        parts.append(part)
        current = current[part] if part in _keys(current) else None
    return tuple(parts)


def _keys(value: Any) -> Collection[Any]:
    """The keys of a dict, the indices of a list; of other values nothing."""
    if isinstance(value, Mapping):
        return value.keys()
    return range(len(value)) if isinstance(value, list) else ()


def _missing(data: Mapping[str, Any], parts: ConfigPath) -> tuple[int, Any] | None:
    """The index of the first part that is not in the data, and what it is looked for in; None if all are there."""
    current: Any = data
    for index, part in enumerate(parts):
        if part not in _keys(current):
            return index, current
        current = current[part]
    return None


def _with(data: Any, parts: ConfigPath, value: Any) -> Any:
    """A copy of the data with a value at a path, dicts made on the way where there is nothing."""
    below = data[parts[0]] if parts[0] in _keys(data) else None
    new = value if len(parts) == 1 else _with({} if below is None else below, parts[1:], value)
    if isinstance(data, list):
        return [new if index == parts[0] else item for index, item in enumerate(data)]
    return {**data, parts[0]: new}


def _is_dict_at(data: Any, parts: ConfigPath) -> bool:
    for part in parts:
        data = data[part] if part in _keys(data) else None
    return isinstance(data, Mapping)


def _removed(data: Any, parts: ConfigPath) -> Any:
    """A copy of the data without what is at a path, as null in a file that `extends` another removes it."""
    if len(parts) > 1:
        return _with(data, parts[:1], _removed(data[parts[0]], parts[1:]))
    if isinstance(data, list):
        return [item for index, item in enumerate(data) if index != parts[0]]
    return {key: item for key, item in data.items() if key != parts[0]}


class _Dumper(yaml.SafeDumper):
    """Quotes whatever the strict dialect would read as something else, and never writes aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """A string; PyYAML itself quotes what its syntax needs."""
        return self.represent_scalar("tag:yaml.org,2002:str", text, None if is_text_unquoted(text) else "'")


_Dumper.add_representer(str, _Dumper.represent_text)


def to_yaml(data: Mapping[str, Any]) -> str:
    """The config as YAML that `read_yaml` reads back; functions and other objects of Python configs as a comment
    text."""
    text = yaml.dump(
        _plain(data), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True
    )
    assert isinstance(text, str)
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key if isinstance(key, int) else str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value), key=str)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    name = getattr(value, "__qualname__", None) or type(value).__name__
    return f"<{name}: an object of a Python config>"
