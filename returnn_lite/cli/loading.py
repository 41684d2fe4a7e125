"""Loads the config that a command names, with its overrides."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from returnn_lite.config.compose import overridden, parse_overrides, read_composed
from returnn_lite.config.diagnostics import AnyPath, ConfigError, Diagnostic, Position
from returnn_lite.config.python_source import read_python
from returnn_lite.config.source import Source

PYTHON_SUFFIXES = (".py", ".config")


class UsageError(Exception):
    """A command line that makes no sense."""


@dataclass(frozen=True)
class LoadedConfig:
    """A config after composition and overrides. `is_code` says that it is a Python module's globals."""

    source: Source
    is_code: bool

    @property
    def file(self) -> str:
        """The file that the command names."""
        return self.source.file

    @property
    def data(self) -> dict[str, Any]:
        """The keys and values."""
        return self.source.data

    @property
    def functions(self) -> Mapping[str, Callable[..., object]]:
        """The functions that expressions in the network may call: those of a Python config, none of a YAML one."""
        return {name: value for name, value in self.data.items() if callable(value)} if self.is_code else {}

    def locate(self, path: AnyPath) -> Position | None:
        """Where a key is."""
        return self.source.locate(path)

    def placed(self, error: ConfigError) -> list[Diagnostic]:
        """The mistakes of an error with positions, also where what found them did not know the file."""
        return [
            found
            if found.position is not None or not found.path
            else Diagnostic(self.locate(found.path), found.path, found.message, found.hint)
            for found in error.diagnostics
        ]


def load(path: str, overrides: Sequence[str]) -> LoadedConfig:
    """The config of a file: YAML or JSON as data, Python as code. Raises ConfigError."""
    given = parse_overrides(overrides)
    if pathlib.Path(path).suffix not in PYTHON_SUFFIXES:
        return LoadedConfig(overridden(read_composed(path), given), is_code=False)
    seen_by_the_code = {key: value for key, value, _ in given if "." not in key}
    source = read_python(path, seen_by_the_code, {key for key, _, new in given if new})
    return LoadedConfig(overridden(source, [one for one in given if "." in one[0]]), is_code=True)
