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

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace

from returnn_lite.dims import Dim
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
from returnn_lite.ir.ops.indexing import Current, When
from returnn_lite.ir.ops.recurrence import CumConcatStep
from returnn_lite.ir.ops.sources import Constant
from returnn_lite.ir.rewrite import Rewriter
from returnn_lite.passes.components import shortest_cycle, strongly_connected_components
from returnn_lite.passes.errors import PassError
from returnn_lite.passes.guard import guarded_body
from returnn_lite.passes.substitution import Substitution
from returnn_lite.passes.whole_sequences import WholeSequences

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
            split = Distribution(loop, current.origin, current.clock, only_required)
            result.extend(split.run())
            substitution.replace(split.replaced)
            substitution.replace(dict(zip(node.outputs, current.outputs, strict=True)))
        else:
            result.append(current)
    return result, substitution


def _with_distributed_body(loop: Loop, only_required: bool) -> Loop:
    if not any(isinstance(node.op, Loop) for node in loop.body):
        return loop
    body, inner = _distributed(loop.body, only_required)
    return inner.loop(loop, body)


class Distribution:
    """The distribution of one loop."""

    def __init__(self, loop: Loop, origin: Origin, clock: Clock, only_required: bool) -> None:
        self.loop = loop
        self.origin = origin
        self.only_required = only_required
        self.vertices: list[Vertex] = [*loop.body, *loop.states]
        self.whole = WholeSequences(loop, origin, clock)
        self.replaced: dict[Value, Value] = {}
        self._producer = {output: i for i, node in enumerate(loop.body) for output in node.outputs}
        self._producer |= {state.now: len(loop.body) + i for i, state in enumerate(loop.states)}
        self._maker = {dim: i for i, node in enumerate(loop.body) for dim in node.op.created_dims()}
        self._constant = same_at_each_step(loop)
        self._read = [self._needs(vertex) for vertex in self.vertices]
        self._needed = [
            [*read, *self._needs_the_end(vertex)] for read, vertex in zip(self._read, self.vertices, strict=True)
        ]
        self._uses: dict[Value, set[int]] = {}
        for index, vertex in enumerate(self.vertices):
            for value in self._reads(vertex):
                self._uses.setdefault(value, set()).add(index)

    def run(self) -> list[Node]:
        """Splits the loop: the nodes of the level around. `replaced` says what its old outputs are now."""
        staying = self._staying(strongly_connected_components(self._needed))
        while self._tie_histories(staying):
            staying = self._staying(strongly_connected_components(self._needed))
        for group, stays in staying:
            if stays:
                self._smaller_loop(group)
            else:
                self._vectorize(self.vertices[group[0]])
                self._delay_what_others_read(group)
        self._finish_outputs()
        return self.whole.nodes

    def _needs(self, vertex: Vertex) -> list[int]:
        needed = [self._producer[value] for value in self._reads(vertex) if value in self._producer]
        if isinstance(vertex, Node) and self._maker:
            made = {dim for dim in vertex.op.named_dims() if dim in self._maker}
            needed += [self._maker[dim] for dim in made.difference(vertex.op.created_dims())]
        return needed

    def _needs_the_end(self, vertex: Vertex) -> list[int]:
        """What says when the loop ends, for what needs all of its steps: there are no more only then."""
        ending = self.loop.ending
        if ending is None or not _is_whole_axis(vertex) or ending.ended not in self._producer:
            return []
        return [self._producer[ending.ended]]

    def _reads(self, vertex: Vertex) -> tuple[Value, ...]:
        """What a vertex needs; of its masks, nothing if they make no difference to it."""
        if isinstance(vertex, State):  # what no step changes gets the frames of the masks
            return (vertex.next, *(mask.value for mask in vertex.clock))
        if vertex in self._constant and not _is_whole_axis(vertex):  # all steps of a mask are as many as it has
            return vertex.inputs
        return node_operands(vertex)

    # Which components stay in a loop

    def _staying(self, components: list[list[int]]) -> list[tuple[list[int], bool]]:
        """Groups of vertices in dependency order, and whether each stays in a loop."""
        kept_together = self._kept_together(components)
        if not kept_together:
            return [(component, not self._can_leave(component)) for component in components]
        return self._around(components, kept_together)

    def _tie_histories(self, staying: list[tuple[list[int], bool]]) -> bool:
        """Keeps a history of masked frames with a loop of other steps that sees it: between the frames of the mask
        nothing says how long it is. True if any was not kept yet."""
        tied = False
        for group, stays in staying:
            vertices = [self.vertices[i] for i in group]
            clocks = {vertex.clock for vertex in vertices}
            for index, vertex in zip(group, vertices, strict=True):
                inputs = vertex.inputs if stays and isinstance(vertex, Node) else ()
                made = {self._maker[dim] for value in inputs for dim in value.type.dims if dim in self._maker}
                for maker in made.difference(group):
                    if self.vertices[maker].clock and clocks != {self.vertices[maker].clock}:
                        self._needed[maker].append(index)
                        tied = True
        return tied

    def _can_leave(self, component: list[int]) -> bool:
        """True for a vertex without a cycle, and for a recurrence with nothing but its own states in its cycle."""
        if len(component) == 1 and component[0] not in self._needed[component[0]]:
            vertex = self.vertices[component[0]]
            return isinstance(vertex, State) or _can_be_vectorized(vertex.op)
        nodes = [vertex for i in component if isinstance(vertex := self.vertices[i], Node)]
        self._require_no_whole_axis(component)
        if len(nodes) != 1 or nodes[0].op.in_loop is not InLoop.RECURRENCE:
            return False
        states = [vertex for i in component if isinstance(vertex := self.vertices[i], State)]
        return _is_own_recurrence(nodes[0], states)

    def _require_no_whole_axis(self, group: Sequence[int]) -> None:
        for index in group:
            vertex = self.vertices[index]
            if isinstance(vertex, Node) and _is_whole_axis(vertex):
                layer, cycle = vertex.origin.layer, self._cycle(index, set(group))
                raise PassError(
                    f"'{layer}' needs all steps of the loop at once, but it is part of the cycle "
                    f"{' -> '.join(cycle)}, which runs step by step",
                    dict.fromkeys([layer, *cycle]),
                )

    def _cycle(self, start: int, group: set[int]) -> list[str]:
        """The layers of the shortest cycle of a group through a vertex, each before what reads it; one through the end
        of the loop if there is no other."""
        way = shortest_cycle(self._read, start, group)
        way = way if len(way) > 1 else shortest_cycle(self._needed, start, group)
        layers = [vertex.origin.layer for i in reversed(way) if isinstance(vertex := self.vertices[i], Node)]
        return [layer for layer, _ in itertools.groupby(layer for layer in layers if layer != self.origin.layer)]

    def _kept_together(self, components: list[list[int]]) -> set[int]:
        """The vertices that must stay in one loop: of loops of unknown length, with a beam, or all with
        `only_required`."""
        varying = self._descendants(components, self._sources_of_variation())
        if self.only_required:
            return varying
        if self.loop.ending is not None:
            return varying
        if self.loop.back_pointers is not None:
            beam = {i for i, v in enumerate(self.vertices) if isinstance(v, Node) and v.op.in_loop is InLoop.BEAM}
            return self._descendants(components, beam)
        return set()

    def _sources_of_variation(self) -> set[int]:
        """What varies from step to step by itself; and recurrences, which have a form for all steps or for each."""
        elements = {element.now for element in self.loop.elements}
        found = set()
        for index, vertex in enumerate(self.vertices):
            is_recurrence = isinstance(vertex, Node) and vertex.op.in_loop is InLoop.RECURRENCE
            if is_recurrence or _differs_by_step(vertex) or any(value in elements for value in self._reads(vertex)):
                found.add(index)
        return found

    def _descendants(self, components: list[list[int]], roots: set[int]) -> set[int]:
        """The roots, what depends on them, and what is in a cycle with any of these.

        What needs all steps at once is not among them where it is in no cycle: it is computed between loops, and gives
        every step the same.
        """
        found: set[int] = set()
        for component in components:
            if len(component) == 1 and _is_whole_axis(self.vertices[component[0]]):
                continue
            if any(i in roots or any(j in found for j in self._needed[i]) for i in component):
                found.update(component)
        return found

    def _around(self, components: list[list[int]], together: set[int]) -> list[tuple[list[int], bool]]:
        """Groups with the kept vertices in as few loops as possible: one for each chain of WHOLE_AXIS nodes between
        them."""
        level: dict[int, int] = {}
        groups: dict[tuple[int, int], list[int]] = {}
        order: list[tuple[list[int], int, bool]] = []
        for component in components:
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
        order += [(group, 2 * key[0] + 1, True) for key, group in groups.items()]
        order.sort(key=lambda entry: entry[1])
        return [(group, stays) for group, _, stays in order]

    def _vectorize(self, vertex: Vertex) -> None:
        if isinstance(vertex, Node):
            self.whole.vectorize(vertex)
        elif vertex.now not in self.whole:
            self.whole.delay(vertex)

    def _delay_what_others_read(self, recurrence: list[int]) -> None:
        """The sequences of a recurrence's own states before each step, where more than the recurrence reads them."""
        shown = {stack.now for stack in self.loop.stacks} | {final.now for final in self.loop.finals}
        for index in recurrence[1:]:
            state = self.vertices[index]
            if not isinstance(state, State) or state.now in self.whole:
                continue
            if state.now in shown or self._uses.get(state.now, set()) - set(recurrence):
                self.whole.delay(state)

    # Smaller loops

    def _smaller_loop(self, group: list[int]) -> None:
        nodes = [vertex for i in sorted(group) if isinstance(vertex := self.vertices[i], Node)]
        states = [vertex for i in sorted(group) if isinstance(vertex := self.vertices[i], State)]
        self._require_no_whole_axis(group)
        made = {output for node in nodes for output in node.outputs} | {state.now for state in states}
        clocks = {node.clock for node in nodes} | {state.clock for state in states}
        clocks |= {node.clock[:-1] for node in nodes if isinstance(node.op, When)}  # it reads frames of every step
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
        if len(clocks) > 1 or any(isinstance(node.op, When | Current) for node in nodes):
            guarded = guarded_body(copies, new_states, self.origin)
            for node in guarded.outside:
                self.whole.emit(node)
            copies, new_states = guarded.nodes, guarded.states
            body.replace({value: guarded.value(body.value(value)) for value in made})
        ending = self.loop.ending
        if ending is not None:
            ending = replace(ending, ended=body.value(ending.ended)) if ending.ended in made else None
        pointers = self.loop.back_pointers
        stacks, compressed = self._stacks(set(group), made, clock, body)
        finals = tuple(_retyped(replace(f, now=body.value(f.now))) for f in self.loop.finals if f.now in made)
        loop = Loop(
            clock[-1].dim if clock else self.loop.over,
            tuple(elements),
            new_states,
            tuple(stacks),
            copies,
            finals,
            ending,
            body.value(pointers) if pointers in made else None,
            tuple((body.value(value), init) for value, init in self.loop.holds if value in made),
        )
        # Guards add a mask's dims to states, and so to what depends on them.
        types = Rewriter()
        self.whole.emit(types.node(loop_node(loop, self.origin)))
        self.whole.update({value: types.value(self.whole.of(value)) for value in made if value in self.whole})
        for value, stack in compressed:
            self.whole.update({value: self.whole.slower(types.value(stack), self.whole.clock_of(value))})
        olds = (f.whole for f in self.loop.finals if f.now in made)
        self.replaced.update((old, types.value(final.whole)) for old, final in zip(olds, finals, strict=True))

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
        return elements, mapping

    def _stacks(
        self, group: set[int], made: set[Value], clock: Clock, body: Substitution
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
            now = body.value(value)
            whole = Value(kept[value].whole.name if value in kept else value.name, now.type.with_dims(over))
            stacks.append(Element(now, whole))
            self.whole.update({value: whole})
            if self.whole.clock_of(value) != clock:
                compressed.append((value, whole))
        return stacks, compressed

    # Outputs

    def _finish_outputs(self) -> None:
        """Says what the loop's old outputs are now."""
        for stack in self.loop.stacks:
            whole = self.whole.of(stack.now)
            over: Dim = stack.clock[-1].dim if stack.clock else self.loop.over
            if over not in whole.type:
                whole = self.whole.apply(Expand((over,)), (whole,), stack.whole.name)
            self.replaced[stack.whole] = whole
        for final in self.loop.finals:
            self.replaced.setdefault(final.whole, self.whole.of(final.now))


def _retyped(final: Element) -> Element:
    return replace(final, whole=Value(final.whole.name, final.now.type))


def same_at_each_step(loop: Loop) -> set[Node]:
    """The nodes whose results no step changes, and no mask: what they are between the ticks of a clock is not read."""
    found: set[Node] = set()
    varying = {element.now for element in loop.elements} | {state.now for state in loop.states}
    for node in loop.body:
        if _is_same_at_each_step(node, loop, varying):
            found.add(node)
        elif node.op.in_loop is not InLoop.WHOLE_AXIS or node.op.gives_each_step_its_own:
            varying.update(node.outputs)
    return found


def _is_same_at_each_step(node: Node, loop: Loop, varying: set[Value]) -> bool:
    if isinstance(node.op, Loop | When | Current) or _differs_by_step(node):
        return False
    if node.op.in_loop is InLoop.RECURRENCE or any(value in varying for value in node.inputs):
        return False
    slower = {mask.dim for mask in node.clock}
    return not any({loop.over, *slower} & set(dim.over) for output in node.outputs for dim in output.type.dims)


def _differs_by_step(vertex: Vertex) -> bool:
    """True for what is not the same at each step even if all it reads is."""
    return isinstance(vertex, State) or vertex.op.fresh


def _can_be_vectorized(op: Op) -> bool:
    """True for what can do all steps at once where it is in no cycle. A recurrence then is none: its state comes from
    elsewhere, anew at each step."""
    if isinstance(op, Loop):
        return op.ending is None and op.back_pointers is None
    if op.in_loop is InLoop.RECURRENCE:
        return not op.state_inputs
    return op.in_loop is not InLoop.BEAM


def _is_whole_axis(vertex: Vertex) -> bool:
    return isinstance(vertex, Node) and vertex.op.in_loop is InLoop.WHOLE_AXIS


def _is_own_recurrence(node: Node, states: Sequence[State]) -> bool:
    """True if the states are just the node's own: each carries one of its state results to the operand of the same
    place."""
    if isinstance(node.op, CumConcatStep) and len(node.inputs) > 3:  # a mask says where it appends: step by step only
        return False
    op = type(node.op)
    pairs = {
        (node.outputs[result], node.inputs[operand])
        for result, operand in zip(op.state_outputs, op.state_inputs, strict=True)
    }
    return {(state.next, state.now) for state in states} == pairs and all(s.clock == node.clock for s in states)
