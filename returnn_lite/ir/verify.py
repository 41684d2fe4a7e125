"""What always holds of a graph: checked after every pass, so that an error of the compiler shows where it was made."""

from __future__ import annotations

from collections.abc import Iterable

from returnn_lite.dims import DimError
from returnn_lite.ir.graph import Element, Graph, Loop, Node, Value, node_operands, stack_dim, text_of


class InternalError(Exception):
    """An error of the compiler itself, not of a config. The message has the IR around the node."""


def verify(graph: Graph, after: str, typed: set[Node] | None = None) -> Graph:
    """The graph, if values are bound once and before they are read, and every type is what its node's rule gives.

    `after` says which pass made the graph. `typed` are nodes whose types are known to be right, as they were in an
    earlier graph; this graph's are added. Raises InternalError.
    """
    _Verifier(after, set() if typed is None else typed).level(graph.nodes, graph.inputs, graph.results())
    return graph


class _Verifier:
    def __init__(self, after: str, typed: set[Node]) -> None:
        self.after = after
        self.typed = typed

    def level(self, nodes: Iterable[Node], bound: Iterable[Value], results: Iterable[Value]) -> None:
        """One level of nodes, with what may be read there and what must be bound in the end."""
        known = set(bound)
        nodes = tuple(nodes)
        for node in nodes:
            for value in node_operands(node):
                if value not in known:
                    self._fail(f"{value.name} is read before it is bound", node)
            if node not in self.typed:
                self._types(node)
                self.typed.add(node)
            if isinstance(node.op, Loop):
                self._loop(node, node.op, known)
            for output in node.outputs:
                if output in known:
                    self._fail(f"{output.name} is bound twice", node)
                known.add(output)
        for value in results:
            if value not in known:
                raise InternalError(f"after {self.after}: the result {value.name} is not bound")

    def _types(self, node: Node) -> None:
        try:
            types = node.op.output_types(tuple(value.type for value in node.inputs))
        except DimError as error:
            self._fail(str(error), node)
        if types != tuple(output.type for output in node.outputs):
            self._fail(f"its rule gives {', '.join(map(str, types))}", node)

    def _loop(self, node: Node, loop: Loop, known: set[Value]) -> None:
        if set(node.inputs) != set(loop.operands()):
            names = ", ".join(sorted(value.name for value in set(node.inputs) ^ set(loop.operands())))
            self._fail(f"its inputs differ from what the loop reads: {names}", node)
        for element in loop.elements:
            self._element(node, loop, element)
        for state in loop.states:
            for value, what in ((state.next, "next value"), (state.init, "initial value")):
                if value.type.dtype != state.now.type.dtype:
                    self._fail(f"the {what} {value!r} does not fit the state {state.now!r}", node)
            if not set(state.next.type.dims) <= set(state.now.type.dims):
                self._fail(f"the next value {state.next!r} has more dims than the state {state.now!r}", node)
        bound = {*known, *(e.now for e in loop.elements), *(s.now for s in loop.states)}
        results = [state.next for state in loop.states] + [e.now for e in (*loop.stacks, *loop.finals)]
        results += [loop.ending.ended] if loop.ending is not None else []
        results += [loop.back_pointers] if loop.back_pointers is not None else []
        self.level(loop.body, bound, results)

    def _element(self, node: Node, loop: Loop, element: Element) -> None:
        over = stack_dim(loop, element)
        if over not in element.whole.type or set(element.now.type.dims) != set(element.whole.type.dims) - {over}:
            self._fail(f"{element.now!r} is no frame of {element.whole!r} along {over}", node)

    def _fail(self, message: str, node: Node) -> None:
        text = "\n".join(text_of([node], "  "))
        where = f" ({node.origin.layer}, {node.origin.position})" if node.origin.layer else ""
        raise InternalError(f"after {self.after}: {message}{where}:\n{text}")
