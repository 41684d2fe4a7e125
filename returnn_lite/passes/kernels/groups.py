"""Recurrences that one kernel runs together: both directions of a source, and the layers of a stack.

forward = lstm(dot(x, W) + b, ..); backward = lstm(dot(x, V) + c, .., reverse)    # one layer
y = concat(forward, backward); above = lstm(dot(y, U) + d, ..)    # the next one, if nobody else reads y
"""

from __future__ import annotations

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

    def operands(self) -> Iterator[Value]:
        """What the kernel reads."""
        yield self.layers[0][0].product.x
        for member in self.members:
            bias = member.product.bias
            yield from (member.product.weights, *member.weights, *member.states, *([] if bias is None else [bias]))


def groups_of(candidates: Sequence[Candidate], around: Surroundings) -> list[Group]:
    """All candidates, each in one group."""
    found: list[Group] = []
    for layer in _layers(candidates, around):
        below = next((group for group in found if _is_next(group.layers[-1], layer, around)), None)
        joined = None if below is None else Group((*below.layers, layer))
        if below is not None and joined is not None and _can_be_one(joined, around):
            found[found.index(below)] = joined
        else:
            found.append(Group((layer,)))
    return found


def _layers(candidates: Sequence[Candidate], around: Surroundings) -> list[Layer]:
    """Each candidate, with that of the other direction if there is one; of one network layer where several could be."""
    found: dict[Candidate, Layer] = {}
    for of_one_layer in (True, False):
        for one in candidates:
            if one.op.reverse or one in found:
                continue
            for other in candidates:
                is_wanted = not of_one_layer or other.node.origin.layer == one.node.origin.layer
                is_pair = other.op.reverse and other not in found and _are_alike(one, other)
                if is_wanted and is_pair and _can_be_one(Group(((one, other),)), around):
                    found[one] = found[other] = (one, other)
                    break
    return list(dict.fromkeys(found.get(one, (one,)) for one in candidates))


def _are_alike(one: Candidate, other: Candidate) -> bool:
    """Whether they read the same, and one kernel can be both."""
    return one.product.x is other.product.x and one.product.source is other.product.source and _fit(one, other)


def _fit(one: Candidate, other: Candidate) -> bool:
    """Whether they are of one kind, size and place, over the same frames."""
    kinds = [(c.kind.mode, c.hidden.size, c.node.origin.device, c.op.over) for c in (one, other)]
    return kinds[0] == kinds[1]


def _is_next(below: Layer, layer: Layer, around: Surroundings) -> bool:
    """Whether a layer reads all that one below it gives, in the same directions, and nobody else does."""
    if len(below) != len(layer) or below[0].op.reverse != layer[0].op.reverse or not _fit(below[0], layer[0]):
        return False
    chain = list(_chain(layer[0].product.x, around))
    if _parts(layer[0].product.x, around) != [member.outputs[0] for member in below]:
        return False
    between = {node for value in chain if (node := around.makers.get(value)) is not None}
    readers = {*between, *(member.product.dot for member in layer), *(f for m in below for f in m.finals[0])}
    return all(around.is_read_only_by(value, readers) for value in chain)


def _chain(x: Value, around: Surroundings) -> Iterator[Value]:
    """A value and those that it is joined of, under whatever names of dims."""

    def joined(value: Value) -> Iterable[Value]:
        maker = around.makers.get(value)
        return maker.inputs if maker is not None and isinstance(maker.op, Relabel | Concat) else ()

    return reachable([x], joined)


def _parts(x: Value, around: Surroundings) -> list[Value]:
    """The values that one is joined of, in their order along its features."""
    maker = around.makers.get(x)
    if maker is None or not isinstance(maker.op, Relabel | Concat):
        return [x]
    return [part for value in maker.inputs for part in _parts(value, around)]


def _can_be_one(group: Group, around: Surroundings) -> bool:
    """Whether no member needs another one, but through the layers, and all are computed for the same sequences."""
    members = {member.node for member in group.members}
    sequences = {*group.layers[0][0].product.x.type.dims, *(member.hidden for member in group.members)}
    if any(not sequences.issuperset(state.type.dims) for member in group.members for state in member.states):
        return False

    def makers(values: Iterable[Value]) -> list[Node]:
        return [around.makers[value] for value in values if value in around.makers]

    def needed(node: Node) -> list[Node]:
        return makers(node_operands(node))

    upstream: Iterator[Node] = reachable(makers(group.operands()), needed)
    return members.isdisjoint(upstream)
