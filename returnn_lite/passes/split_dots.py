"""Products of joined inputs are split where one part can leave the loop and another can't.

    x = concat(a, c); z = dot(x, W)      →      z = add(dot(a, W[:A]), dot(c, W[A:]))

where c is part of a cycle and a is not: then `dot(a, ..)` leaves the loop as one large product. Half of the input
product of an attention decoder's LSTM does, although the attention context can't. RETURNN has nothing like it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from returnn_lite.dims import Dim, Symbol, linear_dim
from returnn_lite.ir import Graph, Loop, Node, Value
from returnn_lite.ir.body import BodyGraph
from returnn_lite.ir.op import Op
from returnn_lite.ir.ops.axes import Relabel
from returnn_lite.ir.ops.contraction import Dot
from returnn_lite.ir.ops.elementwise import Elementwise
from returnn_lite.ir.ops.indexing import Concat, Slice


def split_dots(graph: Graph) -> Graph:
    """The graph with such products split, in loops of known length whose steps are not tied together by a search."""
    nodes = tuple(_in_loop(node) for node in graph.nodes)
    return replace(graph, nodes=nodes)


def _in_loop(node: Node) -> Node:
    loop = node.op
    if not isinstance(loop, Loop) or loop.ending is not None or loop.search is not None:
        return node
    graph = BodyGraph(loop)
    body: list[Node] = []
    for inner in loop.body:
        concat = graph.producer.get(inner.inputs[0]) if isinstance(inner.op, Dot) else None
        if not isinstance(concat, Node) or not _is_splittable(inner, concat, graph):
            body.append(inner)
            continue
        bound = [graph.producer.get(value) in graph.cyclic for value in concat.inputs]
        body += _Split(inner, concat, bound).nodes() if any(bound) and not all(bound) else [inner]
    return node if len(body) == len(loop.body) else node.with_loop(replace(loop, body=tuple(body)))


def _is_splittable(dot: Node, concat: Node, body: BodyGraph) -> bool:
    """True for the product of a concatenation along the only dim that it sums, with an invariant.

    The parts are static: those of dynamic dims stand elsewhere in each sequence, so that no slice of the invariant is
    one of them.
    """
    assert isinstance(dot.op, Dot)
    if not isinstance(concat.op, Concat) or dot.op.over != (concat.op.out,):
        return False
    is_static = all(dim.size is not None for dim in concat.op.dims)
    return is_static and concat.clock == dot.clock and body.is_invariant(dot.inputs[1])


@dataclass(frozen=True)
class _Part:
    """Neighbouring operands of the concatenation that leave, or stay, together."""

    values: tuple[Value, ...]
    dims: tuple[Dim, ...]
    start: int


class _Split:
    """The nodes that stand for one product."""

    def __init__(self, dot: Node, concat: Node, bound: Sequence[bool]) -> None:
        self.dot = dot
        self.concat = concat
        self.bound = bound
        self._made: list[Node] = []

    def nodes(self) -> list[Node]:
        """A slice of the weights and a product for each part, and their sum under the old output."""
        products = [self._product(part, number) for number, part in enumerate(self._parts())]
        total = products[0]
        for number, product in enumerate(products[1:], 1):
            last = number == len(products) - 1
            total = self._emit(Elementwise("add"), (total, product), f"sum{number}", self.dot.output if last else None)
        return self._made

    def _parts(self) -> list[_Part]:
        op = self.concat.op
        assert isinstance(op, Concat)
        parts: list[_Part] = []
        start = 0
        operands = zip(self.bound, self.concat.inputs, op.dims, strict=True)
        for _, group in groupby(operands, key=lambda operand: operand[0]):
            members = list(group)
            dims = tuple(dim for _, _, dim in members)
            parts.append(_Part(tuple(value for _, value, _ in members), dims, start))
            start += sum(dim.size or 0 for dim in dims)
        return parts

    def _product(self, part: _Part, number: int) -> Value:
        op = self.concat.op
        assert isinstance(op, Concat)
        out = linear_dim([(dim, 1) for dim in part.dims], 0)
        joined = part.values[0]
        if len(part.values) > 1:
            joined = self._emit(Concat(part.dims, out), part.values, f"part{number}")
        if out in self.dot.inputs[1].type:
            rows: Dim = Symbol(f"{out.name}'", out.kind, out.size)
            joined = self._emit(Relabel(out, rows), (joined,), f"renamed{number}")
            out = rows
        weights = self._emit(Slice(op.out, out, part.start), (self.dot.inputs[1],), f"weights{number}")
        return self._emit(Dot((out,)), (joined, weights), f"product{number}")

    def _emit(self, op: Op, inputs: tuple[Value, ...], name: str, output: Value | None = None) -> Value:
        type_ = op.output_types(tuple(value.type for value in inputs))[0]
        result = output if output is not None else Value(f"{self.dot.output.name}@{name}", type_)
        self._made.append(Node(op, inputs, (result,), self.dot.origin, self.dot.clock))
        return result
