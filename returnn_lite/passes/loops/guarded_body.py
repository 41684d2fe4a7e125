"""Nodes and states of a body, some of them on slower clocks, as plain ones of every step: see `passes/guard`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from returnn_lite.dims import TensorType
from returnn_lite.ir import Clock, InLoop, Node, Op, Origin, State, Value
from returnn_lite.ir.ops.elementwise import Elementwise, Select
from returnn_lite.ir.ops.sources import Constant
from returnn_lite.ir.rewrite import Rewriter


@dataclass(frozen=True)
class GuardedBody:
    """The plain nodes and states; nodes that must stand before the loop; and what old values are now."""

    nodes: tuple[Node, ...]
    states: tuple[State, ...]
    outside: tuple[Node, ...]
    values: dict[Value, Value]

    def value(self, old: Value) -> Value:
        """What a body value is now."""
        return self.values.get(old, old)


def guarded_body(nodes: Iterable[Node], states: Iterable[State], origin: Origin) -> GuardedBody:
    """Nodes and states of a body, which may be on slower clocks, as plain ones."""
    guards = _Guards(origin)
    for node in nodes:
        guards.add(node)
    plain = [guards.state(state) for state in states]
    return GuardedBody(tuple(guards.nodes), (*plain, *guards.states), tuple(guards.outside), guards.rewriter.values)


@dataclass
class _Guards:
    """The state of the translation of one body."""

    origin: Origin
    rewriter: Rewriter = field(default_factory=Rewriter)
    nodes: list[Node] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    outside: list[Node] = field(default_factory=list)
    masks: dict[Clock, Value] = field(default_factory=dict)
    masked_already: set[Value] = field(default_factory=set)
    """What primitives made that take the mask as an operand."""

    def add(self, node: Node) -> None:
        """Adds the plain form of a node."""
        values = self.rewriter.values
        if (crossing := node.op.crossing) is not None:
            values[node.output] = self._held(node) if crossing.holds else self.rewriter.value(node.inputs[0])
        elif node.op.in_loop is InLoop.STEP_INDEX and node.clock:
            values[node.output] = self._counter(node)
        elif node.op.mask_at == len(node.inputs) and node.clock:
            inputs = (*(self.rewriter.value(value) for value in node.inputs), self._mask(node.clock))
            outputs = self._emit_as(node.outputs, node.op, inputs, node.origin)
            values.update(zip(node.outputs, outputs, strict=True))
            self.masked_already.update(outputs)
        else:
            self.nodes.append(replace(self.rewriter.node(replace(node, clock=())), clock=()))

    def state(self, state: State) -> State:
        """The plain form of a state: it keeps its value where its mask is false."""
        following = self.rewriter.value(state.next)
        if not state.clock or following in self.masked_already:
            return replace(state, next=following, clock=())
        kept = self._emit(
            Select(), (self._mask(state.clock), following, state.now), f"{state.now.name}@kept", self.origin
        )
        return replace(state, next=kept, clock=())

    def _mask(self, clock: Clock) -> Value:
        """Whether all masks of a clock are true at this step."""
        if clock not in self.masks:
            value = self.rewriter.value(clock[-1].value)
            if len(clock) > 1:
                value = self._both(self._mask(clock[:-1]), value)
            self.masks[clock] = value
        return self.masks[clock]

    def _both(self, outer: Value, inner: Value) -> Value:
        return self._emit(Elementwise("logical_and"), (outer, inner), f"{inner.name}@and", self.origin)

    def _held(self, node: Node) -> Value:
        y, mask, init = (self.rewriter.value(value) for value in node.inputs)
        if node.clock:  # it runs under masks itself, and at other steps nothing is taken
            mask = self._both(self._mask(node.clock), mask)
        before = Value(f"{node.output.name}@before", y.type.with_dims(*init.type.dims, *mask.type.dims))
        (held,) = self._emit_as(node.outputs, Select(), (mask, y, before), node.origin)
        self.states.append(State(before, init, held, origin=node.origin))
        return held

    def _counter(self, node: Node) -> Value:
        """The number of executed steps so far, for the steps of a slower clock."""
        dtype = node.output.type.dtype
        zero = self._outside(Constant(0, dtype), f"{node.output.name}@zero", node.origin)
        one = self._outside(Constant(1, dtype), f"{node.output.name}@one", node.origin)
        mask = self._mask(node.clock)
        now = node.output.of_type(TensorType(mask.type.dims, dtype))
        more = self._emit(Elementwise("add"), (now, one), f"{now.name}@more", node.origin)
        following = self._emit(Select(), (mask, more, now), f"{now.name}@next", node.origin)
        self.states.append(State(now, zero, following, origin=node.origin))
        return now

    def _outside(self, op: Op, name: str, origin: Origin) -> Value:
        output = Value(name, op.output_types(())[0])
        self.outside.append(Node(op, (), (output,), origin))
        return output

    def _emit(self, op: Op, inputs: tuple[Value, ...], name: str, origin: Origin) -> Value:
        type_ = op.output_types(tuple(value.type for value in inputs))[0]
        return self._emit_as((Value(name, type_),), op, inputs, origin)[0]

    def _emit_as(self, olds: tuple[Value, ...], op: Op, inputs: tuple[Value, ...], origin: Origin) -> tuple[Value, ...]:
        """Adds a node that makes what other values were."""
        types = op.output_types(tuple(value.type for value in inputs))
        outputs = tuple(old.of_type(type_) for old, type_ in zip(olds, types, strict=True))
        self.nodes.append(Node(op, inputs, outputs, origin))
        return outputs
