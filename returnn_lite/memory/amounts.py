"""Amounts of memory as users read them."""

from __future__ import annotations

UNITS = {"TB": 1000**4, "GB": 1000**3, "MB": 1000**2, "kB": 1000}


def shown(count: int) -> str:
    """The bytes in words: `12.6 MB`, of 1000 kB each."""
    unit = next((unit for unit, size in UNITS.items() if count >= size), None)
    return f"{count} B" if unit is None else f"{count / UNITS[unit]:.1f} {unit}"
