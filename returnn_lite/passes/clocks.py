"""Clocks: in a loop, what is under a mask runs on a slower clock; where clocks meet, values are converted.

As built, nodes under a mask are stamped with its clock, and edges cross clocks freely. Here a value of a faster clock
that a slower one uses goes through `when` (the frames at which the mask is true), and a value of a slower clock that a
faster one uses through `current` (its last value, held). This is automatic unmasking. Values that no step changes need
neither.

    e = dot(x, W)                         e  = dot(x, W)
    h = f(e) when m              →        e' = when(e, m);  h = f(e') when m
    y = g(x, h)                           h' = current(h, m, init);  y = g(x, h')

Lustre (Halbwachs et al. 1991) has the same operators. A conversion is made once for each value and clock, so that a
value held and then masked again by the same mask is just the value.
"""

from __future__ import annotations

from dataclasses import replace

from returnn_lite.dims import Dim
from returnn_lite.ir import Clock, Graph, Loop, Mask, Node, Origin, State, Value, walk
from returnn_lite.ir.body import is_clocked, is_invariant
from returnn_lite.ir.ops.masks import Current, When
from returnn_lite.ir.ops.sources import Constant
from returnn_lite.ir.rewrite import retype
from returnn_lite.ir.substitution import with_operands


def clocks(graph: Graph) -> Graph:
    """The graph with conversions where clocks meet, in loops in loops too; unchanged if nothing is masked."""
    if not any(isinstance(node.op, Loop) and is_clocked(node.op) for node in walk(graph.nodes)):
        return graph
    return retype(replace(graph, nodes=tuple(new for node in graph.nodes for new in _converted(node))))


def _converted(node: Node) -> list[Node]:
    """The node, and before it what it needs of the level around."""
    loop = node.op
    if not isinstance(loop, Loop):
        return [node]
    body = tuple(new for inner in loop.body for new in _converted(inner))
    converted = _Body(loop if body == loop.body else replace(loop, body=body), node)
    result = converted.run()
    return [*converted.outside, result]


class _Body:
    """One loop body with conversions."""

    def __init__(self, loop: Loop, node: Node) -> None:
        self.loop = loop
        self.loop_node = node
        self.nodes: list[Node] = []
        self.outside: list[Node] = []
        self.clock_of: dict[Value, Clock] = {element.now: element.clock for element in loop.elements}
        self.clock_of |= {state.now: state.clock for state in loop.states}
        self.invariant_on: dict[Value, Clock] = {}
        self.converted: dict[tuple[Value, Clock], Value] = {}
        self.holds = dict(loop.holds)
        self.origin_of: dict[Value, Origin] = {}
        self.masks: dict[Mask, Mask] = {}

    def run(self) -> Node:
        """The loop with every operand on its user's clock."""
        for node in self.loop.body:
            self._add(node)
        states = tuple(self._state(state) for state in self.loop.states)
        stacks = tuple(replace(e, now=self._on_clock(e.now, e.clock)) for e in self.loop.stacks)
        finals = tuple(replace(e, now=self._on_clock(e.now, ())) for e in self.loop.finals)
        ending = self.loop.ending
        if ending is not None:
            ending = replace(ending, ended=self._on_clock(ending.ended, ()))
        loop = replace(
            self.loop, states=states, stacks=stacks, finals=finals, ending=ending, body=tuple(self.nodes), holds=()
        )
        return self.loop_node.with_loop(loop)

    def _state(self, state: State) -> State:
        return replace(state, next=self._on_clock(state.next, state.clock), clock=self._with_masks_on_it(state.clock))

    def _add(self, node: Node) -> None:
        seen = {value: self._on_clock(value, node.clock) for value in node.inputs}
        is_loop = isinstance(node.op, Loop)
        clock = node.clock
        node = with_operands(node, seen) if is_loop else replace(node, inputs=tuple(seen[v] for v in node.inputs))
        self.nodes.append(replace(node, clock=self._with_masks_on_it(clock)))
        clock_of = self.invariant_on if is_invariant(node, self.loop.over, self.clock_of) else self.clock_of
        clock_of.update(dict.fromkeys(node.outputs, clock))
        self.origin_of.update(dict.fromkeys(node.outputs, node.origin))

    def _with_masks_on_it(self, clock: Clock) -> Clock:
        """The clock, each mask of which is one on the clock around it: it may be masked itself, and is held then."""
        for depth, mask in enumerate(clock):
            if mask not in self.masks:
                value = self._on_clock(mask.value, clock[:depth])
                self.masks[mask] = mask if value is mask.value else Mask(value, mask.dim)
        return tuple(self.masks[mask] for mask in clock)

    def _on_clock(self, value: Value, clock: Clock) -> Value:
        """The value as a user on a clock sees it."""
        have = self.clock_of.get(value)
        if have is None:
            return self._invariant_on_clock(value, clock)
        if have == clock:
            return value
        if (value, clock) not in self.converted:
            shared = 0
            while shared < min(len(have), len(clock)) and have[shared] is clock[shared]:
                shared += 1
            if shared < len(clock):
                current = self._selected(self._on_clock(value, clock[:-1]), clock)
            else:
                slower = have[: shared + 1]
                current = self._held(value, self._on_clock(value, slower), slower)
            self.converted[value, clock] = current
        return self.converted[value, clock]

    def _invariant_on_clock(self, value: Value, clock: Clock) -> Value:
        """What no step changes is the same on every clock, but nothing yet before the first frame of its own mask."""
        own = self.invariant_on.get(value, ())
        if clock[: len(own)] == own:
            return value
        if (value, clock) not in self.converted:
            frames = value
            for depth in range(len(own)):
                frames = self._selected(frames, own[: depth + 1])
            if value in self.holds:
                self.holds[frames] = self.holds[value]
            self.converted[value, clock] = self._on_clock(frames, clock)
        return self.converted[value, clock]

    def _held(self, original: Value, value: Value, clock: Clock) -> Value:
        """One mask up: held between the mask's frames."""
        mask, faster = clock[-1], clock[:-1]
        init = self.holds.get(original)
        if init is None:
            init = self._zero(value)
        mask_value = self._on_clock(mask.value, faster)
        op = Current(mask.dim, self._dim(faster))
        return self._emit(op, (value, mask_value, init), f"{value.name}@held", faster)

    def _selected(self, value: Value, clock: Clock) -> Value:
        """One mask down: only the mask's frames."""
        mask, faster = clock[-1], clock[:-1]
        op = When(self._dim(faster), mask.dim)
        return self._emit(op, (value, self._on_clock(mask.value, faster)), f"{value.name}@masked", clock)

    def _dim(self, clock: Clock) -> Dim:
        return clock[-1].dim if clock else self.loop.over

    def _emit(self, op: When | Current, inputs: tuple[Value, ...], name: str, clock: Clock) -> Value:
        output = Value(name, op.output_types(tuple(value.type for value in inputs))[0])
        origin = self.origin_of[output] = self.origin_of.get(inputs[0], self.loop_node.origin)
        self.nodes.append(Node(op, inputs, (output,), origin, self._with_masks_on_it(clock)))
        self.clock_of[output] = clock
        return output

    def _zero(self, value: Value) -> Value:
        """The value before the mask's first frame, where nothing else is said: zero or false."""
        zero: float | int | bool = 0
        if value.type.dtype == "bool":
            zero = False
        elif value.type.is_float:
            zero = 0.0
        op = Constant(zero, value.type.dtype, (), value.type.sparse)
        output = Value(f"{value.name}@zero", op.type_of())
        self.outside.append(Node(op, (), (output,), self.loop_node.origin, self.loop_node.clock))
        return output
