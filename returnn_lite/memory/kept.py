"""What a train step keeps for its backward pass."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from returnn_lite.ir import Graph, Loop, Node, Value
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


def kept_arrays(graph: Graph, sizes: BatchSizes, target: str = "objective") -> list[KeptArray]:
    """All that the gradient of a scalar output needs of the forward pass. Raises SizeError.

    Parameters are not among it, and data only where it has padding, which is set to zero in a copy.
    """
    places = Places(sizes, input_places(graph))
    places.enter(graph.nodes, 1)
    finder = _Finder(places, values_with_gradient(graph.nodes, graph.outputs[target]))
    finder.nodes(graph.nodes, 1)
    return list(finder.found.values())


@dataclass
class _Finder:
    """Collects what is kept, each array once."""

    places: Places
    with_gradient: frozenset[Value]
    found: dict[Hashable, KeptArray] = field(default_factory=dict)

    def nodes(self, nodes: Iterable[Node], steps: int, loop: Loop | None = None) -> None:
        """Goes through nodes that run `steps` times in all, of a graph or in a loop's body."""
        for node in nodes:
            if isinstance(node.op, Loop):
                self._loop(node.op, steps)
                continue
            wanted = {i for i in differentiated(node) if node.inputs[i] in self.with_gradient}
            if not wanted or not any(output in self.with_gradient for output in node.outputs):
                continue
            kept = node.op.kept_for_gradient(tuple(x.type for x in node.inputs), wanted)
            for value in (*(node.inputs[i] for i in kept.operands), *(node.outputs[i] for i in kept.results)):
                self._keep(value, loop)
            for number, type_ in enumerate(kept.inner):
                self._add((node, number), f"{node.outputs[0].name} inside", Place(type_, node.origin.layer, steps))

    def _loop(self, loop: Loop, steps: int) -> None:
        self.nodes(loop.body, steps * self.places.sizes.size(loop.over), loop)
        # The gradients of what is read, or left, at each step are made as arrays like it.
        for value in (*(e.now for e in loop.elements), *(s.now for s in loop.stacks), *loop.free_values()):
            if value in self.with_gradient:
                self._keep(value, loop)

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
