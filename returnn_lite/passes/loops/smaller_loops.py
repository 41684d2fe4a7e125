"""A group of a body's vertices as a loop of its own, which reads what others made of whole sequences.

    a = f(x); h = g(a, h'); y = k(h)        with h, h' in a group        →        h = loop T { a = a[T]; h = g(a, h') }

Its steps are those of the group's clock where all of it has one; else those of the loop, and what is masked is guarded.
"""

from __future__ import annotations

from dataclasses import replace

from returnn_lite.ir import Clock, Element, Loop, Node, Value, loop_node, node_operands
from returnn_lite.ir.body import BodyGraph, Vertex, results_of
from returnn_lite.ir.ops.sources import Constant
from returnn_lite.ir.rewrite import Rewriter
from returnn_lite.passes.loops.guarded_body import guarded_body
from returnn_lite.passes.loops.part_of_loop import LoopPart, LoopResults
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
        self._results = LoopResults(self.loop)
        self._users: dict[Value, list[Vertex]] = {}
        for vertex in body.vertices:
            for value in reads_of(body, vertex):
                self._users.setdefault(value, []).append(vertex)

    def is_read_beyond(self, value: Value, vertices: set[Vertex]) -> bool:
        """True if others than these vertices need a value."""
        return any(user not in vertices for user in self._users.get(value, ()))

    def is_result(self, value: Value) -> bool:
        """True for what the loop gives to the level around it."""
        return value in self._results.stacks or value in self._results.finals

    def add(self, group: Group) -> None:
        """Makes the loop of a group. All that it reads must be there."""
        nodes, states = group.nodes, group.states
        made = dict.fromkeys(value for vertex in group.vertices for value in results_of(vertex))
        clocks = {vertex.clock for vertex in group.vertices}
        clocks |= {node.clock[:-1] for node in nodes if (read := node.op.crossing) is not None and not read.holds}
        clock = next(iter(clocks)) if len(clocks) == 1 else ()
        part = LoopPart(self._results, self.whole.over(clock))
        self._read(part, group, set(made), clock)
        copies = tuple(part.inside.node(replace(node, clock=()) if clock else node) for node in nodes)
        new = tuple(part.state(replace(state, clock=()) if clock else state) for state in states)
        is_guarded = len(clocks) > 1 or any(node.op.crossing is not None for node in nodes)
        if is_guarded:
            guarded = guarded_body(copies, new, self.whole.origin)
            for node in guarded.outside:
                self.whole.emit(node)
            copies, new = guarded.nodes, guarded.states
            part.inside.replace({value: guarded.value(part.inside.value(value)) for value in made})
        loop = part.loop(copies, new, self._stacks(part, made), made)
        self._emit(loop_node(loop, self.whole.origin), made, clock, is_guarded or part.has_new_types)

    def _read(self, part: LoopPart, group: Group, made: set[Value], clock: Clock) -> None:
        """Brings what a loop on a clock reads from outside of it into it."""
        used = [value for node in group.nodes for value in (node.inputs if clock else node_operands(node))]
        used += [state.next for state in group.states]
        for value in dict.fromkeys(used):
            if value not in made and value in self.whole:
                part.read(value, self.whole.faster(self.whole.of(value), self.whole.clock_of(value), clock))
        if part.elements:
            return
        if clock:
            one = self.whole.apply(Constant(1, "int32"), (), f"{part.over.name}@one")
            part.read(Value(f"{part.over.name}@step", one.type), self.whole.at_every_step(one, clock))
        elif (kept := next((e.now for e in self.loop.elements if not e.clock), None)) is not None:
            part.read(kept, self.whole.of(kept))  # it may be what says how many steps there are

    def _stacks(self, part: LoopPart, made: dict[Value, None]) -> list[Element]:
        """Stacks for what is needed outside of the loop. Their wholes are those of the old values."""
        vertices = {self.body.producer[value] for value in made}
        stacks: list[Element] = []
        for value in made:
            stacked = self._results.stacks.get(value)
            if stacked or self.is_read_beyond(value, vertices):
                now = part.inside.value(value)
                named = stacked[-1].whole if stacked else value
                stacks.append(Element(now, named.of_type(now.type.with_dims(part.over))))
                self.whole.update({value: stacks[-1].whole})
        return stacks

    def _emit(self, node: Node, made: dict[Value, None], clock: Clock, has_new_types: bool) -> None:
        """Adds the loop. Guards, and what is read under a mask, may add dims to states, and so to what depends on them:
        types are inferred then."""
        types = Rewriter(in_place=True)
        self.whole.emit(types.node(node) if has_new_types else node)
        found = [value for value in made if value in self.whole]
        self.whole.update({value: types.value(self.whole.of(value)) for value in found})
        for value in found:  # by now the loop's own masks are there, too
            if (source := self.whole.clock_of(value)) != clock:
                self.whole.update({value: self.whole.slower(self.whole.of(value), source)})
        assert isinstance(node.op, Loop)
        self.finals.update((final.whole, types.value(final.whole)) for final in node.op.finals)
