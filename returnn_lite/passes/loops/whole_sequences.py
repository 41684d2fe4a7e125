"""Values of a loop's body on whole sequences: what step-by-step work becomes outside of the loop.

    y = f(x)                        →    y = f(x)                          # [T, B, F]: the same primitive
    y = f(x) when m                 →    y = f(x)                          # [T', B, F], T' = mask(T, m)
    x' = delay(x, init)             →    x' = delay(x, init, over=T)
    h = lstm_step(z, W, h', c')     →    h = lstm(z, W, init_h, init_c, over=T)
    i = step_index()                →    i = iota(over=T)

A frame of a slower clock's sequence belongs to one step at which its mask is true: `compress` goes from the steps of a
clock to those of a mask in it, `hold` back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from returnn_lite.dims import Dim, TensorType
from returnn_lite.ir import Clock, Effect, InLoop, Loop, Node, Op, Origin, State, Value
from returnn_lite.ir.ops.axes import Expand
from returnn_lite.ir.ops.masks import Compress, Hold
from returnn_lite.ir.ops.recurrence import CumsumStep, Delay
from returnn_lite.ir.ops.sources import Constant
from returnn_lite.ir.rewrite import Rewriter
from returnn_lite.passes.loops.whole_forms import worked_on


@dataclass
class WholeSequences:
    """The sequences of one loop's values, and the nodes made for them. `outer_clock` is that of the loop itself."""

    loop: Loop
    origin: Origin
    outer_clock: Clock
    nodes: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._whole = {element.now: element.whole for element in self.loop.elements}
        self._clocks: dict[Value, Clock] = {element.now: element.clock for element in self.loop.elements}
        self._clocks |= {state.now: state.clock for state in self.loop.states}
        self._clocks |= {output: node.clock for node in self.loop.body for output in node.outputs}
        self._masks: dict[Clock, Value] = {}
        self._carried: dict[Value, list[State]] = {}
        for state in self.loop.states:
            self._carried.setdefault(state.next, []).append(state)
        self._made = {dim for node in self.loop.body for dim in node.op.created_dims() if dim.size is None}

    def __contains__(self, value: Value) -> bool:
        return value in self._whole

    def of(self, value: Value) -> Value:
        """The sequence of a body value; what comes from outside, and what no step changes, as it is."""
        return self._whole.get(value, value)

    def update(self, sequences: Mapping[Value, Value]) -> None:
        """Says what the sequences of body values are."""
        self._whole.update(sequences)

    def clock_of(self, value: Value) -> Clock:
        """The masks under which a body value is computed."""
        return self._clocks[value]

    def over(self, clock: Clock) -> Dim:
        """The dim of the steps of a clock."""
        return clock[-1].dim if clock else self.loop.over

    def emit(self, node: Node) -> None:
        """Adds a node to the level around the loop."""
        self.nodes.append(replace(node, clock=self.outer_clock))

    def apply(self, op: Op, inputs: tuple[Value, ...], name: str) -> Value:
        """Adds a node of one result."""
        return self._as(Value(name, TensorType(())), op, inputs)

    def _as(self, old: Value, op: Op, inputs: tuple[Value, ...]) -> Value:
        output = old.of_type(op.output_types(tuple(value.type for value in inputs))[0])
        self.emit(Node(op, inputs, (output,), self.origin))
        return output

    # Step by step → at once

    def vectorize(self, node: Node) -> None:
        """Computes a node for all steps at once. A recurrence must have no other states in its cycle than its own."""
        if isinstance(node.op, Loop):
            self._vectorize_loop(node)
            return
        if node.clock and node.op.in_loop is InLoop.STEP_INDEX:
            self._whole[node.output] = self._executed_steps(node)
            return
        if node.clock and node.op.in_loop is InLoop.RANDOM and node.op.fresh:
            drawn = self.apply(node.op.vectorize(self.loop.over), (), f"{node.output.name}@steps")
            self._whole[node.output] = self.slower(drawn, node.clock)
            return
        inputs = self._with_steps(node.op, self._operands(node), node.clock)
        op = node.op.vectorize(self.over(node.clock)).unrolled(self.loop.unroll)
        types = op.output_types(tuple(value.type for value in inputs))
        outputs = tuple(old.of_type(type_) for old, type_ in zip(node.outputs, types, strict=True))
        self.emit(Node(op, inputs, outputs, node.origin))
        self._whole.update(zip(node.outputs, outputs, strict=True))

    def _vectorize_loop(self, node: Node) -> None:
        """An inner loop runs for all steps of the outer one side by side: its values get the outer dim."""
        copies = Rewriter()
        copies.values.update(self._whole)
        copy = copies.node(replace(node, clock=()))
        self.emit(copy)
        self._whole.update(zip(node.outputs, copy.outputs, strict=True))

    def delay(self, state: State) -> None:
        """The sequence of a state from that of its next value."""
        op = Delay(self.over(state.clock))
        following = self.of(state.next)
        if op.over not in following.type:
            following = self.at_every_step(following, state.clock)
        inputs = (following, state.init)
        self._whole[state.now] = self._as(state.now, op, inputs)

    def _operands(self, node: Node) -> tuple[Value, ...]:
        """The operands' sequences, with the initial value for a recurrence's own state, and a mask at every step."""
        own: dict[Value, Value] = {}
        if node.op.in_loop is InLoop.RECURRENCE:
            own = {state.now: state.init for output in node.outputs for state in self._carried.get(output, ())}
        inputs = [own[value] if value in own else self.of(value) for value in node.inputs]
        if (crossing := node.op.crossing) is not None:
            if crossing.faster not in inputs[1].type:
                inputs[1] = self.apply(Expand((crossing.faster,)), (inputs[1],), f"{inputs[1].name}@steps")
            if crossing.holds and crossing.slower not in inputs[0].type:
                frames = Compress(crossing.faster, crossing.slower)
                inputs[0] = self.apply(frames, (inputs[0], inputs[1]), f"{inputs[0].name}@steps")
        return tuple(inputs)

    def _with_steps(self, op: Op, inputs: tuple[Value, ...], clock: Clock) -> tuple[Value, ...]:
        """The operands, one of them at every step if the result differs from step to step and none of them does.

        That is so of a recurrence, of what looks at other steps, and of what works on a dim whose length differs from
        step to step: that of a history, say. Where such a dim is a batch dim, every frame is the same at all steps that
        see it.
        """
        if any(self.over(clock) in value.type for value in inputs) or op.effect is Effect.ASSIGN:
            return inputs  # an assignment is made once
        needs_steps = op.in_loop in (InLoop.RECURRENCE, InLoop.WHOLE_AXIS)
        worked = worked_on(op, inputs)
        for position, value in enumerate(inputs):
            if needs_steps or any(self._differs_by_step(dim, clock) for dim in worked & set(value.type.dims)):
                spread = self.at_every_step(value, clock)
                return (*inputs[:position], spread, *inputs[position + 1 :])
        return inputs

    def _differs_by_step(self, dim: Dim, clock: Clock) -> bool:
        """Also a Dim of the config, which does not say what it varies over, if the steps make it."""
        made = dim in self._made and not dim.over
        return made or self.over(clock) in dim.over or self.loop.over in dim.over

    def _executed_steps(self, node: Node) -> Value:
        """0, 1, 2, ... at the steps of a mask."""
        dtype = node.output.type.dtype
        one = self.apply(Constant(1, dtype), (), f"{node.output.name}@one")
        minus_one = self.apply(Constant(-1, dtype), (), f"{node.output.name}@minus_one")
        ones = self.at_every_step(one, node.clock)
        return self._as(node.output, CumsumStep().vectorize(self.over(node.clock)), (ones, minus_one))

    # From clock to clock

    def at_every_step(self, value: Value, clock: Clock) -> Value:
        """A value that no step changes, at every step of a clock. Of a mask, that says how many steps it has."""
        if not clock:
            return self.apply(Expand((self.loop.over,)), (value,), f"{value.name}@steps")
        op = Compress(self.over(clock[:-1]), clock[-1].dim)
        return self.apply(op, (value, self._mask(clock)), f"{value.name}@steps")

    def faster(self, whole: Value, clock: Clock, user: Clock) -> Value:
        """A sequence of a clock at every step of a faster one; what it is between its own frames is not used."""
        for depth in range(len(clock), len(user), -1):
            mask, outer = clock[depth - 1], self.over(clock[: depth - 1])
            if mask.dim not in whole.type:
                continue
            zero = Constant(False if whole.type.dtype == "bool" else 0, whole.type.dtype, (), whole.type.sparse)
            init = self.apply(zero, (), f"{whole.name}@zero")
            whole = self.apply(Hold(mask.dim, outer), (whole, self._mask(clock[:depth]), init), f"{whole.name}@held")
        return whole

    def slower(self, whole: Value, clock: Clock, source: Clock = ()) -> Value:
        """The frames of a sequence of a faster clock (`source`) at which the masks of a clock are true."""
        for depth in range(len(source), len(clock)):
            op = Compress(self.over(clock[:depth]), clock[depth].dim)
            whole = self.apply(op, (whole, self._mask(clock[: depth + 1])), f"{whole.name}@masked")
        return whole

    def _mask(self, clock: Clock) -> Value:
        """Whether a clock's innermost mask is true, at every step of the clock around it."""
        if clock not in self._masks:
            value, outer = clock[-1].value, clock[:-1]
            whole = self.of(value)
            source = self._clocks.get(value, ())
            if self.over(source) in whole.type:
                whole = self.slower(whole, outer, source)
            elif self.over(outer) not in whole.type:
                whole = self.at_every_step(whole, outer)
            self._masks[clock] = whole
        return self._masks[clock]
