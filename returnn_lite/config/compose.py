"""Composition of configs: `extends`, and overrides from the command line; and configs written back as YAML."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from returnn_lite.config.diagnostics import ConfigError, Diagnostic, Position, nearest_hint
from returnn_lite.config.source import Path, Source, is_text_unquoted, parse_scalar, read_yaml

COMMAND_LINE = Position("command line", 1, 1)


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
    positions: dict[Path, tuple[Position, Position]] = {}
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
        missing = None if new else _missing(data, parts)
        if missing is not None:
            known = [str(name) for name in missing[1]]
            hint = f"{nearest_hint(str(parts[missing[0]]), known).strip()} Write '+{key}=...' to add it.".strip()
            diagnostics.append(Diagnostic(COMMAND_LINE, parts, "this override matches nothing in the config", hint))
            continue
        data = _with(data, parts, value)
        positions = {path: place for path, place in positions.items() if path[: len(parts)] != parts}
        positions[parts] = (COMMAND_LINE, COMMAND_LINE)
    if diagnostics:
        raise ConfigError(diagnostics)
    return Source(source.file, data, positions)


def parse_overrides(arguments: Sequence[str]) -> list[Override]:
    """What `a.b=value`, `+a.b=value` and `++key value` say. Raises ConfigError for a value that is no YAML."""
    found = []
    rest = iter(arguments)
    for argument in rest:
        if argument.startswith("++") and "=" not in argument:
            found.append((argument[2:], parse_scalar(next(rest, "")), True))
        else:
            key, _, value = argument.partition("=")
            found.append((key.lstrip("+"), parse_scalar(value), key.startswith("+")))
    return found


def _parts(data: Mapping[str, Any], key: str) -> Path:
    """The path of a dotted key; a part that is the name of a number's key in the data is that number."""
    parts: list[str | int] = []
    current: Any = data
    for text in key.split("."):
        is_number = text.isdigit() and isinstance(current, Mapping) and text not in current and int(text) in current
        part: str | int = int(text) if is_number else text
        parts.append(part)
        current = current.get(part) if isinstance(current, Mapping) else None
    return tuple(parts)


def _missing(data: Mapping[str, Any], parts: Path) -> tuple[int, list[str]] | None:
    """The index of the first part that is not in the data, and what is there; None if all are."""
    current: Any = data
    for index, part in enumerate(parts):
        if not isinstance(current, Mapping) or part not in current:
            return index, list(current) if isinstance(current, Mapping) else []
        current = current[part]
    return None


def _with(data: Mapping[Any, Any], parts: Path, value: Any) -> dict[Any, Any]:
    if len(parts) == 1:
        return {**data, parts[0]: value}
    below = data.get(parts[0])
    return {**data, parts[0]: _with(below if isinstance(below, Mapping) else {}, parts[1:], value)}


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
