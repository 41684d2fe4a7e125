"""What numbers the entries of a dim must be one of them: such operands are checked, of whole sequences.

    y = loop T { a = gather(w, i[t], V); stack(a) }     →     the same; check_index(i, V)

Outside of its loop an operand is checked only where it matters: at the steps that a sequence has, of the hypotheses
that are left in the end. What is under a mask is held where that is not true, 0 at first. What is in range by itself
needs no check: the place of the largest, or labels of data, which `ir/batches` looks at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from returnn_lite.dims import Dim
from returnn_lite.ir import Clock, Element, Graph, Loop, Node, Origin, Value, walk
from returnn_lite.ir.ops.elementwise import AsIndex
from returnn_lite.ir.ops.indexing import CheckIndex
from returnn_lite.ir.ops.sources import Constant


def index_checks(graph: Graph) -> Graph:
    """The graph with checks of the indices that its primitives read."""
    indexed = [node for node in walk(graph.nodes) if node.op.indices()]
    if not indexed:
        return graph
    known = _KnownRanges(graph)
    wanted = {node: tuple(needs for needs in node.op.indices() if not known.has(node, needs)) for node in indexed}
    nodes: list[Node] = []
    checks: list[Value] = []
    for node, unchecked in _checked(graph.nodes, wanted, set()):
        nodes.append(node)
        for check in unchecked:
            nodes.append(check.node())
            checks.append(nodes[-1].output)
    return replace(graph, nodes=tuple(nodes), checks=(*graph.checks, *checks))


Needs = tuple[int, Dim, int | None]
"""The position of an operand, the dim whose entries it must number, and the entry that it must not be."""


@dataclass(frozen=True)
class _Check:
    """What must hold of a value, at the frames of a clock. `name` tells it from others."""

    index: Value
    op: CheckIndex
    origin: Origin
    clock: Clock
    name: str

    def node(self) -> Node:
        """The check, outside of all loops."""
        return Node(self.op, (self.index,), (Value(self.name, self.index.type),), self.origin)


def _checked(
    nodes: Iterable[Node], wanted: Mapping[Node, tuple[Needs, ...]], created: set[Dim]
) -> Iterator[tuple[Node, list[_Check]]]:
    """Each node, of a loop with what is to be checked of its steps as stacks; and the checks that it leaves to what is
    around. `created` are the dims that each step makes anew, which have no meaning there."""
    for node in nodes:
        if isinstance(node.op, Loop):
            yield _checked_loop(node, node.op, wanted)
            continue
        checks = []
        for i, over, but in wanted.get(node, ()):
            if created.isdisjoint(dim for each in (over, *node.inputs[i].type.dims) for dim in each.leaves):
                name = f"{node.outputs[0].name}:checked{i}"
                checks.append(_Check(node.inputs[i], CheckIndex(over, but), node.origin, node.clock, name))
        yield node, checks


def _checked_loop(node: Node, loop: Loop, wanted: Mapping[Node, tuple[Needs, ...]]) -> tuple[Node, list[_Check]]:
    body: list[Node] = []
    stacks: list[Element] = []
    outside: list[_Check] = []
    created = {dim for inner in walk(loop.body) for dim in inner.op.created_dims()}
    for inner, checks in _checked(loop.body, wanted, created):
        body.append(inner)
        for check in checks:
            type_ = check.index.type
            now, whole = Value(f"{check.name}:now", type_), Value(f"{check.name}:index", type_.with_dims(loop.over))
            body.append(Node(AsIndex(type_.sparse), (check.index,), (now,), check.origin, check.clock))
            stacks.append(Element(now, whole))
            op = replace(check.op, held=check.op.held or bool(check.clock))
            outside.append(_Check(whole, op, check.origin, node.clock, f"{check.name}:{loop.over.name}"))
    if not stacks:
        return node, outside
    return node.with_loop(replace(loop, body=tuple(body), stacks=(*loop.stacks, *stacks))), outside


@dataclass
class _KnownRanges:
    """Which values are in range whatever the data."""

    graph: Graph
    _sources: dict[Value, tuple[Value, ...]] = field(default_factory=dict)
    """Of what loops hand on: what it may be."""
    _makers: dict[Value, Node] = field(default_factory=dict)
    _found: dict[tuple[Value, Dim, int | None], bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in walk(self.graph.nodes):
            self._makers.update(dict.fromkeys(node.outputs, node))
            if isinstance(node.op, Loop):
                loop = node.op
                self._sources.update((element.now, (element.whole,)) for element in loop.elements)
                self._sources.update((state.now, (state.init, state.next)) for state in loop.states)
                self._sources.update((result.whole, (result.now,)) for result in (*loop.stacks, *loop.finals))

    def has(self, node: Node, needs: Needs) -> bool:
        """True if an operand is as needed: each of its entries comes from where that is known."""
        position, over, but = needs
        index = node.inputs[position]
        seen, waiting = {index}, [index]
        while waiting:
            value = waiting.pop()
            known = self._found.get((value, over, but))
            if known:
                continue
            sources = None if known is False else self._sources_of(value, over, but)
            if sources is None:
                self._found[index, over, but] = False
                return False
            waiting += [source for source in sources if source not in seen]
            seen.update(sources)
        self._found.update(dict.fromkeys(((value, over, but) for value in seen), True))
        return True

    def _sources_of(self, value: Value, over: Dim, but: int | None) -> tuple[Value, ...] | None:
        """The values that a value's entries come from, as far as they are to be looked at; None if it is computed."""
        if value in self._sources:
            return self._sources[value]
        if value not in self._makers:  # data, of which labels are looked at before they are run with
            return () if value.type.sparse is not None and _within(value.type.sparse, over, but) else None
        node = self._makers[value]
        if isinstance(node.op, Constant):
            return () if over.size is not None and 0 <= node.op.value < over.size and node.op.value != but else None
        for position, attribute in node.op.numbers:
            if value is node.outputs[position] and _within(getattr(node.op, attribute), over, but):
                return ()
        return tuple(node.inputs[i] for i in node.op.picks_from if i < len(node.inputs)) or None


def _within(dim: Dim, over: Dim, but: int | None) -> bool:
    """True if what numbers entries of one dim numbers entries of another, and never that one."""
    if dim.size is None or over.size is None:
        return dim == over and but is None
    return dim.size <= over.size and (but is None or but >= dim.size)
