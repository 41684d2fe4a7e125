"""The body of a loop while it is being built, and places in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from returnn_lite.dims import Dim
from returnn_lite.ir.graph import Clock, Element, Ending, Loop, Mask, Node, Origin, Search, State, Value
from returnn_lite.ir.op import InLoop


@dataclass(frozen=True)
class InsertionPoint:
    """Where nodes go: inside how many open loop bodies, and on which clock of the innermost."""

    level: int = 0
    clock: Clock = ()


OUTERMOST = InsertionPoint()


@dataclass(eq=False)
class OpenState:
    """A State that is being built: `next` is set once the value is known."""

    now: Value
    init: Value
    clock: Clock = ()
    origin: Origin = Origin()
    previous: str = ""
    by_next: dict[Value, list[OpenState]] = field(default_factory=dict)
    """All of the body whose `next` is known, by that."""
    _next: Value | None = None

    @property
    def next(self) -> Value | None:
        """What the state is one step later, if that is known."""
        return self._next

    @next.setter
    def next(self, value: Value | None) -> None:
        self._next = value
        if value is not None:
            self.by_next.setdefault(value, []).append(self)

    def state(self) -> State:
        """The complete one."""
        if self.next is None:
            raise RuntimeError(f"the state {self.now.name} has no next value")
        return State(self.now, self.init, self.next, self.clock, self.origin, self.previous)


@dataclass
class Body:
    """A loop body that is being built. `over` is the loop's dim; of `frames`, each step takes the one of its number.

    Of its `values`, those that are `differing` depend on what differs from step to step, those `behind_states` on the
    step before.
    """

    over: Dim
    frames: tuple[Dim, ...] = ()
    taken: dict[Value, Value] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    elements: dict[Value, Element] = field(default_factory=dict)
    delays: list[OpenState] = field(default_factory=list)
    holds: dict[Value, Value] = field(default_factory=dict)
    kept: list[tuple[Value, Value]] = field(default_factory=list)
    checks: list[Value] = field(default_factory=list)
    masks: dict[tuple[Value, ...], Mask] = field(default_factory=dict)
    clock: Clock = ()
    values: set[Value] = field(default_factory=set)
    differing: set[Value] = field(default_factory=set)
    behind_states: set[Value] = field(default_factory=set)
    _by_next: dict[Value, list[OpenState]] = field(default_factory=dict)
    ended_before: Callable[[], Value] | None = None
    """Whether a sequence had ended before this step, if the loop itself says when it ends."""

    def begin(self, value: Value) -> None:
        """Adds a value that a step is given: a frame or a state."""
        self.values.add(value)
        self.differing.add(value)

    def delay(self, now: Value, init: Value, origin: Origin, previous: str) -> OpenState:
        """A new State, on the current clock."""
        state = OpenState(now, init, self.clock, origin, previous, self._by_next)
        self.delays.append(state)
        self.begin(now)
        self.behind_states.add(now)
        return state

    def delays_to(self, value: Value) -> list[OpenState]:
        """The states that are this value one step later."""
        return [state for state in self._by_next.get(value, ()) if state.next is value]

    def add(self, node: Node, differs: bool) -> None:
        """Adds a node; `differs` is true if what it reads differs from step to step."""
        self.nodes.append(node)
        self.values.update(node.outputs)
        if differs or node.op.fresh or node.op.in_loop is InLoop.RECURRENCE:
            self.differing.update(node.outputs)
        if any(value in self.behind_states for value in node.inputs):
            self.behind_states.update(node.outputs)

    def check_name(self, value: Value) -> str:
        """The name of the stack of what is only checked."""
        return f"{value.name}[{self.over.name}]"

    def loop(
        self,
        stacks: Sequence[tuple[str, Value]],
        finals: Sequence[tuple[str, Value]],
        ending: Ending | None,
        search: Search | None,
    ) -> Loop:
        """The complete loop, with named stacks and finals, and the stacks of what is checked and kept."""
        checks = [(self.check_name(value), value) for value in self.checks]
        kept = [(kept_name(before), value) for before, value in self.kept]
        stacked = [Element(now, Value(name, now.type.with_dims(self.over))) for name, now in (*stacks, *checks, *kept)]
        return Loop(
            self.over,
            tuple(self.elements.values()),
            tuple(state.state() for state in self.delays),
            tuple(stacked),
            tuple(self.nodes),
            tuple(Element(now, Value(name, now.type)) for name, now in finals),
            ending,
            search,
            tuple(self.holds.items()),
        )


def kept_name(before: Value) -> str:
    """The name of the stack whose last frame is kept for the parameter that a value reads."""
    return f"{before.name}@kept"
