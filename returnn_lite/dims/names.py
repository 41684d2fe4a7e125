"""Names of dims: bounded for those computed from others; and numbered where several of one name are side by side."""

from __future__ import annotations

from collections.abc import Iterable

MOST_CHARACTERS = 120


def name_of_sum(terms: Iterable[tuple[str, int]], constant: int) -> str:
    """A sum of coefficient * name, and a constant."""
    factors = {1: "", -1: "-"}
    parts = [factors.get(coefficient, f"{coefficient}*") + name for name, coefficient in terms]
    if constant or not parts:
        parts.append(str(constant))
    return shortened("+".join(parts).replace("+-", "-"))


def shortened(name: str) -> str:
    """The name; of one that is too long the beginning and the end."""
    half = MOST_CHARACTERS // 2
    return name if len(name) <= MOST_CHARACTERS else f"{name[:half]}...{name[-half:]}"


def numbered(names: Iterable[str]) -> list[str]:
    """The names, of which one that occurs again has a number: n, n#2."""
    counts: dict[str, int] = {}
    found = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        found.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return found
