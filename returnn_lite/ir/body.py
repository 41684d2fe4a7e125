"""The body of a loop as a graph: its vertices are nodes and states, its edges what each of them reads.

A state reads what it will be in the next step, so that a cycle of this graph is what has to run step by step.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from functools import cached_property

from returnn_lite.dims import Dim, DimKind
from returnn_lite.ir.components import strongly_connected_components
from returnn_lite.ir.nodes import Loop, Node, Recompute, State, node_operands, walk
from returnn_lite.ir.op import Effect, InLoop, Op
from returnn_lite.ir.ops.recurrence import Recurrence
from returnn_lite.ir.reachability import reachable
from returnn_lite.ir.values import Value

Vertex = Node | State


def operands_of(vertex: Vertex) -> tuple[Value, ...]:
    """What a vertex reads in a step or between steps, the masks of its clock too."""
    if isinstance(vertex, State):
        return (vertex.next, *(mask.value for mask in vertex.clock))
    return node_operands(vertex)


def results_of(vertex: Vertex) -> tuple[Value, ...]:
    """The values that a vertex makes."""
    return (vertex.now,) if isinstance(vertex, State) else vertex.outputs


def results_of_body(loop: Loop) -> tuple[Value, ...]:
    """What a loop reads of its body: what its states are next, what it collects, and what says where it ends."""
    clocks = [part.clock for part in (*loop.elements, *loop.stacks)] + [state.clock for state in loop.states]
    found = [mask.value for clock in clocks for mask in clock]
    found += [state.next for state in loop.states] + [element.now for element in (*loop.stacks, *loop.finals)]
    found += [loop.ending.ended] if loop.ending is not None else []
    found += [loop.search.pointers, loop.search.ended] if loop.search is not None else []
    return (*found, *(value for value, _ in loop.holds))


def producers(nodes: Iterable[Node]) -> dict[Value, Node]:
    """The node that makes each value of one level."""
    return {output: node for node in nodes for output in node.outputs}


def readers(vertices: Iterable[Vertex]) -> dict[Value, list[Vertex]]:
    """The vertices that read each value, in their order, each once."""
    found: dict[Value, list[Vertex]] = {}
    for vertex in vertices:
        for value in dict.fromkeys(operands_of(vertex)):
            found.setdefault(value, []).append(vertex)
    return found


def needs_all_steps(vertex: Vertex) -> bool:
    """True for what can't be done step by step."""
    return isinstance(vertex, Node) and vertex.op.in_loop is InLoop.WHOLE_AXIS


def can_recur(op: Op) -> bool:
    """True for what may be done twice in one place: it has no effect, gives the same again, and says no length."""
    if isinstance(op, Loop | Recompute):
        return not (isinstance(op, Loop) and (op.ending is not None or op.search is not None or op.holds))
    orders = op.in_loop is InLoop.BEAM or op.chosen is not None
    return op.effect is Effect.NONE and not orders and not op.created_dims() and not op.reads_variable


def has_states_only(loop: Loop) -> bool:
    """True for a loop of which each step can be taken again from the states before it, if it may be done twice at all:
    whatever is left of the last step is a state, and nothing has a clock of its own."""
    following = {state.next for state in loop.states}
    clocked = is_clocked(loop) or any(part.clock for part in (*loop.elements, *loop.stacks))
    return not clocked and all(final.now in following for final in loop.finals)


def goes_on_from_states(node: Node, in_loop: bool) -> bool:
    """True for what takes the states that it had, which are among its results, when it is computed again: recurrences
    of primitives that say so, and loops, but in other loops, that stack all their states."""
    op = node.op
    if isinstance(op, Loop):
        stacked = {stack.now for stack in op.stacks}
        return not in_loop and has_states_only(op) and all(state.next in stacked for state in op.states)
    return isinstance(op, Recurrence) and op.step.goes_on_from_states


def searches(loop: Loop) -> bool:
    """True for a loop in whose body hypotheses are ordered."""
    return any(node.op.in_loop is InLoop.BEAM for node in loop.body)


def is_choice(node: Node) -> bool:
    """True for what extends hypotheses and reorders them."""
    return node.op.chosen is not None


def has_order(loop: Loop) -> bool:
    """False for a loop of which no step needs the one before, so that all could be done at once."""
    if loop.states or loop.ending is not None:
        return True
    ops = [node.op for node in walk(loop.body)]
    # One in it that ends itself takes other steps in each of its own.
    ends = any(isinstance(op, Loop) and op.ending is not None for op in ops)
    return ends or any(op.in_loop in (InLoop.RECURRENCE, InLoop.BEAM) for op in ops)


def is_clocked(loop: Loop) -> bool:
    """True for a loop of whose body parts run under masks."""
    vertices: tuple[Vertex, ...] = (*loop.body, *loop.states)
    return any(vertex.clock for vertex in vertices)


def is_invariant(node: Node, over: Dim, varying: Container[Value]) -> bool:
    """True if no step of a loop over `over`, and no mask, changes what a node gives; `varying` are the values that a
    step changes. What a node gives between the ticks of its clock is not read."""
    op = node.op
    if isinstance(op, Loop) or op.fresh or op.in_loop is InLoop.RECURRENCE:
        return False
    if op.in_loop is InLoop.WHOLE_AXIS and op.gives_each_step_its_own:  # there are none around the ends
        return False
    if any(value in varying for value in node.inputs):
        return False
    steps = {over, *(mask.dim for mask in node.clock)}
    return all(steps.isdisjoint(dim.over) for output in node.outputs for dim in output.type.dims)


def is_over_batch(node: Node) -> bool:
    """True if what a node gives for one sequence depends on others."""
    along = node.op.along(*(value.type for value in node.inputs))
    return any(dim.kind is DimKind.BATCH and dim.size is None for dim in along)


def carried(node: Node) -> set[tuple[Value, Value]]:
    """What the own states of a recurrence are next and now: its results, each with the operand of the same place."""
    places = zip(node.op.state_outputs, node.op.state_inputs, strict=True)
    return {(node.outputs[result], node.inputs[operand]) for result, operand in places}


class BodyGraph:
    """The graph of one loop's body. All orders are those of the body, states behind nodes."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.vertices: tuple[Vertex, ...] = (*loop.body, *loop.states)
        self.producer: dict[Value, Vertex] = {value: vertex for vertex in self.vertices for value in results_of(vertex)}
        self.maker: dict[Dim, Node] = {dim: node for node in loop.body for dim in node.op.created_dims()}

    @cached_property
    def index(self) -> dict[Vertex, int]:
        """The place of each vertex."""
        return {vertex: i for i, vertex in enumerate(self.vertices)}

    @cached_property
    def readers(self) -> dict[Value, list[Vertex]]:
        """The vertices that read each value."""
        return readers(self.vertices)

    @cached_property
    def renaming(self) -> dict[Dim, Node]:
        """The dims whose length only a node of the body says, which calls another dim so."""
        found = {new: node for node in self.loop.body for new, _ in node.op.renamed_dims() if new.size is None}
        if not found:
            return found
        loop = self.loop
        outside = (*loop.free_values(), *(one.now for one in loop.elements), *(state.init for state in loop.states))
        known = {dim for value in outside for dim in value.type.dims}
        return {dim: node for dim, node in found.items() if dim not in known}

    def needs(self, vertex: Vertex) -> list[Vertex]:
        """The vertices that make what one reads."""
        return self.makers_of(operands_of(vertex))

    def makers_of(self, values: Iterable[Value]) -> list[Vertex]:
        """The vertices that make values, of those that this body makes."""
        return [self.producer[value] for value in values if value in self.producer]

    def upstream(self, values: Iterable[Value]) -> set[Vertex]:
        """What makes the values, and all that this needs."""
        return set(reachable(self.makers_of(values), self.needs))

    def downstream(self, vertices: Iterable[Vertex]) -> set[Vertex]:
        """The vertices, and all that needs any of them."""
        read = self.readers
        return set(reachable(vertices, lambda v: [other for value in results_of(v) for other in read.get(value, ())]))

    @cached_property
    def cycle(self) -> dict[Vertex, int]:
        """A number for the cycle that a vertex is in, for those that are in one."""
        needed = [[self.index[other] for other in self.needs(vertex)] for vertex in self.vertices]
        found: dict[Vertex, int] = {}
        for number, component in enumerate(strongly_connected_components(needed)):
            if len(component) > 1 or component[0] in needed[component[0]]:
                found.update((self.vertices[i], number) for i in component)
        return found

    @cached_property
    def cyclic(self) -> frozenset[Vertex]:
        """What is in a cycle, or needs something that is."""
        return frozenset(self.downstream(self.cycle))

    @cached_property
    def invariants(self) -> frozenset[Node]:
        """The nodes whose results no step changes, and no mask."""
        found: set[Node] = set()
        varying = {element.now for element in self.loop.elements} | {state.now for state in self.loop.states}
        for node in self.loop.body:
            if is_invariant(node, self.loop.over, varying):
                found.add(node)
            elif node.op.in_loop is not InLoop.WHOLE_AXIS or node.op.gives_each_step_its_own:
                varying.update(node.outputs)
        return frozenset(found)

    def is_invariant(self, value: Value) -> bool:
        """True for what no step changes: what comes from outside, and what is computed of that alone."""
        vertex = self.producer.get(value)
        return vertex in self.invariants if vertex is not None else value not in self._elements

    @cached_property
    def made_anew(self) -> frozenset[Dim]:
        """The dims that are made from what differs from step to step, and those of loops that end themselves.

        Not of what no step changes: such a dim may be said to vary over the steps, but is the same in all.
        """
        if not self.maker:
            return frozenset()
        differing = {element.now for element in self.loop.elements} | {state.now for state in self.loop.states}
        for node in self.loop.body:
            op = node.op
            begins = op.fresh or op.in_loop in (InLoop.RECURRENCE, InLoop.STEP_INDEX) or isinstance(op, Loop)
            if begins or not differing.isdisjoint(node.inputs):
                differing.update(node.outputs)
        return frozenset(dim for dim, node in self.maker.items() if node.outputs[0] in differing)

    @cached_property
    def _elements(self) -> frozenset[Value]:
        return frozenset(element.now for element in self.loop.elements)
