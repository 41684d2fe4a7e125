"""Mistakes in configs, as users read them: `file:line:col: path.to.key: what is wrong. what to do`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload


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


class InnerPath(Sequence[str | int]):
    """A key inside of what is at a path, which it refers to: the paths of deeply nested networks share their
    beginnings."""

    __slots__ = ("around", "key", "length")

    def __init__(self, around: AnyPath, key: str | int) -> None:
        self.around = around
        self.key = key
        self.length = len(around) + 1

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[str | int]:
        keys: list[str | int] = []
        path: AnyPath = self
        while isinstance(path, InnerPath):
            keys.append(path.key)
            path = path.around
        yield from path
        yield from reversed(keys)

    @overload
    def __getitem__(self, index: int) -> str | int: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[str | int, ...]: ...

    def __getitem__(self, index: int | slice) -> str | int | tuple[str | int, ...]:
        return tuple(self)[index]


AnyPath = ConfigPath | InnerPath


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
