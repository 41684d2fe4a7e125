"""Search splitting: what neither a choice nor the end of the loop depends on leaves the loop of a search.

A search has to run step by step, as the hypotheses of a step extend those of the step before; but what only reads the
labels that were chosen is the same for the hypotheses that are left in the end. It goes into a loop of its own behind
the search, whose length is known then, and which `distribute_loops` takes apart further.

    label, end, y = loop T {                      label, end = loop T {
      p = softmax(s)                                p = softmax(s)
      label = choose(p)                             label = choose(p)
      e = dot(one_hot(label), W)            →       ...
      h = lstm_step(e, h')                        }
      y = stack(h)                                y = loop T { e = dot(one_hot(label[T]), W); h = lstm_step(e, h') }
    }

A hypothesis's own frames are what its ancestors computed, so that a recurrence over the traced labels gives what the
same recurrence gave in the search, hypotheses reordered in each step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from returnn_lite.ir import Element, Graph, InLoop, Loop, Node, State, Value, loop_node, node_operands
from returnn_lite.ir.ops.elementwise import Elementwise, Select
from returnn_lite.ir.rewrite import Rewriter
from returnn_lite.passes.distribute_loops import same_at_each_step
from returnn_lite.passes.substitution import Substitution

Vertex = Node | State


def split_searches(graph: Graph, only_required: bool = False) -> Graph:
    """The graph with every loop that searches split, with `only_required` those of which a part needs all steps at
    once; unchanged if there is none. Clocks must be guarded."""
    nodes: list[Node] = []
    for node in graph.nodes:
        searches = isinstance(node.op, Loop) and any(inner.op.in_loop is InLoop.BEAM for inner in node.op.body)
        nodes += _split(node, node.op, only_required) if isinstance(node.op, Loop) and searches else [node]
    return replace(graph, nodes=tuple(nodes)) if len(nodes) > len(graph.nodes) else graph


def _split(node: Node, loop: Loop, only_required: bool) -> list[Node]:
    """The search, and behind it the loop of what it does not depend on."""
    search = needed_by_search(loop)
    vertices: tuple[Vertex, ...] = (*loop.body, *loop.states)
    rest = [vertex for vertex in vertices if vertex not in search]
    required = any(isinstance(vertex, Node) and vertex.op.in_loop is InLoop.WHOLE_AXIS for vertex in rest)
    if not rest or (only_required and not required):
        return [node]
    behind = _Behind(loop, search)
    stays = {*(element.now for element in loop.elements), *(state.now for state in loop.states if state in search)}
    stays.update(output for inner in loop.body if inner in search for output in inner.outputs)
    second = behind.loop(stack for stack in loop.stacks if stack.now not in stays)
    first = replace(
        loop,
        states=tuple(state for state in loop.states if state in search),
        stacks=(*(stack for stack in loop.stacks if stack.now in stays), *behind.stacks),
        body=tuple(inner for inner in loop.body if inner in search),
    )
    return [replace(loop_node(part, node.origin), clock=node.clock) for part in (first, second)]


def needed_by_search(loop: Loop) -> set[Vertex]:
    """The nodes and states of a body that its choices, its end and its results after the last step depend on.

    So are random numbers, which are drawn anew in each step, what has no form but step by step, and what reads dims
    that a step of the search makes, whose frames are not kept.
    """
    producer: dict[Value, Vertex] = {output: node for node in loop.body for output in node.outputs}
    producer |= {state.now: state for state in loop.states}
    made = {dim for node in loop.body for dim in node.op.created_dims()}
    wanted = [final.now for final in loop.finals]
    wanted += [loop.ending.ended] if loop.ending is not None else []
    for node in loop.body:
        if node.op.in_loop in (InLoop.BEAM, InLoop.SEQUENTIAL, InLoop.RANDOM):
            wanted += node.outputs
    search = _with_operands(wanted, producer, set())
    while True:
        frames = {value for value, vertex in producer.items() if vertex in search and made & set(value.type.dims)}
        readers = [node for node in loop.body if node not in search and frames & set(node.inputs)]
        if not readers:
            return search
        search = _with_operands([output for node in readers for output in node.outputs], producer, search)


def _with_operands(values: Iterable[Value], producer: dict[Value, Vertex], found: set[Vertex]) -> set[Vertex]:
    """What makes the values, and all that this needs."""
    found, work = set(found), list(values)
    while work:
        vertex = producer.get(work.pop())
        if vertex is not None and vertex not in found:
            found.add(vertex)
            work += [vertex.next] if isinstance(vertex, State) else node_operands(vertex)
    return found


class _Behind:
    """The loop behind a search. `stacks` are what the search must keep for it."""

    def __init__(self, loop: Loop, search: set[Vertex]) -> None:
        self.search = loop
        self.stacks: list[Element] = []
        self.elements: list[Element] = []
        self.body: list[Node] = []
        self._inside = Substitution()
        self._seen: set[Value] = set()
        self._frames = {element.now: element.whole for element in loop.elements}
        self._kept = {element.now: element.whole for element in loop.stacks}
        self._in_search = {vertex.now for vertex in search if isinstance(vertex, State)}
        self._maker = {output: vertex for vertex in search if isinstance(vertex, Node) for output in vertex.outputs}
        self._constant = same_at_each_step(loop)
        for node in loop.body:
            if node not in search:
                self._add(node)
        self.states = tuple(self._state(state) for state in loop.states if state not in search)

    def loop(self, stacks: Iterable[Element]) -> Loop:
        """The loop, which has as many steps as the search."""
        if not self.elements:
            self._frame_of(next(value for value, node in self._maker.items() if node.op.in_loop is InLoop.BEAM))
        stacks = tuple(replace(stack, now=self._inside.value(stack.now)) for stack in stacks)
        return Loop(self.search.over, tuple(self.elements), self.states, stacks, tuple(self.body))

    def _state(self, state: State) -> State:
        self._see(state.next)
        return replace(state, next=self._inside.value(state.next))

    def _add(self, node: Node) -> None:
        for value in node_operands(node):
            self._see(value)
        inside = self._inside.node(node)
        if node.op.in_loop is InLoop.WHOLE_AXIS and self.search.ending is not None:
            inside = self._for_each_hypothesis(inside)
        self.body.append(inside)

    def _for_each_hypothesis(self, node: Node) -> Node:
        """The node with an operand that each hypothesis has: they differ in length, and so in how far it sees."""
        label = next(value for value, maker in self._maker.items() if maker.op.in_loop is InLoop.BEAM)
        self._see(label)
        frame, operand = self._inside.value(label), node.inputs[0]
        always = Elementwise("equal")
        exists = Value(f"{operand.name}@exists", always.type_of(frame.type, frame.type))
        select = Select()
        own = Value(f"{operand.name}@hypothesis", select.type_of(exists.type, operand.type, operand.type))
        self.body.append(Node(always, (frame, frame), (exists,), node.origin))
        self.body.append(Node(select, (exists, operand, operand), (own,), node.origin))
        return replace(node, inputs=(own, *node.inputs[1:]))

    def _see(self, value: Value) -> None:
        """Brings a value that is not of this body into it: what no step changes by computing it here as well."""
        if value in self._seen:
            return
        self._seen.add(value)
        maker = self._maker.get(value)
        if maker is not None and maker in self._constant:
            for operand in maker.inputs:
                self._see(operand)
            copy = Rewriter()
            copy.values.update({operand: self._inside.value(operand) for operand in maker.inputs})
            self.body.append(copy.node(maker))
            self._seen.update(maker.outputs)
            self._inside.replace({output: copy.value(output) for output in maker.outputs})
        elif maker is not None or value in self._in_search or value in self._frames:
            self._frame_of(value)

    def _frame_of(self, value: Value) -> None:
        whole = self._frames.get(value) or self._kept.get(value)
        if whole is None:
            whole = Value(value.name, value.type.with_dims(self.search.over))
            self.stacks.append(Element(value, whole))
        frame = Element(Value(value.name, value.type), whole)
        self.elements.append(frame)
        self._inside.replace({value: frame.now})
