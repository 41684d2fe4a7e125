"""Rebuilds graphs: types inferred again, values renamed, values replaced. All pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from returnn_lite.dims import Dim, DimError, TensorType
from returnn_lite.ir.graph import Graph
from returnn_lite.ir.nodes import Element, Ending, Loop, Node, Recompute, Search, State, loop_node, recompute_node
from returnn_lite.ir.op import Op
from returnn_lite.ir.values import Clock, Mask, Origin, Value


class RetypeError(DimError):
    """A node whose inputs no longer fit it: the dims that states have in the end are more than it was built for."""

    def __init__(self, message: str, origin: Origin) -> None:
        super().__init__(message)
        self.origin = origin


class Rewriter:
    """Copies nodes with values replaced, dims substituted, and types inferred again from the inputs.

    One object serves one graph: `values` maps each old value to its copy. With `in_place` the old graph is not needed
    any more, and its nodes have the types of their rules: what nothing changes stays the same object, and types are
    inferred where those of the inputs change.
    """

    def __init__(
        self,
        dims: Mapping[Dim, Dim] | None = None,
        layers: Mapping[Value, str] | None = None,
        *,
        in_place: bool = False,
    ) -> None:
        self.dims = dims or {}
        self.layers = layers or {}
        self.in_place = in_place
        self.values: dict[Value, Value] = {}
        self._masks: dict[tuple[Mask, Value], Mask] = {}

    def graph(self, graph: Graph) -> Graph:
        """The copy of a graph."""
        inputs = tuple(self._input(value) for value in graph.inputs)
        nodes = tuple(self.node(node) for node in graph.nodes)
        outputs = {name: self.value(value) for name, value in graph.outputs.items()}
        checks = tuple(self.value(value) for value in graph.checks)
        return replace(graph, inputs=inputs, nodes=nodes, outputs=outputs, checks=checks)

    def _input(self, old: Value) -> Value:
        """The copy of an input, whose name is a data key also where a layer passes it on."""
        copy = self.bind(old, old.type.substitute(self.dims))
        if copy.name != old.name:
            copy = self.values[old] = Value(old.name, copy.type, copy.layer)
        return copy

    def value(self, old: Value) -> Value:
        """The copy of a value; values from outside of what is copied stay."""
        return self.values.get(old, old)

    def bind(self, old: Value, type_: TensorType) -> Value:
        """Makes the copy of a value with a type."""
        if self.in_place and old.type.is_same(type_) and old not in self.layers:
            self.values.pop(old, None)
            return old
        layer = self.layers.get(old)
        new = old.of_type(type_) if layer is None else Value(layer, type_, layer)
        self.values[old] = new
        return new

    def clock(self, clock: Clock) -> Clock:
        """A clock with its masks' values replaced. The same mask gives the same copy; itself if nothing changes."""
        return tuple([self._mask(mask) for mask in clock]) if clock else clock

    def _mask(self, mask: Mask) -> Mask:
        value = self.value(mask.value)
        if (mask, value) not in self._masks:
            same = value is mask.value and not self.dims
            self._masks[mask, value] = mask if same else Mask(value, mask.dim.substitute(self.dims))
        return self._masks[mask, value]

    def node(self, node: Node) -> Node:
        """The copy of a node, bound to new outputs."""
        if isinstance(node.op, Loop):
            return self._loop_node(node, node.op)
        if isinstance(node.op, Recompute):
            body = tuple([self.node(inner) for inner in node.op.body])
            return recompute_node(body, tuple([self.value(value) for value in node.op.results]), node.origin)
        op = node.op.substitute(self.dims) if self.dims else node.op
        inputs = tuple([self.values.get(value, value) for value in node.inputs])
        types = self._types(node, op, inputs)
        outputs = tuple([self.bind(old, type_) for old, type_ in zip(node.outputs, types, strict=True)])
        clock = self.clock(node.clock)
        if self.in_place and op is node.op and (inputs, outputs, clock) == (node.inputs, node.outputs, node.clock):
            return node
        return Node(op, inputs, outputs, node.origin, clock)

    def _types(self, node: Node, op: Op, inputs: tuple[Value, ...]) -> Iterable[TensorType]:
        """The types of the results of a node's copy."""
        if self.in_place and op is node.op and _have_same_types(inputs, node.inputs):
            return (output.type for output in node.outputs)
        try:
            return op.output_types(tuple([value.type for value in inputs]))
        except DimError as error:
            raise RetypeError(str(error), node.origin) from error

    def _loop_node(self, node: Node, loop: Loop) -> Node:
        over = loop.over.substitute(self.dims)
        elements = []
        for element in loop.elements:
            whole = self.value(element.whole)
            along = element.clock[-1].dim.substitute(self.dims) if element.clock else over
            elements.append((element, self.bind(element.now, whole.type.without(along)), whole))
        body = self._settled_body(loop)
        stacks = [self._stack(stack, over) for stack in loop.stacks]
        finals = [Element(self.value(f.now), self.bind(f.whole, self.value(f.now).type)) for f in loop.finals]
        ending = loop.ending
        if ending is not None:
            ending = Ending(self.value(ending.ended), self.value(ending.max_steps), ending.include_end)
        search = loop.search
        if search is not None:
            search = Search(self.value(search.pointers), self.value(search.ended))
        copy = Loop(
            over,
            tuple(Element(now, whole, self.clock(element.clock)) for element, now, whole in elements),
            tuple(
                replace(
                    s,
                    now=self.value(s.now),
                    init=self.value(s.init),
                    next=self.value(s.next),
                    clock=self.clock(s.clock),
                )
                for s in loop.states
            ),
            tuple(stacks),
            body,
            tuple(finals),
            ending,
            search,
            tuple((self.value(value), self.value(init)) for value, init in loop.holds),
            loop.unroll,
        )
        return loop_node(copy, node.origin, self.clock(node.clock))

    def _stack(self, stack: Element, over: Dim) -> Element:
        now = self.value(stack.now)
        clock = self.clock(stack.clock)
        whole = self.bind(stack.whole, now.type.with_dims(clock[-1].dim if clock else over))
        return Element(now, whole, clock)

    def _settled_body(self, loop: Loop) -> tuple[Node, ...]:
        """The body with the types of its states solved: the least that holds the initial value's dims and the next
        one's.

        A state's dims can only grow from round to round, so this ends.
        """
        types = {state: self._first_type(state) for state in loop.states}
        while True:
            for state, type_ in types.items():
                self.bind(state.now, type_)
            body = tuple(self.node(node) for node in loop.body)
            grown = {state: type_.with_dims(*self.value(state.next).type.dims) for state, type_ in types.items()}
            if all(set(grown[state].dims) == set(types[state].dims) for state in loop.states):
                return body
            types = grown

    def _first_type(self, state: State) -> TensorType:
        return state.now.type.substitute(self.dims).with_dims(*self.value(state.init).type.dims)


def _have_same_types(values: Iterable[Value], others: Iterable[Value]) -> bool:
    return all(value is other or value.type.is_same(other.type) for value, other in zip(values, others, strict=True))


def retype(graph: Graph, dims: Mapping[Dim, Dim] | None = None) -> Graph:
    """The graph with dims substituted and all types inferred again, states solved to their least fixpoint."""
    return Rewriter(dims).graph(graph)
