"""A group of a body's vertices as a loop of its own, which reads what others made of whole sequences.

    a = f(x); h = g(a, h'); y = k(h)        with h, h' in a group        →        h = loop T { a = a[T]; h = g(a, h') }

Its steps are those of the group's clock where all of it has one; else those of the loop, and what is masked is guarded.
"""

from __future__ import annotations

from dataclasses import replace

from returnn_lite.ir import Clock, Element, Loop, Node, Search, State, Value, loop_node, node_operands
from returnn_lite.ir.body import BodyGraph, Vertex, results_of
from returnn_lite.ir.ops.sources import Constant
from returnn_lite.ir.rewrite import Rewriter
from returnn_lite.ir.substitution import Substitution
from returnn_lite.passes.loops.guarded_body import guarded_body
from returnn_lite.passes.loops.partition import Group, reads_of
from returnn_lite.passes.loops.whole_sequences import WholeSequences


class SmallerLoops:
    """Makes loops of groups of one body. `whole` has the sequences so far, and gets the loops and what they make."""

    def __init__(self, body: BodyGraph, whole: WholeSequences) -> None:
        self.body = body
        self.loop = body.loop
        self.whole = whole
        self.finals: dict[Value, Value] = {}
        """What the results after the last step are now."""
        self._stacked = {element.now: element.whole for element in self.loop.stacks}
        self._last: dict[Value, list[Element]] = {}
        for final in self.loop.finals:
            self._last.setdefault(final.now, []).append(final)
        self._held: dict[Value, list[Value]] = {}
        for value, init in self.loop.holds:
            self._held.setdefault(value, []).append(init)
        self._users: dict[Value, list[Vertex]] = {}
        for vertex in body.vertices:
            for value in reads_of(body, vertex):
                self._users.setdefault(value, []).append(vertex)

    def is_read_beyond(self, value: Value, vertices: set[Vertex]) -> bool:
        """True if others than these vertices need a value."""
        return any(user not in vertices for user in self._users.get(value, ()))

    def is_result(self, value: Value) -> bool:
        """True for what the loop gives to the level around it."""
        return value in self._stacked or value in self._last

    def add(self, group: Group) -> None:
        """Makes the loop of a group. All that it reads must be there."""
        nodes, states = group.nodes, group.states
        made = dict.fromkeys(value for vertex in group.vertices for value in results_of(vertex))
        clocks = {vertex.clock for vertex in group.vertices}
        clocks |= {node.clock[:-1] for node in nodes if (read := node.op.crossing) is not None and not read.holds}
        clock = next(iter(clocks)) if len(clocks) == 1 else ()
        elements, inside = self._slices(nodes, states, made, clock)
        copies = tuple(inside.node(replace(node, clock=()) if clock else node) for node in nodes)
        plain = (replace(state, clock=()) if clock else state for state in states)
        new = tuple(replace(s, next=inside.value(s.next), clock=inside.clock(s.clock)) for s in plain)
        if len(clocks) > 1 or any(node.op.crossing is not None for node in nodes):
            guarded = guarded_body(copies, new, self.whole.origin)
            for node in guarded.outside:
                self.whole.emit(node)
            copies, new = guarded.nodes, guarded.states
            inside.replace({value: guarded.value(inside.value(value)) for value in made})
        self._emit(self._loop(tuple(elements), new, copies, made, clock, inside), made, clock)

    def _slices(
        self, nodes: list[Node], states: list[State], made: dict[Value, None], clock: Clock
    ) -> tuple[list[Element], Substitution]:
        """Elements for what a loop on a clock reads from outside it, and invariants in place of what does not vary."""
        used = [value for node in nodes for value in (node.inputs if clock else node_operands(node))]
        used += [state.next for state in states]
        over = self.whole.over(clock)
        elements: list[Element] = []
        mapping: dict[Value, Value] = {}
        for value in dict.fromkeys(used):
            if value in made or value not in self.whole:
                continue
            whole = self.whole.faster(self.whole.of(value), self.whole.clock_of(value), clock)
            if over in whole.type:
                mapping[value] = Value(value.name, whole.type.without(over))
                elements.append(Element(mapping[value], whole))
            else:
                mapping[value] = whole
        if clock and not elements:
            one = self.whole.apply(Constant(1, "int32"), (), f"{over.name}@one")
            steps = self.whole.at_every_step(one, clock)
            elements.append(Element(Value(f"{over.name}@step", steps.type.without(over)), steps))
        return elements, Substitution(mapping)

    def _loop(
        self,
        elements: tuple[Element, ...],
        states: tuple[State, ...],
        nodes: tuple[Node, ...],
        made: dict[Value, None],
        clock: Clock,
        inside: Substitution,
    ) -> Loop:
        """The loop, with stacks for what is needed outside of it. Their wholes are those of the old values."""
        over = self.whole.over(clock)
        vertices = {self.body.producer[value] for value in made}
        stacks: list[Element] = []
        for value in made:
            if value in self._stacked or self.is_read_beyond(value, vertices):
                now = inside.value(value)
                name = self._stacked[value].name if value in self._stacked else value.name
                stacks.append(Element(now, Value(name, now.type.with_dims(over))))
                self.whole.update({value: stacks[-1].whole})
        finals = [replace(final, now=inside.value(value)) for value in made for final in self._last.get(value, ())]
        ending, search = self.loop.ending, self.loop.search
        if search is not None:
            own = Search(inside.value(search.pointers), inside.value(search.ended))
            search = own if search.pointers in made else None
        return Loop(
            over,
            elements,
            states,
            tuple(stacks),
            nodes,
            tuple(replace(final, whole=Value(final.whole.name, final.now.type)) for final in finals),
            replace(ending, ended=inside.value(ending.ended)) if ending is not None and ending.ended in made else None,
            search,
            tuple((inside.value(value), init) for value in made for init in self._held.get(value, ())),
        )

    def _emit(self, loop: Loop, made: dict[Value, None], clock: Clock) -> None:
        """Adds the loop. Guards add a mask's dims to states, and so to what depends on them: types are inferred."""
        types = Rewriter()
        self.whole.emit(types.node(loop_node(loop, self.whole.origin)))
        found = [value for value in made if value in self.whole]
        self.whole.update({value: types.value(self.whole.of(value)) for value in found})
        for value in found:  # by now the loop's own masks are there, too
            if (source := self.whole.clock_of(value)) != clock:
                self.whole.update({value: self.whole.slower(self.whole.of(value), source)})
        olds = (final.whole for value in made for final in self._last.get(value, ()))
        self.finals.update((old, types.value(final.whole)) for old, final in zip(olds, loop.finals, strict=True))
