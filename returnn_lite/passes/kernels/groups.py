"""Recurrences that one kernel runs together: both directions of a source, and the layers of a stack.

forward = lstm(dot(x, W) + b, ..); backward = lstm(dot(x, V) + c, .., reverse)    # one layer
y = concat(forward, backward); above = lstm(dot(y, U) + d, ..)    # the next one, if nobody else reads y
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from returnn_lite.ir import Node, Value, node_operands
from returnn_lite.ir.ops.axes import Relabel
from returnn_lite.ir.ops.indexing import Concat
from returnn_lite.ir.reachability import reachable
from returnn_lite.passes.kernels.candidates import Candidate, Surroundings

Layer = tuple[Candidate, ...]


@dataclass(frozen=True, eq=False)
class Group:
    """The layers of one kernel, each with one direction or both, forwards first."""

    layers: tuple[Layer, ...]

    @property
    def members(self) -> tuple[Candidate, ...]:
        return tuple(member for layer in self.layers for member in layer)


def groups_of(candidates: Sequence[Candidate], around: Surroundings) -> list[Group]:
    """All candidates, each in one group."""
    joined = _joined(around)
    stacks: list[_Stack] = []
    on_top: dict[tuple[Value, ...], _Stack] = {}  # by the outputs of its last layer
    for layer in _layers(candidates, around):
        below = joined.get(layer[0].product.x, (layer[0].product.x,))
        stack = on_top.get(below)
        if stack is None or not stack.takes(layer, around):
            stack = _Stack()
            stacks.append(stack)
        stack.add(layer, around)
        on_top[tuple(member.outputs[0] for member in layer)] = stack
    return [Group(tuple(stack.layers)) for stack in stacks]


def _layers(candidates: Sequence[Candidate], around: Surroundings) -> list[Layer]:
    """Each candidate, with that of the other direction if there is one; of one network layer where several could be."""
    found: dict[Candidate, Layer] = {}
    for of_one_layer in (True, False):
        backwards: defaultdict[tuple[object, ...], deque[Candidate]] = defaultdict(deque)
        single = [one for one in candidates if one not in found]
        for one in single:
            if one.op.reverse:
                backwards[_key(one, of_one_layer)].append(one)
        for one in single:
            others = backwards[_key(one, of_one_layer)] if not one.op.reverse else deque()
            other = next((other for other in others if _is_layer((one, other), around)), None)
            if other is not None:
                others.remove(other)
                found[one] = found[other] = (one, other)
    return list(dict.fromkeys(found.get(one, (one,)) for one in candidates))


def _key(one: Candidate, of_one_layer: bool) -> tuple[object, ...]:
    """The same for those that read the same and that one kernel can run, if wanted of one network layer only."""
    return (one.product.x, one.product.source, *_kind(one), one.node.origin.layer if of_one_layer else None)


def _kind(one: Candidate) -> tuple[object, ...]:
    """The kind, size and place of a candidate, and its frames."""
    return (one.kind.mode, one.hidden.size, one.node.origin.device, one.op.over)


def _is_layer(layer: Layer, around: Surroundings) -> bool:
    """Whether no direction needs the other one, and both are computed for the same sequences."""
    alone = _Stack()
    alone.add(layer, around)
    return _have_sequences_of(layer[0], layer) and alone.upstream(layer, around) is not None


def _have_sequences_of(first: Candidate, members: Iterable[Candidate]) -> bool:
    """Whether the states of all are of no more sequences than there are of the source of one."""
    of_source = set(first.product.x.type.dims)
    return all({*of_source, one.hidden}.issuperset(state.type.dims) for one in members for state in one.states)


class _Stack:
    """A group that grows: layers, each of which reads what that below gives."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self._members: set[Node] = set()
        self._first = 0
        self._upstream: set[Node] = set()

    def add(self, layer: Layer, around: Surroundings) -> None:
        """Puts a layer on top."""
        if not self.layers:
            self._first = min(around.positions[member.node] for member in layer)
        self.layers.append(layer)
        self._members.update(member.node for member in layer)

    def takes(self, layer: Layer, around: Surroundings) -> bool:
        """Whether a layer that reads what the last one gives can be the next."""
        top, first = self.layers[-1], self.layers[0][0]
        if not _is_next(top, layer, around) or not _have_sequences_of(first, (*top, *layer)):
            return False
        found = self.upstream(layer, around)
        self._upstream.update(found or ())
        return found is not None

    def upstream(self, layer: Layer, around: Surroundings) -> list[Node] | None:
        """What weights and states of a layer need that has not been looked at; None if a member is under it.

        The source of the first layer needs no member, which all come after it; so only nodes behind the first do.
        """

        def makers(values: Iterable[Value]) -> list[Node]:
            nodes = [around.makers[value] for value in values if value in around.makers]
            return [node for node in nodes if around.positions[node] >= self._first and node not in self._upstream]

        found = []
        operands = [value for member in layer for value in member.own_operands()]
        for node in reachable(makers(operands), lambda node: makers(node_operands(node))):
            if node in self._members:
                return None
            found.append(node)
        return found


def _is_next(below: Layer, layer: Layer, around: Surroundings) -> bool:
    """Whether a layer has the directions of one below it, and nobody else needs what that gives."""
    if len(below) != len(layer) or below[0].op.reverse != layer[0].op.reverse or _kind(below[0]) != _kind(layer[0]):
        return False
    if not all(_is_only_reader(member, around) for member in layer):
        return False
    chain = list(_chain(layer[0].product.x, around))
    between = {node for value in chain if (node := around.makers.get(value)) is not None}
    readers = {*between, *(member.product.dot for member in layer), *(f for m in below for f in m.finals[0])}
    return all(around.is_read_only_by(value, readers) for value in chain)


def _is_only_reader(member: Candidate, around: Surroundings) -> bool:
    """Whether nobody else reads its product with the source, with the bias or without."""
    z = member.node.inputs[0]
    readers = (member.node, around.makers[z])
    return all(around.is_read_only_by(value, readers) for value in (member.product.dot.output, z))


def _chain(x: Value, around: Surroundings) -> Iterator[Value]:
    """A value and those that it is joined of, under whatever names of dims."""

    def parts(value: Value) -> Iterable[Value]:
        maker = around.makers.get(value)
        return maker.inputs if maker is not None and isinstance(maker.op, Relabel | Concat) else ()

    return reachable([x], parts)


def _joined(around: Surroundings) -> dict[Value, tuple[Value, ...]]:
    """The value, or the two, that each value is joined of, in their order along its features."""
    found: dict[Value, tuple[Value, ...]] = {}
    for value, node in around.makers.items():
        if isinstance(node.op, Relabel | Concat):
            parts = tuple(part for each in node.inputs for part in found.get(each, (each,)))
            if len(parts) <= 2:  # a layer has no more directions
                found[value] = parts
    return found
