"""Where each layer is computed after the passes, and why: the analysis behind `explain`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from returnn_lite.dims import Dim
from returnn_lite.explain.cycles import BodyDependencies
from returnn_lite.explain.reasons import Reason, reason_to_stay
from returnn_lite.ir import Clock, Graph, Loop, Node, State, Value, computed_once, node_operands, walk
from returnn_lite.ir.layer_reads import LayerRecord
from returnn_lite.ir.ops.axes import Expand
from returnn_lite.ir.ops.search import Choose
from returnn_lite.net.outputs import layers_of

Where = Literal["outside", "before", "loop", "after"]
Chain = tuple[Node, ...]
"""The loops around something, outermost first."""


@dataclass(frozen=True)
class Place:
    """Where a layer is: outside of all loops as the config has it, in a loop, or moved before or after it.

    `loop` is the dim of the loop, `loops` the names of those around it, outermost first: the rec layer's path, with a
    number if it became several loops. `masks` say when it runs at all, `beams` on which hypotheses. `cycle` and `cut`
    are the facts behind `reason` and `to_leave`: the layers that need each other, and the reads (reader, read) without
    which it could leave.
    """

    where: Where
    loop: str | None
    reason: str
    to_leave: str = ""
    loops: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    beams: tuple[str, ...] = ()
    cycle: tuple[str, ...] = ()
    cut: tuple[tuple[str, str], ...] = ()
    loops_as_built: tuple[str, ...] = ()
    dims_as_built: str = ""
    dims: str = ""


@dataclass(frozen=True)
class Spot:
    """Where a value is made: the loops around it, outermost first, its clock, and the value."""

    chain: Chain
    clock: Clock
    value: Value


def placement(before: Graph, after: Graph, layers: Mapping[str, LayerRecord] | None = None) -> dict[str, Place]:
    """The place of each layer of `before` (as built) in `after` (as compiled), by layer path.

    A layer is where the value that it makes is computed; passes keep whose values are. Without `layers`, only those
    that are outputs of the graph are known, and not what they read.
    """
    known = _layers_of_outputs(before) if layers is None else layers
    after = replace(after, nodes=computed_once(after.nodes))
    return dict(sorted(_Placement(before, after, known).places().items()))


def _layers_of_outputs(graph: Graph) -> dict[str, LayerRecord]:
    paths = layers_of(graph.outputs)
    around = {path.split("/")[0] for path in paths if "/" in path}
    return {
        path: LayerRecord((value if path in around else _inside(graph, value)).layer, "", ())
        for path, value in paths.items()
    }


def _inside(graph: Graph, value: Value) -> Value:
    """The value of one step where a value is the stack of a loop; else the value itself."""
    stacks = (stack for node in graph.nodes if isinstance(node.op, Loop) for stack in node.op.stacks)
    return next((stack.now for stack in stacks if stack.whole is value), value)


def loop_names(graph: Graph) -> dict[Node, str]:
    """A name for each loop: the path of its rec layer, with a number if that became several."""
    loops: dict[str, list[Node]] = {}
    for node in walk(graph.nodes):
        if isinstance(node.op, Loop):
            loops.setdefault(node.origin.layer, []).append(node)
    return {
        node: layer if len(found) == 1 else f"{layer}#{number}"
        for layer, found in loops.items()
        for number, node in enumerate(found, 1)
    }


def spots(graph: Graph) -> dict[str, Spot]:
    """Where the value of each layer is made, by the layer; of a stack and what it stacks the innermost."""
    return _innermost(_spots(graph))


def _innermost(found: Iterable[Spot]) -> dict[str, Spot]:
    by_layer: dict[str, Spot] = {}
    for spot in found:
        layer = spot.value.layer
        if layer and (layer not in by_layer or len(by_layer[layer].chain) < len(spot.chain)):
            by_layer[layer] = spot
    return by_layer


def _spots(graph: Graph) -> Iterator[Spot]:
    for value in graph.inputs:
        yield Spot((), (), value)
    for chain, vertex in _vertices(graph.nodes, ()):
        for value in (vertex.now,) if isinstance(vertex, State) else vertex.outputs:
            yield Spot(chain, vertex.clock, value)


def _vertices(nodes: Sequence[Node], chain: Chain) -> Iterator[tuple[Chain, Node | State]]:
    for node in nodes:
        yield chain, node
        if isinstance(node.op, Loop):
            inner = (*chain, node)
            for state in node.op.states:
                yield inner, state
            yield from _vertices(node.op.body, inner)


@dataclass
class _Placement:
    """Both graphs, and what has been found out of them."""

    before: Graph
    after: Graph
    layers: Mapping[str, LayerRecord]
    bodies: dict[Node, BodyDependencies] = field(default_factory=dict)
    behind: dict[frozenset[str], set[Value]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.built = _innermost([*_spots(self.before), *_elements(self.before.nodes, ())])
        self.compiled = spots(self.after)
        self.names = loop_names(self.after)
        self.beams = _beams(self.before)
        self.outputs = layers_of(self.after.outputs)
        loops = [node.op for node in walk(self.after.nodes) if isinstance(node.op, Loop)]
        self.in_loops = {node.origin.layer for loop in loops for node in loop.body}

    def places(self) -> dict[str, Place]:
        """The place of each layer."""
        found: dict[str, Place] = {}
        for path, record in self.layers.items():
            built = self.built.get(record.of)
            if built is not None:
                found[path] = self._place(path, record.of, built)
        return found

    def _place(self, path: str, made_by: str, built: Spot) -> Place:
        spot = self.compiled.get(made_by) or self._behind_output(path)
        return replace(
            self._where(path, made_by, built, spot),
            masks=tuple(_shown(mask.value.name) for mask in built.clock),
            beams=() if spot is None else tuple(dim.name for dim in spot.value.type.dims if dim in self.beams),
            loops_as_built=tuple(node.origin.layer for node in built.chain),
            dims_as_built=str(built.value.type),
            dims=str((spot or built).value.type),
        )

    def _where(self, path: str, made_by: str, built: Spot, spot: Spot | None) -> Place:
        if not built.chain:
            return Place("outside", None, "")
        if spot is not None and spot.chain:
            reason = self._reason(path, made_by, built.chain[: len(spot.chain)])
            loop = spot.chain[-1]
            assert isinstance(loop.op, Loop)
            cut = tuple((read.reader, read.reference) for read in reason.cut)
            loops = tuple(self.names[node] for node in spot.chain)
            return Place("loop", loop.op.over.name, reason.why, reason.to_leave, loops, cycle=reason.way, cut=cut)
        around = frozenset(node.origin.layer for node in built.chain)
        if spot is not None and spot.value in self._behind(around):
            is_partly_inside = path in self.in_loops
            why = (
                "the loop needs only a part of what it computes" if is_partly_inside else "nothing in the loop needs it"
            )
            return Place("after", None, why)
        return Place("before", None, "it needs nothing that the loop computes")

    def _reason(self, path: str, made_by: str, chain: Chain) -> Reason:
        """Why a layer is in the innermost loop of a chain as built."""
        loop = chain[-1]
        assert isinstance(loop.op, Loop)
        if loop not in self.bodies:
            self.bodies[loop] = BodyDependencies(loop.op, self.layers)
        body = self.bodies[loop]
        vertex = body.vertex_of(made_by)
        if vertex is None:
            return Reason("its loop is part of a loop that can't do all steps at once", "")
        return reason_to_stay(body, path, vertex)

    def _behind_output(self, path: str) -> Spot | None:
        """Where the value of a layer is that was merged with another one, by the graph's output of the layer's name."""
        value = self.outputs.get(path)
        producers = {output: node for node in self.after.nodes for output in node.outputs}
        while value is not None:
            node = producers.get(value)
            if node is None:
                return self.compiled.get(value.layer)
            if isinstance(node.op, Expand):
                value = node.inputs[0]
            elif isinstance(node.op, Loop):
                whole = value
                now = next((stack.now for stack in node.op.stacks if stack.whole is whole), None)
                return None if now is None else self.compiled.get(now.layer)
            else:
                return Spot((), (), value)
        return None

    def _behind(self, layers: frozenset[str]) -> set[Value]:
        """What is computed outside of loops from what a loop of one of these layers computes."""
        if layers not in self.behind:
            self.behind[layers] = self._values_behind(layers)
        return self.behind[layers]

    def _values_behind(self, layers: frozenset[str]) -> set[Value]:
        from_loop: set[Value] = set()
        found: set[Value] = set()
        for node in self.after.nodes:
            is_loop = isinstance(node.op, Loop)
            starts = is_loop and node.origin.layer in layers
            if starts or any(value in from_loop for value in node_operands(node)):
                from_loop.update(node.outputs)
                if not starts:
                    found.update(node.outputs)
        return found


def _elements(nodes: Sequence[Node], chain: Chain) -> Iterator[Spot]:
    """The frames of what is given to loops: layers that only pass on a target are such."""
    for node in nodes:
        if isinstance(node.op, Loop):
            inner = (*chain, node)
            for element in node.op.elements:
                yield Spot(inner, element.clock, element.now)
            yield from _elements(node.op.body, inner)


def _beams(graph: Graph) -> set[Dim]:
    return {node.op.beam for node in walk(graph.nodes) if isinstance(node.op, Choose)}


def _shown(name: str) -> str:
    """`prev:x` for what is of the step before, without the path of the loop."""
    return name[name.index("prev:") :] if "prev:" in name else name
