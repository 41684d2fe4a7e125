"""Recurrences that cuDNN can run, with their input products; and why others are none.

z = add(dot(x, W, over=F), b); h, c = lstm(z, W_re, h0, c0, over=T)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from returnn_lite.dims import Dim
from returnn_lite.ir import Graph, Node, Value
from returnn_lite.ir.body import Vertex, producers, readers
from returnn_lite.ir.ops.contraction import Dot
from returnn_lite.ir.ops.elementwise import Elementwise
from returnn_lite.ir.ops.indexing import Gather
from returnn_lite.ir.ops.recurrence import CudnnKind, Recurrence, Step
from returnn_lite.ir.ops.reduction import Last
from returnn_lite.ir.ops.sources import Constant


@dataclass(frozen=True)
class Obstacle:
    """What keeps a recurrence from a faster kernel; `option` is that of its cell, if there is one."""

    why: str
    option: str = ""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What is around the nodes outside of all loops: who makes and who reads each value, and what nobody may take; and
    where each node stands."""

    positions: Mapping[Node, int]
    makers: Mapping[Value, Node]
    readers: Mapping[Value, list[Vertex]]
    results: frozenset[Value]

    @classmethod
    def of(cls, graph: Graph) -> Surroundings:
        positions = {node: position for position, node in enumerate(graph.nodes)}
        return cls(positions, producers(graph.nodes), readers(graph.nodes), frozenset(graph.results()))

    def is_read_only_by(self, value: Value, nodes: Collection[Node]) -> bool:
        """Whether nobody but these nodes reads a value."""
        return value not in self.results and all(reader in nodes for reader in self.readers.get(value, ()))


@dataclass(frozen=True, eq=False)
class InputProduct:
    """dot(x, weights) over `source`, plus `bias` [gates], if there is one."""

    dot: Node
    x: Value
    source: Dim
    weights: Value
    bias: Value | None


@dataclass(frozen=True, eq=False)
class Candidate:
    """A recurrence that cuDNN can run. `finals` are the nodes that take the state after the last step, by state."""

    node: Node
    op: Recurrence[Step]
    product: InputProduct
    finals: tuple[tuple[Node, ...], ...]

    @property
    def hidden(self) -> Dim:
        """The dim of its output's features."""
        return self.kind.hidden

    @property
    def kind(self) -> CudnnKind:
        """What it is to cuDNN."""
        kind = self.op.step.cudnn
        assert kind is not None
        return kind

    @property
    def weights(self) -> tuple[Value, ...]:
        """Those of h, and what is added to their product."""
        return self.node.inputs[1 : min(self.op.step.state_inputs)]

    @property
    def states(self) -> tuple[Value, ...]:
        """Those before the first step."""
        return tuple(self.node.inputs[at] for at in self.op.step.state_inputs)

    def own_operands(self) -> tuple[Value, ...]:
        """What it reads but its source."""
        bias = () if self.product.bias is None else (self.product.bias,)
        return (self.product.weights, *bias, *self.weights, *self.states)

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The frames of the states, the output first."""
        return tuple(self.node.outputs[at] for at in self.op.step.state_outputs)


def candidate_of(node: Node, op: Recurrence[Step], around: Surroundings) -> Candidate | tuple[Obstacle, ...]:
    """The recurrence with what it is made of; or what keeps it from cuDNN."""
    if op.step.cudnn is None:
        return (Obstacle(*op.step.why_no_cudnn),)
    product = _input_product(node.inputs[0], op.over, around)
    found = tuple(_obstacles(node, op, product, around))
    if found or product is None:
        return found
    finals = (_finals(node, op, at, around) for at in range(len(op.step.state_outputs)))
    return Candidate(node, op, product, tuple(finals))


def _obstacles(
    node: Node, op: Recurrence[Step], product: InputProduct | None, around: Surroundings
) -> Iterator[Obstacle]:
    if "cpu" in node.origin.device.lower():
        yield Obstacle(f"it shall run on {node.origin.device}", "device")
    if op.unroll != 1:
        yield Obstacle("'unroll' has its steps written out: cuDNN has a loop of its own")
    if product is None and _has_lookup(node.inputs[0], around):
        yield Obstacle("its source has labels: cuDNN multiplies its source with weights")
    elif product is None:
        yield Obstacle("what goes into its gates is not just a product of its source with weights, and a bias")
    elif not set(op.over.over) <= set(product.x.type.dims):
        yield Obstacle("the lengths of its frames vary over more than its source has")
    for value in node.inputs[1 : min(op.step.state_inputs)]:
        if any(dim.size is None for dim in value.type.dims) or len(value.type.dims) > 2:
            yield Obstacle("not all sequences and steps have the same weights of h")
    inner = list(enumerate(op.step.state_outputs))[1:]
    if any(op.over in node.inputs[at].type for at in op.step.state_inputs):
        yield Obstacle("the state before the first step differs from frame to frame")
    if any(not around.is_read_only_by(node.outputs[at], _finals(node, op, i, around)) for i, at in inner):
        yield Obstacle("the cell state of all frames is read, of which cuDNN gives that after the last step")


def _input_product(z: Value, over: Dim, around: Surroundings) -> InputProduct | None:
    maker = around.makers.get(z)
    bias = None
    if maker is not None and isinstance(maker.op, Elementwise) and maker.op.kind == "add":
        products = [v for v in maker.inputs if (m := around.makers.get(v)) is not None and isinstance(m.op, Dot)]
        others = [value for value in maker.inputs if value not in products[:1]]
        if not products or len(others) != 1:
            return None
        (bias,), maker = others, around.makers[products[0]]
    if maker is None or not isinstance(maker.op, Dot) or len(maker.op.over) != 1:
        return None
    (source,) = maker.op.over
    pairs = (maker.inputs, maker.inputs[::-1])
    x, weights = next(((x, w) for x, w in pairs if over in x.type and _are_weights(w, source)), (None, None))
    if x is None or weights is None or source.size is None:
        return None
    gates = set(weights.type.dims) - {source}
    if gates & set(x.type.dims) or (bias is not None and not set(bias.type.dims) <= gates):
        return None
    return InputProduct(maker, x, source, weights, bias)


def _has_lookup(z: Value, around: Surroundings) -> bool:
    """Whether it is rows of weights, for labels, perhaps with a bias."""
    maker = around.makers.get(z)
    parts = () if maker is None else (z, *maker.inputs)
    return any((one := around.makers.get(part)) is not None and isinstance(one.op, Gather) for part in parts)


def _are_weights(value: Value, source: Dim) -> bool:
    """[source, gates], the same for all sequences."""
    return len(value.type.dims) == 2 and source in value.type and all(dim.size is not None for dim in value.type.dims)


def _finals(node: Node, op: Recurrence[Step], at: int, around: Surroundings) -> tuple[Node, ...]:
    """The nodes that take a state after the last step."""
    frames, init = node.outputs[op.step.state_outputs[at]], node.inputs[op.step.state_inputs[at]]
    reading = around.readers.get(frames, [])
    return tuple(one for one in reading if isinstance(one, Node) and _is_final(one, frames, init, op, around))


def _is_final(node: Node, frames: Value, init: Value, op: Recurrence[Step], around: Surroundings) -> bool:
    """Whether a node takes the state after the last step: forwards at the last frame, or what the state was before;
    backwards at the first, where who reads it asks whether there is one."""
    if not op.reverse:
        return isinstance(node.op, Last) and node.op.over is op.over and node.inputs == (frames, init)
    if not (isinstance(node.op, Gather) and node.op.over is op.over and node.op.clip and node.inputs[0] is frames):
        return False
    index = around.makers.get(node.inputs[1])
    return index is not None and isinstance(index.op, Constant) and index.op.value == 0
