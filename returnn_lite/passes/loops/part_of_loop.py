"""A loop of some of another's vertices: what these read of the others are frames of sequences.

a = f(x); h = g(a, h'); y = k(h)        h, h' of it:        h = loop T { a = a[T]; h = g(a, h'); h = stack(h) }
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from returnn_lite.dims import Dim
from returnn_lite.ir import Element, Loop, Node, Search, State, Value
from returnn_lite.ir.substitution import Substitution


class LoopResults:
    """What a loop says of values of its body, by the value."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.stacks: dict[Value, list[Element]] = {}
        self.finals: dict[Value, list[Element]] = {}
        self.holds: dict[Value, list[Value]] = {}
        for stack in loop.stacks:
            self.stacks.setdefault(stack.now, []).append(stack)
        for final in loop.finals:
            self.finals.setdefault(final.now, []).append(final)
        for value, init in loop.holds:
            self.holds.setdefault(value, []).append(init)


class LoopPart:
    """The part while it is being made. `over` are its steps; `inside` what values of the other body are in it."""

    def __init__(self, results: LoopResults, over: Dim) -> None:
        self.results = results
        self.over = over
        self.elements: list[Element] = []
        self.inside = Substitution()
        self.has_new_types = False
        """Whether what it reads has other dims than it had in the other body, as those of a mask."""

    def read(self, value: Value, whole: Value) -> None:
        """Has a value of the other body from a sequence; without frames, it is one that no step changes."""
        frame = whole
        if self.over in whole.type:
            frame = value.of_type(whole.type.without(self.over))
            self.elements.append(Element(frame, whole))
        self.has_new_types |= frame.type != value.type
        self.inside.replace({value: frame})

    def state(self, state: State) -> State:
        """A state of the other body in this one."""
        return replace(state, next=self.inside.value(state.next), clock=self.inside.clock(state.clock))

    def loop(
        self,
        nodes: Iterable[Node],
        states: Iterable[State],
        stacks: Iterable[Element],
        gives: Collection[Value],
        computes_again: Iterable[Value] = (),
    ) -> Loop:
        """The loop. What the other one says of the values that this one `gives` in its place is said of it: results of
        the last step, when it ends, and who searches."""
        of, value = self.results, self.inside.value
        ending, search = of.loop.ending, of.loop.search
        if ending is not None:
            ending = replace(ending, ended=value(ending.ended)) if ending.ended in gives else None
        if search is not None:
            search = Search(value(search.pointers), value(search.ended)) if search.pointers in gives else None
        finals = tuple(replace(final, now=value(old)) for old in gives for final in of.finals.get(old, ()))
        holds = tuple((value(old), init) for old in (*gives, *computes_again) for init in of.holds.get(old, ()))
        elements, unroll = tuple(self.elements), of.loop.unroll
        return Loop(
            self.over, elements, tuple(states), tuple(stacks), tuple(nodes), finals, ending, search, holds, unroll
        )
