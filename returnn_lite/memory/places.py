"""Where the values of a graph are in memory: which are made at each step of a loop, and which share one array."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from returnn_lite.dims import TensorType
from returnn_lite.ir import Graph, Loop, Node, Recompute, State, Value, walk
from returnn_lite.ir.ops.indexing import Slice
from returnn_lite.ir.ops.sources import Constant, ConstantArray, Parameter
from returnn_lite.memory.sizes import BatchSizes


@dataclass(frozen=True)
class Place:
    """An array, or one for each of `steps` of loops, that a layer makes. One that `is_free` is in memory anyway."""

    type: TensorType
    layer: str
    steps: int
    is_free: bool = False


@dataclass
class Places:
    """The places of values. One that is its operand, or a state of the step before, under another type has that one's.

    A loop copies what it reads frame by frame, and what it reads whole of several dynamic dims, which it transposes.
    """

    sizes: BatchSizes
    own: dict[Value, Place] = field(default_factory=dict)
    _same: dict[Value, Value] = field(default_factory=dict)

    def memory(self, value: Value) -> Value:
        """The value whose array this one is."""
        while value in self._same:
            value = self._same[value]
        return value

    def of(self, value: Value) -> Place:
        """The place of the value whose array this one is."""
        return self.own[self.memory(value)]

    def enter(self, nodes: Iterable[Node], steps: int) -> None:
        """Enters the results of nodes that run `steps` times in all, in dependency order. Raises SizeError."""
        for node in nodes:
            if isinstance(node.op, Loop):
                self._enter_loop(node.op, steps)
                continue
            if isinstance(node.op, Recompute):
                self.enter(node.op.body, steps)
                continue
            is_free = isinstance(node.op, Parameter | Constant | ConstantArray)
            place = Place(node.outputs[0].type, node.origin.layer, steps, is_free)
            for output in node.outputs:
                self.own[output] = Place(output.type, place.layer, steps, is_free)
            if node.op.shares_memory or self._is_part_of_parameter(node):
                self._same[node.outputs[0]] = node.inputs[0]

    def _is_part_of_parameter(self, node: Node) -> bool:
        """Consecutive entries of its first axis are a part of an array's memory."""
        if not isinstance(node.op, Slice) or node.op.step != 1:
            return False
        whole = node.inputs[0]
        return self.of(whole).is_free and whole.type.dims[:1] == (node.op.over,)

    def _enter_loop(self, loop: Loop, steps: int) -> None:
        inner = steps * self.sizes.size(loop.over)
        for element in loop.elements:
            self.own[element.now] = Place(element.now.type, self.of(element.whole).layer, inner)
        for state in loop.states:
            self.own[state.now] = Place(state.now.type, state.origin.layer, inner)
        self.enter(loop.body, inner)
        made = {output for node in walk(loop.body) for output in node.outputs}
        for state in loop.states:
            self._join(state, made)
        for stack in loop.stacks:
            self.own[stack.whole] = Place(stack.whole.type, self.of(stack.now).layer, steps)
        for final in loop.finals:
            self.own[final.whole] = Place(final.whole.type, self.of(final.now).layer, steps)

    def _join(self, state: State, made: set[Value]) -> None:
        """A state is what the step before made, if that made it, and not only handed it on."""
        before = self.memory(state.next)
        if before in made and set(before.type.dims) == set(state.now.type.dims):
            self._same[state.now] = state.next


def input_places(graph: Graph) -> dict[Value, Place]:
    """Data is in memory anyway, but a copy of it if there is padding, which is set to zero."""
    return {
        value: Place(value.type, value.name, 1, is_free=not any(dim.is_ragged for dim in value.type.dims))
        for value in graph.inputs
    }


def is_transposed_in_loops(value: Value) -> bool:
    """Whether a loop that reads it whole makes a copy of another layout."""
    return value.type.batch is not None and sum(dim.is_dynamic for dim in value.type.dims) > 1
