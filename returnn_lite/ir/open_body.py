"""The body of a loop while it is being built, and places in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from returnn_lite.dims import Dim
from returnn_lite.dims.records import record
from returnn_lite.ir.nodes import Element, Ending, Loop, Node, Search, State
from returnn_lite.ir.op import InLoop
from returnn_lite.ir.values import Clock, Mask, Origin, Value
from returnn_lite.ir.views import View, in_graph


@record(frozen=True)
class InsertionPoint:
    """Where nodes go: inside how many open loop bodies, and on which clock of the innermost."""

    level: int = 0
    clock: Clock = ()


OUTERMOST = InsertionPoint()


@dataclass(eq=False)
class OpenState:
    """A State that is being built: `next` is set once the value is known."""

    now: View
    init: View
    clock: Clock = ()
    origin: Origin = Origin()
    previous: str = ""
    by_next: dict[Value, list[OpenState]] = field(default_factory=dict)
    """All of the body whose `next` is known, by that."""
    _next: View | None = None

    @property
    def next(self) -> View | None:
        """What the state is one step later, if that is known."""
        return self._next

    @next.setter
    def next(self, value: View | None) -> None:
        self._next = value
        if value is not None:
            self.by_next.setdefault(value, []).append(self)

    def state(self) -> State:
        """The complete one."""
        if self.next is None:
            raise RuntimeError(f"the state {self.now.name} has no next value")
        values = (self.now.of, in_graph(self.init), in_graph(self.next))
        return State(*values, self.clock, self.origin, self.previous)


@dataclass
class Body:
    """A loop body that is being built. `over` is the loop's dim; of `frames`, each step takes the one of its number.

    Of its `values`, those that are `differing` depend on what differs from step to step, those `behind_states` on the
    step before.
    """

    over: Dim
    frames: tuple[Dim, ...] = ()
    taken: dict[Value, View] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    elements: dict[Value, Element] = field(default_factory=dict)
    delays: list[OpenState] = field(default_factory=list)
    holds: dict[View, View] = field(default_factory=dict)
    kept: list[tuple[View, View]] = field(default_factory=list)
    checks: list[View] = field(default_factory=list)
    masks: dict[tuple[Value, ...], Mask] = field(default_factory=dict)
    clock: Clock = ()
    values: set[Value] = field(default_factory=set)
    differing: set[Value] = field(default_factory=set)
    behind_states: set[Value] = field(default_factory=set)
    _by_next: dict[Value, list[OpenState]] = field(default_factory=dict)
    ended_before: Callable[[], View] | None = None
    """Whether a sequence had ended before this step, if the loop itself says when it ends."""
    unroll: int = 1
    """As of `Loop`."""

    def begin(self, value: Value) -> None:
        """Adds a value that a step is given: a frame or a state."""
        self.values.add(value)
        self.differing.add(value)

    def delay(self, now: View, init: View, origin: Origin, previous: str) -> OpenState:
        """A new State, on the current clock."""
        state = OpenState(now, init, self.clock, origin, previous, self._by_next)
        self.delays.append(state)
        self.begin(now.of)
        self.behind_states.add(now.of)
        return state

    def delays_to(self, value: Value) -> list[OpenState]:
        """The states that are this value one step later."""
        return [state for state in self._by_next.get(value, ()) if state.next == value]

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

    def checked_and_kept(self) -> list[tuple[str, View]]:
        """The names of the stacks of what is checked and kept, with the values of a step."""
        checks = [(self.check_name(value), value) for value in self.checks]
        return checks + [(kept_name(before), value) for before, value in self.kept]

    def loop(
        self,
        stacks: Sequence[tuple[str, View]],
        finals: Sequence[tuple[str, View]],
        ending: Ending | None,
        search: Search | None,
    ) -> Loop:
        """The complete loop, with named stacks and finals."""
        if ending is not None:
            ending = replace(ending, ended=in_graph(ending.ended), max_steps=in_graph(ending.max_steps))
        if search is not None:
            search = Search(in_graph(search.pointers), in_graph(search.ended))
        steps = [(name, in_graph(now)) for name, now in stacks]
        last = [(name, in_graph(now)) for name, now in finals]
        return Loop(
            self.over,
            tuple(self.elements.values()),
            tuple(state.state() for state in self.delays),
            tuple(Element(now, Value(name, now.type.with_dims(self.over))) for name, now in steps),
            tuple(self.nodes),
            tuple(Element(now, Value(name, now.type)) for name, now in last),
            ending,
            search,
            tuple((in_graph(value), in_graph(init)) for value, init in self.holds.items()),
            self.unroll,
        )


def kept_name(before: Value) -> str:
    """The name of the stack whose last frame is kept for the parameter that a value reads."""
    return f"{before.name}@kept"
