"""Loop distribution: each loop is split into what needs its steps and what does not.

The body of a loop is a dataflow program with delays (`State`). Its strongly connected components, delays included, are
taken in dependency order. A component of one node without a cycle is vectorised: the same primitive on whole sequences,
outside. A recurrence alone in its cycle becomes its whole-sequence primitive. What remains becomes a loop of its own.

    y = loop T {                          s = ...                     # as it was
      x = input[T]                        a = dot(input, W)           # [T, B, F]: vectorised
      a = dot(x, W)                       h = loop T {
      h' = delay(h, 0)            →         a = a[T]
      h = f(a, h')                          h' = delay(h, 0)
      y = tanh(h)                           h = f(a, h')
    }                                     }
                                          y = tanh(h)                 # [T, B, H]: vectorised

Allen and Kennedy, Optimizing Compilers for Modern Architectures (2001), chapter 2; Lustre's clocks for what is masked.

Loops whose length is only known when they end, and loops with a beam, keep together what varies from step to step (for
a beam: what depends on a choice); only the rest leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from returnn_lite.dims import Dim, Masked
from returnn_lite.ir import (
    Clock,
    Element,
    Graph,
    InLoop,
    Loop,
    Node,
    Op,
    Origin,
    State,
    Value,
    loop_node,
    node_operands,
)
from returnn_lite.ir.ops.axes import Expand
from returnn_lite.ir.ops.indexing import Compress, Hold
from returnn_lite.ir.ops.recurrence import Cumsum, Delay
from returnn_lite.ir.ops.sources import Constant, RandomDraw
from returnn_lite.passes.components import strongly_connected_components
from returnn_lite.passes.guard import guarded_body
from returnn_lite.passes.substitution import Substitution


class PassError(Exception):
    """A network that has no meaning in a loop: `layers` are the paths of those that form the cycle, first the one that
    can't be in it."""

    def __init__(self, message: str, layers: Iterable[str]) -> None:
        super().__init__(message)
        self.layers = tuple(layers)


Vertex = Node | State


def distribute_loops(graph: Graph, only_required: bool = False) -> Graph:
    """The graph with every loop distributed; with `only_required`, only what can't be done step by step leaves."""
    nodes, substitution = _distributed(graph.nodes, only_required)
    return substitution.finish(graph, nodes)


def _distributed(nodes: Iterable[Node], only_required: bool) -> tuple[list[Node], Substitution]:
    """The nodes with loops split, inner loops first; and what old values are now."""
    substitution = Substitution()
    result: list[Node] = []
    for node in nodes:
        current = substitution.node(node)
        if isinstance(current.op, Loop):
            loop = _with_distributed_body(current.op, only_required)
            split = Distribution(loop, current.origin, current.clock, only_required).run()
            result.extend(split.nodes)
            substitution.replace(dict(zip(node.outputs, current.outputs, strict=True)))
            substitution.replace(split.replaced)
        else:
            result.append(current)
    return result, substitution


def _with_distributed_body(loop: Loop, only_required: bool) -> Loop:
    if not any(isinstance(node.op, Loop) for node in loop.body):
        return loop
    body, inner = _distributed(loop.body, only_required)
    return inner.loop(loop, body)


@dataclass
class Split:
    """What a loop became: nodes of the level around, and its old outputs with what they are now."""

    nodes: list[Node] = field(default_factory=list)
    replaced: dict[Value, Value] = field(default_factory=dict)


class Distribution:
    """The distribution of one loop."""

    def __init__(self, loop: Loop, origin: Origin, clock: Clock, only_required: bool) -> None:
        self.loop = loop
        self.origin = origin
        self.outer_clock = clock
        self.only_required = only_required
        self.vertices: list[Vertex] = [*loop.body, *loop.states]
        self.whole: dict[Value, Value] = {element.now: element.whole for element in loop.elements}
        self.split = Split()
        self._producer = {output: i for i, node in enumerate(loop.body) for output in node.outputs}
        self._producer |= {state.now: len(loop.body) + i for i, state in enumerate(loop.states)}
        self._needed = [self._needs(vertex) for vertex in self.vertices]
        self._uses: dict[Value, set[int]] = {}
        for index, vertex in enumerate(self.vertices):
            for value in _reads(vertex):
                self._uses.setdefault(value, set()).add(index)

    def run(self) -> Split:
        """Splits the loop."""
        components = strongly_connected_components(self._needed)
        staying = self._staying(components)
        for group, stays in staying:
            if stays:
                self._smaller_loop(group)
            else:
                self._vectorize(self.vertices[group[0]])
        self._finish_outputs()
        return self.split

    def _needs(self, vertex: Vertex) -> list[int]:
        return [self._producer[value] for value in _reads(vertex) if value in self._producer]

    # Which components stay in a loop

    def _staying(self, components: list[list[int]]) -> list[tuple[list[int], bool]]:
        """Groups of vertices in dependency order, and whether each stays in a loop."""
        kept_together = self._kept_together(components)
        if not kept_together:
            return [(component, not self._can_leave(component)) for component in components]
        return self._around(components, kept_together)

    def _can_leave(self, component: list[int]) -> bool:
        """True for a vertex without a cycle, and for a recurrence with nothing but its own states in its cycle."""
        if len(component) == 1 and component[0] not in self._needed[component[0]]:
            vertex = self.vertices[component[0]]
            if isinstance(vertex, State):
                return True
            return vertex.op.in_loop not in (InLoop.SEQUENTIAL, InLoop.BEAM)
        nodes = [vertex for i in component if isinstance(vertex := self.vertices[i], Node)]
        self._require_no_whole_axis(nodes)
        if len(nodes) != 1 or nodes[0].op.in_loop is not InLoop.RECURRENCE:
            return False
        states = [vertex for i in component if isinstance(vertex := self.vertices[i], State)]
        return _is_own_recurrence(nodes[0], states)

    def _require_no_whole_axis(self, nodes: Iterable[Node]) -> None:
        nodes = list(nodes)
        for node in nodes:
            if node.op.in_loop is InLoop.WHOLE_AXIS:
                cycle = list(dict.fromkeys(n.origin.layer for n in nodes))
                raise PassError(
                    f"'{node.origin.layer}' needs all steps of the loop at once, but it is part of the cycle "
                    f"{' -> '.join(cycle)}, which runs step by step",
                    dict.fromkeys([node.origin.layer, *cycle]),
                )

    def _kept_together(self, components: list[list[int]]) -> set[int]:
        """The vertices that must stay in one loop: of loops of unknown length, with a beam, or all with
        `only_required`."""
        varying = self._descendants(components, self._sources_of_variation())
        if self.only_required:
            whole_axis = {i for i, v in enumerate(self.vertices) if _is_whole_axis(v)}
            return varying - whole_axis
        if self.loop.ending is not None:
            return varying
        if self.loop.back_pointers is not None:
            beam = {i for i, v in enumerate(self.vertices) if isinstance(v, Node) and v.op.in_loop is InLoop.BEAM}
            return self._descendants(components, beam)
        return set()

    def _sources_of_variation(self) -> set[int]:
        elements = {element.now for element in self.loop.elements}
        found = set()
        for index, vertex in enumerate(self.vertices):
            if any(value in elements for value in _reads(vertex)) or _differs_by_step(vertex):
                found.add(index)
        return found

    def _descendants(self, components: list[list[int]], roots: set[int]) -> set[int]:
        """The roots, what depends on them, and what is in a cycle with any of these."""
        found: set[int] = set()
        for component in components:
            if any(i in roots or any(j in found for j in self._needed[i]) for i in component):
                found.update(component)
        return found

    def _around(self, components: list[list[int]], together: set[int]) -> list[tuple[list[int], bool]]:
        """Groups with the kept vertices in as few loops as possible: one for each chain of WHOLE_AXIS nodes between
        them."""
        level: dict[int, int] = {}
        groups: dict[tuple[int, int], list[int]] = {}
        order: list[tuple[list[int], int, bool]] = []
        for position, component in enumerate(components):
            below = max((level[j] for i in component for j in self._needed[i] if j in level), default=0)
            stays = component[0] in together
            if not stays:
                crosses = any(j in together for i in component for j in self._needed[i])
                below += 1 if crosses else 0
                order.append((component, 2 * below, not self._can_leave(component)))
            else:
                groups.setdefault((below, 0), []).extend(component)
            for i in component:
                level[i] = below
            del position
        order += [(group, 2 * key[0] + 1, True) for key, group in groups.items()]
        order.sort(key=lambda entry: entry[1])
        return [(group, stays) for group, _, stays in order]

    # Vectorising

    def _vectorize(self, vertex: Vertex) -> None:
        if isinstance(vertex, State):
            if vertex.now not in self.whole:
                self._delayed(vertex)
            return
        if vertex.clock and vertex.op.in_loop is InLoop.STEP_INDEX:
            self.whole[vertex.output] = self._executed_steps(vertex)
            return
        over = self._over(vertex.clock)
        states = {state.now: state.init for state in self.loop.states if self._is_own_state(vertex, state)}
        inputs = tuple(states[v] if v in states else self._whole(v) for v in vertex.inputs)
        inputs = self._with_steps(vertex.op, inputs, vertex.clock)
        op = vertex.op.vectorize(over)
        types = op.output_types(tuple(value.type for value in inputs))
        outputs = tuple(Value(old.name, type_) for old, type_ in zip(vertex.outputs, types, strict=True))
        self._emit(Node(op, inputs, outputs, vertex.origin))
        self.whole.update(zip(vertex.outputs, outputs, strict=True))

    def _over(self, clock: Clock) -> Dim:
        return clock[-1].dim if clock else self.loop.over

    def _at_every_step(self, value: Value, clock: Clock) -> Value:
        """A value that no step changes, at every step of a clock. Of a mask, that says how many steps it has."""
        if not clock:
            return self._emit_one(Expand((self.loop.over,)), (value,), f"{value.name}@steps")
        mask = self._whole(clock[-1].value)
        return self._emit_one(Compress(self._over(clock[:-1]), clock[-1].dim), (value, mask), f"{value.name}@steps")

    def _executed_steps(self, node: Node) -> Value:
        """0, 1, 2, ... at the steps of a mask."""
        dtype = node.output.type.dtype
        one = self._emit_one(Constant(1, dtype), (), f"{node.output.name}@one")
        minus_one = self._emit_one(Constant(-1, dtype), (), f"{node.output.name}@minus_one")
        ones = self._at_every_step(one, node.clock)
        return self._emit_one(Cumsum(self._over(node.clock)), (ones, minus_one), node.output.name)

    def _with_steps(self, op: Op, inputs: tuple[Value, ...], clock: Clock) -> tuple[Value, ...]:
        """The operands, one of them at every step if the result differs from step to step and none of them does.

        That is so of a recurrence, and where the length of a dim differs from step to step.
        """
        over = self._over(clock)
        if any(over in value.type for value in inputs):
            return inputs
        is_recurrence = op.in_loop is InLoop.RECURRENCE
        for position, value in enumerate(inputs):
            if is_recurrence or any(over in dim.over for dim in value.type.dims):
                spread = self._at_every_step(value, clock)
                return (*inputs[:position], spread, *inputs[position + 1 :])
        return inputs

    def _is_own_state(self, node: Node, state: State) -> bool:
        return node.op.in_loop is InLoop.RECURRENCE and state.next in node.outputs and state.now in node.inputs

    def _delayed(self, state: State) -> None:
        op = Delay(self._over(state.clock))
        following = self._whole(state.next)
        if op.over not in following.type:
            following = self._at_every_step(following, state.clock)
        inputs = (following, state.init)
        output = Value(state.now.name, op.type_of(*(value.type for value in inputs)))
        self._emit(Node(op, inputs, (output,), self.origin))
        self.whole[state.now] = output

    def _whole(self, value: Value) -> Value:
        """A body value on whole sequences; what comes from outside as it is."""
        return self.whole.get(value, value)

    def _emit(self, node: Node) -> None:
        self.split.nodes.append(replace(node, clock=self.outer_clock))

    # Smaller loops

    def _smaller_loop(self, group: list[int]) -> None:
        nodes = [vertex for i in sorted(group) if isinstance(vertex := self.vertices[i], Node)]
        states = [vertex for i in sorted(group) if isinstance(vertex := self.vertices[i], State)]
        self._require_no_whole_axis(nodes)
        made = {output for node in nodes for output in node.outputs} | {state.now for state in states}
        clocks = {node.clock for node in nodes} | {state.clock for state in states}
        clock = next(iter(clocks)) if len(clocks) == 1 else ()
        elements, mapping = self._slices(nodes, states, made, clock)
        if clock:
            nodes = [replace(node, clock=()) for node in nodes]
            states = [replace(state, clock=()) for state in states]
        body = Substitution(mapping)
        copies = tuple(body.node(node) for node in nodes)
        new_states = tuple(
            replace(state, next=body.value(state.next), clock=body.clock(state.clock)) for state in states
        )
        if len(clocks) > 1:
            guarded = guarded_body(copies, new_states, self.origin)
            self.split.nodes.extend(replace(node, clock=self.outer_clock) for node in guarded.outside)
            copies, new_states = guarded.nodes, guarded.states
            body.replace({value: guarded.value(body.value(value)) for value in made})
        ending = self.loop.ending
        if ending is not None:
            ending = replace(ending, ended=body.value(ending.ended)) if ending.ended in made else None
        pointers = self.loop.back_pointers
        stacks, compressed = self._stacks(set(group), made, clock)
        finals = tuple(replace(f, now=body.value(f.now)) for f in self.loop.finals if f.now in made)
        loop = Loop(
            clock[-1].dim if clock else self.loop.over,
            tuple(elements),
            new_states,
            tuple(replace(stack, now=body.value(stack.now)) for stack in stacks),
            copies,
            finals,
            ending,
            body.value(pointers) if pointers in made else None,
            tuple((body.value(value), init) for value, init in self.loop.holds if value in made),
        )
        self._emit(loop_node(loop, self.origin))
        for value, stack in compressed:
            self.whole[value] = self._slower(stack, self._clock_of(value))
        for final in finals:
            self.split.replaced[final.whole] = final.whole

    def _slices(
        self, nodes: list[Node], states: list[State], made: set[Value], clock: Clock
    ) -> tuple[list[Element], dict[Value, Value]]:
        """Elements for what a loop on a clock reads from outside it, and invariants in place of what does not vary."""
        used = [value for node in nodes for value in (node.inputs if clock else node_operands(node))]
        used += [state.next for state in states]
        over = clock[-1].dim if clock else self.loop.over
        elements: list[Element] = []
        mapping: dict[Value, Value] = {}
        for value in dict.fromkeys(used):
            if value in made or value not in self.whole:
                continue
            whole = self._faster(self.whole[value], self._clock_of(value)[len(clock) :])
            if over in whole.type:
                mapping[value] = Value(value.name, whole.type.without(over))
                elements.append(Element(mapping[value], whole))
            else:
                mapping[value] = whole
        if clock and not elements:
            one = self._emit_one(Constant(1, "int32"), (), f"{over.name}@one")
            steps = self._at_every_step(one, clock)
            elements.append(Element(Value(f"{over.name}@step", steps.type.without(over)), steps))
        return elements, mapping

    def _clock_of(self, value: Value) -> Clock:
        if value not in self._producer:
            return next(element.clock for element in self.loop.elements if element.now is value)
        return self.vertices[self._producer[value]].clock

    def _faster(self, whole: Value, masks: Clock) -> Value:
        """A sequence of a slower clock at every frame of the faster one; what it is between its own frames is not
        used."""
        for mask in reversed(masks):
            if mask.dim not in whole.type:
                continue
            outer = mask.dim.dim if isinstance(mask.dim, Masked) else self.loop.over
            zero = Constant(False if whole.type.dtype == "bool" else 0, whole.type.dtype, (), whole.type.sparse)
            init = self._emit_one(zero, (), f"{whole.name}@zero")
            whole = self._emit_one(Hold(mask.dim, outer), (whole, self._whole(mask.value), init), f"{whole.name}@held")
        return whole

    def _slower(self, whole: Value, masks: Clock) -> Value:
        """The frames of a sequence at which the masks are true."""
        for mask in masks:
            outer = mask.dim.dim if isinstance(mask.dim, Masked) else self.loop.over
            inputs = (whole, self._whole(mask.value))
            whole = self._emit_one(Compress(outer, mask.dim), inputs, f"{whole.name}@masked")
        return whole

    def _emit_one(self, op: Op, inputs: tuple[Value, ...], name: str) -> Value:
        output = Value(name, op.output_types(tuple(value.type for value in inputs))[0])
        self._emit(Node(op, inputs, (output,), self.origin))
        return output

    def _stacks(
        self, group: set[int], made: set[Value], clock: Clock
    ) -> tuple[list[Element], list[tuple[Value, Value]]]:
        """Stacks for what is needed outside of the group, and those of them that have to be compressed to their
        clock."""
        over = clock[-1].dim if clock else self.loop.over
        stacks: list[Element] = []
        compressed: list[tuple[Value, Value]] = []
        kept = {element.now: element for element in self.loop.stacks}
        wanted = [value for value in made if any(user not in group for user in self._uses.get(value, ()))]
        wanted += [element.now for element in self.loop.stacks if element.now in made]
        for value in sorted(dict.fromkeys(wanted), key=lambda v: (self._producer[v], v.name)):
            whole = kept[value].whole if value in kept else Value(value.name, value.type.with_dims(over))
            stacks.append(Element(value, whole))
            self.whole[value] = whole
            if self._clock_of(value) != clock:
                compressed.append((value, whole))
        return stacks, compressed

    # Outputs

    def _finish_outputs(self) -> None:
        """Says what the loop's old outputs are now."""
        for stack in self.loop.stacks:
            whole = self._whole(stack.now)
            over: Dim = stack.clock[-1].dim if stack.clock else self.loop.over
            if over not in whole.type:
                op = Expand((over,))
                expanded = Value(stack.whole.name, op.type_of(whole.type))
                self._emit(Node(op, (whole,), (expanded,), self.origin))
                whole = expanded
            self.split.replaced[stack.whole] = whole
        for final in self.loop.finals:
            self.split.replaced.setdefault(final.whole, self._whole(final.now))


def _reads(vertex: Vertex) -> tuple[Value, ...]:
    return (vertex.next,) if isinstance(vertex, State) else node_operands(vertex)


def _differs_by_step(vertex: Vertex) -> bool:
    """True for what is not the same at each step even if all it reads is."""
    if isinstance(vertex, State):
        return True
    if isinstance(vertex.op, RandomDraw):
        return vertex.op.fresh
    return vertex.op.in_loop in (InLoop.STEP_INDEX, InLoop.SEQUENTIAL, InLoop.BEAM)


def _is_whole_axis(vertex: Vertex) -> bool:
    return isinstance(vertex, Node) and vertex.op.in_loop is InLoop.WHOLE_AXIS


def _is_own_recurrence(node: Node, states: Sequence[State]) -> bool:
    """True if the states are just the node's own: each carries one of its state results to the operand of the same
    place."""
    op = type(node.op)
    pairs = {
        (node.outputs[result], node.inputs[operand])
        for result, operand in zip(op.state_outputs, op.state_inputs, strict=True)
    }
    return {(state.next, state.now) for state in states} == pairs and all(s.clock == node.clock for s in states)
