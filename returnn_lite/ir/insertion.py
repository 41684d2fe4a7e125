"""Where nodes are added: in which open loop bodies, on which clock, and of what origin they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType

from returnn_lite.dims import Dim
from returnn_lite.ir.open_body import Body, InsertionPoint
from returnn_lite.ir.values import Clock, Mask, Origin, Value
from returnn_lite.ir.views import in_graph


class Insertion:
    """The open bodies, the innermost last."""

    def __init__(self) -> None:
        self._bodies: list[Body] = []
        self.origin = Origin()

    @property
    def body(self) -> Body | None:
        """The innermost open loop body."""
        return self._bodies[-1] if self._bodies else None

    @property
    def loops(self) -> tuple[Dim, ...]:
        """The dims of the open loops, the outermost first."""
        return tuple([body.over for body in self._bodies])

    @property
    def clock(self) -> Clock:
        """The masks under which nodes are being added."""
        return self._bodies[-1].clock if self._bodies else ()

    @property
    def point(self) -> InsertionPoint:
        """Where nodes are being added."""
        return InsertionPoint(len(self._bodies), self.clock)

    def within(self, origin: Origin) -> AbstractContextManager[None]:
        """Nodes get this origin inside the context."""
        return _OfOrigin(self, origin)

    def at(self, point: InsertionPoint) -> AbstractContextManager[None]:
        """Nodes added inside the context go to a point where building has been before."""
        return _AtPoint(self, point)

    def at_outer(self) -> AbstractContextManager[None]:
        """Nodes added inside the context go to the level around the innermost body."""
        level = len(self._bodies) - 1
        return self.at(InsertionPoint(level, self._bodies[level - 1].clock if level else ()))

    def on_every_step(self) -> AbstractContextManager[None]:
        """Nodes added inside the context run at every step of the innermost loop, whatever masks there are."""
        return self.at(InsertionPoint(len(self._bodies)))

    @contextmanager
    def masked(self, value: Value, dim: Dim) -> Iterator[None]:
        """Nodes added inside the context to the open body run only at the steps at which the mask is true.

        `dim` has just those frames; the same mask value on the same clock gives the same clock each time.
        """
        body = self._open_body()
        key = (*(mask.value for mask in body.clock), value)
        mask = body.masks.setdefault(key, Mask(in_graph(value), dim))
        outer, body.clock = body.clock, (*body.clock, mask)
        try:
            yield
        finally:
            body.clock = outer

    def open_loop(self, over: Dim, frames: Sequence[Dim] = (), unroll: int = 1) -> Body:
        """Starts the body of a loop; nodes go there until it is closed."""
        body = Body(over, tuple(frames), unroll=unroll)
        self._bodies.append(body)
        return body

    def abandon_loops(self, point: InsertionPoint) -> None:
        """Drops the bodies that were opened at a point, after a mistake in them."""
        del self._bodies[point.level :]

    def _open_body(self) -> Body:
        if not self._bodies:
            raise RuntimeError("no loop body is open")
        return self._bodies[-1]

    def varies_in_loop(self, value: Value) -> bool:
        """True if the value is computed in the open body, and so may differ from step to step."""
        return any(value in body.values for body in self._bodies)

    def differs_by_step(self, value: Value) -> bool:
        """True if the value depends on what differs from step to step of an open loop: a frame, a state, a draw."""
        return any(value in body.differing for body in self._bodies)

    def is_behind_state(self, value: Value) -> bool:
        """True if the value depends on the step before of the innermost open loop."""
        return bool(self._bodies) and value in self._bodies[-1].behind_states


class _AtPoint:
    """The context of `at`. Contexts of parameters and states are many, and a generator takes twice as long."""

    __slots__ = ("bodies", "clock", "insertion", "point")

    def __init__(self, insertion: Insertion, point: InsertionPoint) -> None:
        self.insertion = insertion
        self.point = point

    def __enter__(self) -> None:
        self.bodies = self.insertion._bodies
        inner = self.insertion._bodies = self.bodies[: self.point.level]
        if inner:
            self.clock, inner[-1].clock = inner[-1].clock, self.point.clock

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        inner = self.insertion._bodies
        if inner:
            inner[-1].clock = self.clock
        self.insertion._bodies = self.bodies


class _OfOrigin:
    """The context of `within`."""

    __slots__ = ("insertion", "origin", "outer")

    def __init__(self, insertion: Insertion, origin: Origin) -> None:
        self.insertion = insertion
        self.origin = origin

    def __enter__(self) -> None:
        self.outer, self.insertion.origin = self.insertion.origin, self.origin

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.insertion.origin = self.outer
