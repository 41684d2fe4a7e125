"""Mistakes in configs, as users read them: `file:line:col: path.to.key: what is wrong. what to do`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Position:
    """A place in a text file; line and column count from 1."""

    file: str
    line: int
    col: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.col}"


ConfigPath = tuple[str | int, ...]
"""The keys and list positions on the way to a value of a config."""
COMMAND_LINE = Position("command line", 1, 1)


@dataclass(frozen=True)
class Diagnostic:
    """One mistake: where, in which config key, what is wrong, what to do."""

    position: Position | None
    path: ConfigPath
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.position}: " if self.position is not None else ""
        path = ".".join(str(part) for part in self.path)
        path = f"{path}: " if path else ""
        message = self.message if self.message.endswith((".", "?", "!")) else f"{self.message}."
        hint = f" {self.hint[0].upper()}{self.hint[1:]}" if self.hint else ""
        return f"{where}{path}{message}{hint}"


class ConfigError(Exception):
    """A config that can't be used, with everything that is wrong with it."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(str(diagnostic) for diagnostic in self.diagnostics))


def nearest(name: str | int, candidates: Sequence[str]) -> str | None:
    """The candidate that the name was probably meant to be: mistakes are seldom in the first letter."""
    found = difflib.get_close_matches(str(name), candidates, n=5, cutoff=0.6)
    alike = (one for one in found if one[:1] == str(name)[:1] or _likeness(str(name), one) >= 0.75)
    return next(alike, None)


def _likeness(name: str, other: str) -> float:
    return difflib.SequenceMatcher(None, other, name).ratio()


def nearest_hint(name: str | int, candidates: Sequence[str]) -> str:
    """` Did you mean 'x'?`, or nothing."""
    found = nearest(name, candidates)
    return f" Did you mean '{found}'?" if found is not None else ""
