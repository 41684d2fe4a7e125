"""Loads the config that a command names, with its overrides."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from returnn_lite.config.compose import parse_overrides, read_composed, with_overrides
from returnn_lite.config.python_source import read_python
from returnn_lite.config.source import Source

PYTHON_SUFFIXES = (".py", ".config")


class UsageError(Exception):
    """A command line that makes no sense."""


LoadedConfig = Source


def load(path: str, overrides: Sequence[str]) -> LoadedConfig:
    """The config of a file: YAML or JSON as data, Python as code. Raises ConfigError."""
    if pathlib.Path(path).suffix in PYTHON_SUFFIXES:
        before: dict[str, Any] = {key: value for key, value, _ in parse_overrides(overrides) if "." not in key}
        source = read_python(path, before)
        dotted = [text for text in overrides if "." in text.partition("=")[0] and not text.startswith("++")]
        return with_overrides(source, dotted)
    return with_overrides(read_composed(path), overrides)
