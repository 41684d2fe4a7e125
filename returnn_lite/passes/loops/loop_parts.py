"""A loop as two, one behind the other: the second reads frames that the first keeps.

    y = loop T {                y1 = loop T { a = f(x[T], a'); y1 = stack(a) }
      a = f(x[T], a')      →    y = loop T { b = g(y1[T], b'); y = stack(b) }
      b = g(a, b')
    }

Both run the same steps. What no step changes is computed in both.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from returnn_lite.ir import Effect, Element, InLoop, Loop, Node, State, Value, node_operands
from returnn_lite.ir.body import BodyGraph, Vertex, needs_all_steps, operands_of
from returnn_lite.ir.ops.elementwise import Elementwise, Select
from returnn_lite.ir.rewrite import Rewriter
from returnn_lite.passes.loops.part_of_loop import LoopPart, LoopResults


def in_two(loop: Loop, first: set[Vertex]) -> tuple[Loop, Loop]:
    """The loop of the `first` vertices, which need none of the others and say when the loop ends, and that of the
    others. Values are as built: an edge between clocks, also from one loop to the other, is one from step to step."""
    stays = {*(element.now for element in loop.elements), *(state.now for state in loop.states if state in first)}
    stays.update(output for inner in loop.body if inner in first for output in inner.outputs)
    behind = _Behind(loop, first)
    second = behind.loop(stays)
    leading = replace(
        loop,
        states=tuple(state for state in loop.states if state in first),
        stacks=(*(stack for stack in loop.stacks if stack.now in stays), *behind.stacks),
        body=tuple(inner for inner in loop.body if inner in first),
        finals=tuple(final for final in loop.finals if final.now in stays),
        holds=tuple((value, init) for value, init in loop.holds if value in stays),
    )
    return leading, second


class _Behind:
    """The loop of what is not among the first vertices. `stacks` are what their loop must keep for it."""

    def __init__(self, loop: Loop, first: set[Vertex]) -> None:
        self.original = loop
        self.stacks: list[Element] = []
        self.body: list[Node] = []
        self._part = LoopPart(LoopResults(loop), loop.over)
        self._seen: set[Value] = set()
        self._again: list[Value] = []
        self._frames = {element.now: element.whole for element in loop.elements}
        self._kept = {element.now: element.whole for element in loop.stacks}
        self._in_first = {vertex.now for vertex in first if isinstance(vertex, State)}
        self._maker = {output: vertex for vertex in first if isinstance(vertex, Node) for output in vertex.outputs}
        self._constant = BodyGraph(loop).invariants
        for node in loop.body:
            if node not in first:
                self._add(node)
        self.states = tuple(self._state(state) for state in loop.states if state not in first)

    def loop(self, stays: Collection[Value]) -> Loop:
        """The loop, which has as many steps as the first, for what is not of the values that stay there."""
        if not self._part.elements:
            self._frame_of(self._of_each_step())
        loop = self.original
        stacks = (
            replace(stack, now=self._part.inside.value(stack.now)) for stack in loop.stacks if stack.now not in stays
        )
        given = [*(final.now for final in loop.finals), *(value for value, _ in loop.holds)]
        gives = dict.fromkeys(value for value in given if value not in stays)
        return self._part.loop(self.body, self.states, stacks, gives, self._again)

    def _of_each_step(self) -> Value:
        """A value of the first loop that has a frame at each step: a choice if there is one, else what comes first."""
        values = [value for value, node in self._maker.items() if node.op.in_loop is InLoop.BEAM]
        return next(iter((*values, *self._frames, *self._maker, *self._in_first)))

    def _state(self, state: State) -> State:
        for value in operands_of(state):
            self._see(value)
        return self._part.state(state)

    def _add(self, node: Node) -> None:
        for value in node_operands(node):
            self._see(value)
        inside = self._part.inside.node(node)
        if needs_all_steps(node) and node.op.effect is not Effect.ASSIGN and self.original.ending is not None:
            inside = self._for_each_hypothesis(inside)
        self.body.append(inside)

    def _for_each_hypothesis(self, node: Node) -> Node:
        """The node with an operand that each hypothesis has: they differ in length, and so in how far it sees."""
        label = next(value for value, maker in self._maker.items() if maker.op.in_loop is InLoop.BEAM)
        self._see(label)
        frame, operand = self._part.inside.value(label), node.inputs[0]
        always = Elementwise("equal")
        exists = Value(f"{operand.name}@exists", always.type_of(frame.type, frame.type))
        select = Select()
        own = Value(f"{operand.name}@hypothesis", select.type_of(exists.type, operand.type, operand.type))
        self.body.append(Node(always, (frame, frame), (exists,), node.origin, node.clock))
        self.body.append(Node(select, (exists, operand, operand), (own,), node.origin, node.clock))
        return replace(node, inputs=(own, *node.inputs[1:]))

    def _see(self, value: Value) -> None:
        """Brings a value that is not of this body into it: what no step changes by computing it here as well."""
        if value in self._seen:
            return
        self._seen.add(value)
        node = self._maker.get(value)
        if node is not None and node in self._constant:
            for operand in node_operands(node):
                self._see(operand)
            inside, copy = self._part.inside, Rewriter()
            copy.values.update({operand: inside.value(operand) for operand in node.inputs})
            copied = replace(copy.node(replace(node, clock=())), clock=inside.clock(node.clock))
            self.body.append(copied)
            self._seen.update(node.outputs)
            self._again += node.outputs
            inside.replace({output: copy.value(output) for output in node.outputs})
        elif node is not None or value in self._in_first or value in self._frames:
            self._frame_of(value)

    def _frame_of(self, value: Value) -> None:
        whole = self._frames.get(value) or self._kept.get(value)
        if whole is None:
            whole = value.of_type(value.type.with_dims(self.original.over))
            self.stacks.append(Element(value, whole))
        self._part.read(value, whole)
