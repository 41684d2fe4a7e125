"""Frozen dataclasses of which a compilation makes many.

    @record(frozen=True, eq=False)
    class Value: ...

To type checkers they are just that. At run time their fields have slots, and nothing refuses to assign them, which
would take three times as long for each object that is made: a tenth of all that `check` takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:
    import dataclasses

    def record(*, frozen: bool, eq: bool = True):
        assert frozen
        return dataclasses.dataclass(eq=eq, unsafe_hash=eq, slots=True)


__all__ = ["record"]
