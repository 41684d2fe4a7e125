"""What a train step keeps for its backward pass, and what it computes."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass, field

from returnn_lite.ir import Graph, Loop, Node, Recompute, Value, computed_once, walk
from returnn_lite.ir.body import goes_on_from_states
from returnn_lite.ir.kept import WORTHWHILE, Kept, width
from returnn_lite.memory.gradients import differentiated, values_with_gradient
from returnn_lite.memory.places import Place, Places, input_places, is_transposed_in_loops
from returnn_lite.memory.sizes import BatchSizes


@dataclass(frozen=True)
class KeptArray:
    """An array that is in memory when the backward pass begins, or one for each of `steps` of loops; its bytes are of
    all steps. `layer` is the path of the layer that makes it."""

    what: str
    layer: str
    steps: int
    bytes: int


@dataclass(frozen=True)
class TrainStep:
    """What is kept, and how many multiply-adds of products there are in both passes, and in what is computed again."""

    arrays: tuple[KeptArray, ...]
    products: int
    again: int

    @property
    def bytes(self) -> int:
        return sum(array.bytes for array in self.arrays)


def train_step(graph: Graph, sizes: BatchSizes, target: str = "objective") -> TrainStep:
    """All that the gradient of a scalar output needs of the forward pass. Raises SizeError.

    Parameters are not among it, and data only where it has padding, which is set to zero in a copy.
    """
    places = Places(sizes, input_places(graph))
    places.enter(graph.nodes, 1)
    with_gradient = values_with_gradient(computed_once(graph.nodes), graph.outputs[target])
    finder = _Finder(places, with_gradient, frozenset(graph.inputs))
    finder.nodes(graph.nodes, 1)
    return TrainStep(tuple(finder.found.values()), finder.products, finder.again)


@dataclass
class _Finder:
    """Collects what is kept, each array once, and counts multiply-adds."""

    places: Places
    with_gradient: frozenset[Value]
    inputs: frozenset[Value]
    found: dict[Hashable, KeptArray] = field(default_factory=dict)
    products: int = 0
    again: int = 0

    def nodes(self, nodes: Iterable[Node], steps: int, loop: Loop | None = None) -> None:
        """Goes through nodes that run `steps` times in all, of a graph or in a loop's body."""
        for node in nodes:
            if isinstance(node.op, Loop):
                self._loop(node.op, steps)
            elif isinstance(node.op, Recompute):
                self._group(node.op, steps, loop)
            else:
                self._node(node, steps, loop)

    def _node(self, node: Node, steps: int, loop: Loop | None) -> None:
        self._count(node, steps)
        kept = self._needed(node)
        if kept is None:
            return
        for value in _values(node, kept):
            self._keep(value, loop)
        for number, type_ in enumerate(kept.inner):
            self._add((node, number), f"{node.outputs[0].name} inside", Place(type_, node.origin.layer, steps))

    def _count(self, node: Node, steps: int) -> None:
        """Adds what both passes multiply: for the gradient of each operand of a product as much as forwards."""
        self.products += self._multiplied(node, steps) * (1 + min(len(self._wanted(node)), 2))

    def _multiplied(self, node: Node, steps: int) -> int:
        products = node.op.products(tuple(x.type for x in node.inputs))
        return steps * sum(map(self.places.sizes.count, products))

    def _wanted(self, node: Node) -> set[int]:
        """The operands whose gradients are computed."""
        if not any(output in self.with_gradient for output in node.outputs):
            return set()
        return {i for i in differentiated(node) if node.inputs[i] in self.with_gradient}

    def _needed(self, node: Node) -> Kept | None:
        """What the gradient of a node needs; None if it has none."""
        wanted = self._wanted(node)
        return node.op.kept_for_gradient(tuple(x.type for x in node.inputs), wanted) if wanted else None

    def _loop(self, loop: Loop, steps: int) -> None:
        self.nodes(loop.body, steps * self.places.sizes.size(loop.over), loop)
        # The gradients of what is read, or left, at each step are made as arrays like it.
        for value in (*(e.now for e in loop.elements), *(s.now for s in loop.stacks), *loop.free_values()):
            if value in self.with_gradient:
                self._keep(value, loop)

    def _group(self, group: Recompute, steps: int, loop: Loop | None) -> None:
        """Of what is computed again its operands are kept, as far as the gradients inside depend on them (those that
        get one for their shapes), and the states of recurrences that go on from these. The copy of data is made again,
        outside of loops."""
        for node, own in _with_steps(group.body, steps, self.places):
            self._count(node, own)
        maker = {output: node for node in group.body for output in node.outputs}
        pending = [value for value in group.operands() if value in self.with_gradient]
        repeated: set[Node] = set()
        for node in group.body:
            if loop is not None:
                self._keep_factors(node, loop)
            if any(inner for inner in walk([node]) if not isinstance(inner.op, Loop) and self._needed(inner)):
                pending += self._needs_again(node, repeated, loop)
        seen: set[Value] = set()
        while pending:
            value = pending.pop()
            if value in seen:
                continue
            seen.add(value)
            made_by = maker.get(value)
            if loop is None and value in self.inputs:
                continue
            if made_by is None or goes_on_from_states(made_by, loop is not None):
                self._keep(value, loop)
            else:
                repeated.add(made_by)
                pending += made_by.inputs
        self.again += sum(self._multiplied(node, own) for node, own in _with_steps(repeated, steps, self.places))

    def _keep_factors(self, node: Node, loop: Loop) -> None:
        """The gradient of a product with a large factor from around the loop has that transposed, once for all
        steps."""
        if not node.op.products(tuple(x.type for x in node.inputs)):
            return
        for i, x in enumerate(node.inputs):
            if x in loop.free_values() and width(x.type.dims) >= WORTHWHILE and self._wanted(node) - {i}:
                place = self.places.of(x)
                self._add((x, loop, "factor"), f"{x.name} transposed", Place(x.type, place.layer, place.steps))

    def _needs_again(self, node: Node, repeated: set[Node], loop: Loop | None) -> Collection[Value]:
        """The values that what the gradient of a node needs is computed from. It is one of `repeated` if that is more
        than its operands."""
        kept = None if isinstance(node.op, Loop) else self._needed(node)
        if kept is None or kept.inner:
            repeated.add(node)
            return (*node.inputs, *_states(node, loop))
        return _values(node, kept)

    def _keep(self, value: Value, loop: Loop | None) -> None:
        """The value's array; of one from outside of a loop that the loop transposes, its copy."""
        if loop is not None and value in loop.free_values() and is_transposed_in_loops(value):
            place = self.places.of(value)
            self._add((value, loop), f"{value.name} transposed", Place(value.type, place.layer, place.steps))
            return
        value = self.places.memory(value)
        self._add(value, value.name, self.places.own[value])

    def _add(self, key: Hashable, what: str, place: Place) -> None:
        if key not in self.found and not place.is_free:
            size = self.places.sizes.bytes_of(place.type) * place.steps
            self.found[key] = KeptArray(what, place.layer, place.steps, size)


def _values(node: Node, kept: Kept) -> list[Value]:
    return [*(node.inputs[i] for i in kept.operands), *(node.outputs[i] for i in kept.results)]


def _states(node: Node, loop: Loop | None) -> Collection[Value]:
    """Those that a node, in a loop or in none, goes on from when it is computed again."""
    if not goes_on_from_states(node, loop is not None):
        return ()
    if not isinstance(node.op, Loop):
        return node.outputs
    following = {state.next for state in node.op.states}
    return [stack.whole for stack in node.op.stacks if stack.now in following]


def _with_steps(nodes: Iterable[Node], steps: int, places: Places) -> Iterable[tuple[Node, int]]:
    """The nodes, those in loops in place of these, with how often each runs."""
    for node in nodes:
        if isinstance(node.op, Loop):
            yield from _with_steps(node.op.body, steps * places.sizes.size(node.op.over), places)
        else:
            yield node, steps
