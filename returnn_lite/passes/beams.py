"""Beams: in search, hypotheses become a dim.

As built, a value belongs to one hypothesis. This pass makes `Choose` explicit, so that its results have the beam dim,
which then flows through the types. A choice reorders the hypotheses: a value computed before it and one computed after
it do not belong together until the older one is gathered by the choice's back-pointers. A value's *stage* is the number
of choices of its step whose order it has (`hypotheses/stages`); states begin at stage 0 and must end at the last. Each
choice has a beam of its own; a step begins on that of the last choice of the step before.

    label, back, score = choose(p, score', ended')          label, back, score = choose(.., beam=K)     # [B, K]
    s'' = delay(s)                                      →    s.K = beam_gather(s, back); s'' = delay(s.K)
"""

from __future__ import annotations

from dataclasses import replace

from returnn_lite.dims import Dim, DimKind
from returnn_lite.ir import Graph, Loop, Node, Origin, Search, Value
from returnn_lite.ir.body import BodyGraph, results_of
from returnn_lite.ir.frames import lacking_lengths
from returnn_lite.ir.ops.axes import Expand
from returnn_lite.ir.ops.search import BeamGather, Choose, FirstBeam
from returnn_lite.ir.ops.sources import Length
from returnn_lite.ir.rewrite import retype
from returnn_lite.ir.substitution import with_operands
from returnn_lite.passes.errors import PassError
from returnn_lite.passes.hypotheses.lengths import Beams, beams_of_length, beams_of_lengths
from returnn_lite.passes.hypotheses.stages import stages


def beams(graph: Graph) -> Graph:
    """The graph with explicit beams; unchanged if nothing searches."""
    if not any(_choices(node) for node in graph.nodes):
        return graph
    nodes = tuple(_ordered(node) for node in graph.nodes)
    return _with_lengths_of_hypotheses(retype(replace(graph, nodes=nodes)))


def _with_lengths_of_hypotheses(graph: Graph) -> Graph:
    """Lengths that differ from hypothesis to hypothesis get the beam in their types, which makes others differ."""
    beams_of = beams_of_lengths(graph)
    nodes = tuple(new for node in graph.nodes for new in _with_beams(node, beams_of))
    return graph if nodes == graph.nodes else _with_lengths_of_hypotheses(retype(replace(graph, nodes=nodes)))


def _with_beams(node: Node, beams_of: Beams) -> list[Node]:
    """The node with the beams of lengths that it computes, or that it needs of its operands; in bodies too."""
    op = node.op
    if isinstance(op, Loop):
        body = tuple(new for inner in op.body for new in _with_beams(inner, beams_of))
        loop = _traced(op if body == op.body else replace(op, body=body), node.origin)
        return [node if loop is op else node.with_loop(loop)]
    if not isinstance(op, Length):
        return _of_each_hypothesis(node, beams_of)
    found = beams_of_length(op.of, beams_of)
    return [node if found == op.beams else replace(node, op=replace(op, beams=found))]


def _traced(loop: Loop, origin: Origin) -> Loop:
    """A search whose stacks of hypotheses have a frame for each sequence: which ones those in the end go back to
    differs from sequence to sequence."""
    dims = loop.search.pointers.type.dims if loop.search is not None else ()
    beams = [dim for dim in dims if dim.kind is DimKind.BEAM]
    stacks, nodes = [], []
    for stack in loop.stacks:
        now = stack.now
        expand = Expand(tuple(dim for dim in dims if dim not in now.type))
        if expand.dims and any(beam in now.type for beam in beams):
            now = Value(f"{now.name}@sequences", expand.type_of(now.type))
            nodes.append(Node(expand, (stack.now,), (now,), origin))
        stacks.append(replace(stack, now=now))
    return replace(loop, stacks=tuple(stacks), body=(*loop.body, *nodes)) if nodes else loop


def _of_each_hypothesis(node: Node, beams_of: Beams) -> list[Node]:
    """The node, before it the operands that it needs for each hypothesis: where these end differs, and it works along
    that."""
    lacking = lacking_lengths(node.op, [x.type for x in node.inputs], lambda dim: beams_of_length(dim, beams_of))
    nodes: list[Node] = []
    inputs = list(node.inputs)
    for i, (value, dims) in enumerate(zip(node.inputs, lacking, strict=True)):
        if dims:
            expand = Expand(dims)
            inputs[i] = Value(f"{value.name}@hypotheses", expand.type_of(value.type))
            nodes.append(Node(expand, (value,), (inputs[i],), node.origin, node.clock))
    return [*nodes, replace(node, inputs=tuple(inputs))] if nodes else [node]


def _choices(node: Node) -> list[Node]:
    return [inner for inner in node.op.body if isinstance(inner.op, Choose)] if isinstance(node.op, Loop) else []


def _ordered(node: Node) -> Node:
    """The node with explicit beams. Types are those without a beam still."""
    if isinstance(node.op, FirstBeam):
        return replace(node, op=replace(node.op, explicit=True))
    if isinstance(node.op, Loop) and _choices(node):
        return _OrderedBody(node, node.op).run()
    return node


class _OrderedBody:
    """One body with choices, which are in the order in which they are made."""

    def __init__(self, node: Node, loop: Loop) -> None:
        self.loop_node = node
        self.loop = loop
        self.body = BodyGraph(loop)
        self.of_hypotheses = _of_hypotheses(self.body)
        self.beams: list[Dim] = [choice.op.beam for choice in _choices(node) if isinstance(choice.op, Choose)]
        self.stage: dict[Value, int] = {}
        self.pointers: list[Value] = []
        self.ended: list[Value] = []
        """Whether the hypotheses before each choice had ended before the step."""
        self.nodes: list[Node] = []
        self.gathered: dict[tuple[Value, int], Value] = {}

    def run(self) -> Node:
        """The loop with gathers where stages meet."""
        loop = self.loop
        stage_of = stages(loop, self.of_hypotheses)
        for inner in sorted(loop.body, key=stage_of.__getitem__):
            self._add(inner, stage_of[inner])
        last = len(self.pointers)
        ending = loop.ending
        copy = replace(
            loop,
            states=tuple(replace(state, next=self._at(state.next, last)) for state in loop.states),
            stacks=tuple(replace(element, now=self._at(element.now, last)) for element in loop.stacks),
            finals=tuple(replace(element, now=self._at(element.now, last)) for element in loop.finals),
            ending=None if ending is None else replace(ending, ended=self._at(ending.ended, last)),
            search=Search(self._composed_pointers(), self.ended[0]),
            body=tuple(self.nodes),
        )
        return self.loop_node.with_loop(copy)

    def _add(self, node: Node, stage: int) -> None:
        self.nodes.append(self._moved(node, stage))
        if isinstance(node.op, Choose):
            self.pointers.append(node.outputs[1])
            self.ended.append(self.nodes[-1].inputs[2])
            stage += 1
        for output in node.outputs:
            self.stage[output] = stage

    def _moved(self, node: Node, stage: int) -> Node:
        """The node with its operands in the order after `stage` choices."""
        moved = {value: self._at(value, stage) for value in node.inputs}
        if isinstance(node.op, Loop):
            return with_operands(node, moved)
        op = node.op
        if isinstance(op, Choose):
            op = replace(op, explicit=True, incoming=self._beam_at(stage))
            _check_children(op, node.origin)
        return replace(node, op=op, inputs=tuple(moved[value] for value in node.inputs))

    def _beam_at(self, stage: int) -> Dim:
        """The dim of the hypotheses after `stage` choices of a step."""
        return self.beams[stage - 1]

    def _at(self, value: Value, stage: int) -> Value:
        """A body value in the order after `stage` choices."""
        if value not in self.of_hypotheses:
            return value
        current = value
        for step in range(self.stage.get(value, 0), stage):
            key = (value, step)
            if key not in self.gathered:
                self.gathered[key] = self._gathered(current, step, self._origin_of(value))
            current = self.gathered[key]
        return current

    def _gathered(self, value: Value, step: int, origin: Origin) -> Value:
        op = BeamGather(self._beam_at(step))
        pointers = self.pointers[step]
        output = Value(f"{value.name}@beam", op.type_of(value.type, pointers.type))
        self.nodes.append(Node(op, (value, pointers), (output,), origin))
        return output

    def _origin_of(self, value: Value) -> Origin:
        maker = self.body.producer.get(value)
        return maker.origin if isinstance(maker, Node) else self.loop_node.origin

    def _composed_pointers(self) -> Value:
        """For each hypothesis at the end of the step, the one at its beginning that it extends."""
        composed = self.pointers[0]
        for step in range(1, len(self.pointers)):
            composed = self._gathered(composed, step, self.loop_node.origin)
        return composed


def _check_children(op: Choose, origin: Origin) -> None:
    """Raises PassError if the places of the beam can't be shared out equally."""
    size, before = op.beam.size or 1, (op.incoming or op.beam).size or 1
    if op.rule.keep_beams and size % before:
        raise PassError(
            f"keep_beams: a beam of {size} can't keep as many successors of each of {before} hypotheses. "
            f"Set a beam_size that is a multiple of {before}",
            [origin.layer],
        )


def _of_hypotheses(body: BodyGraph) -> set[Value]:
    """The body values that differ from hypothesis to hypothesis: what depends on a choice, also of a step before."""
    choices = [node for node in body.loop.body if isinstance(node.op, Choose)]
    return {value for vertex in body.downstream(choices) for value in results_of(vertex)}
