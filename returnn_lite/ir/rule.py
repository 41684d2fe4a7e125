"""What a rule about a graph is, and what it is asked with.

A rule looks at a node where it stands, or at a loop once its body has been read, and says what is wrong there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from returnn_lite.dims import Dim
from returnn_lite.ir.nodes import Loop, Node
from returnn_lite.ir.values import Clock, Value


@dataclass
class Level:
    """The outside of all loops, or the body of one, as far as it has been read."""

    bound: set[Value]
    """What this level has bound."""
    lengths: set[Dim]
    """The dims whose lengths are known since this level."""
    bound_anywhere: set[Value]
    """One set for the whole graph."""
    loop: Dim | None = None
    outer: Level | None = None
    clocks: dict[Value, Clock] = field(default_factory=dict)
    """The clocks of what differs from step to step."""

    def binds(self, value: Value) -> bool:
        """True if a value may be read here."""
        return value in self.bound or (self.outer is not None and self.outer.binds(value))

    def measures(self, dim: Dim) -> bool:
        """True if the length of a dim is known here."""
        if dim in self.lengths or dim.operands() or dim.size is not None:
            return True
        return self.outer is not None and self.outer.measures(dim)

    def loops(self) -> list[Dim]:
        """The dims of the loops around, the innermost first."""
        around = [] if self.outer is None else self.outer.loops()
        return around if self.loop is None else [self.loop, *around]

    def is_elsewhere(self, value: Value, clock: Clock) -> bool:
        """True if a value is of another clock than this."""
        return self.clocks.get(value, clock) != clock


@dataclass(frozen=True)
class NodeRule:
    """What holds of a node before its results are bound."""

    says: str
    fault: Callable[[Node, Level], str | None]


@dataclass(frozen=True)
class LoopRule:
    """What holds of a loop; the level is its body, read to the end."""

    says: str
    fault: Callable[[Loop, Level], str | None]


Rule = NodeRule | LoopRule
