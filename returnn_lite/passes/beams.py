"""Beams: in search, hypotheses become a dim.

As built, a value belongs to one hypothesis. This pass makes `Choose` explicit, so that its results have the beam
dim, which
then flows through the types. A choice reorders the hypotheses: a value computed before it and one computed after it
do not
belong together until the older one is gathered by the choice's back-pointers. A value's *stage* is the number of
choices of its step whose order it has; states begin at stage 0 and must end at the last.

    label, back, score = choose(p, score', ended')          label, back, score = choose(.., beam=K)     # [B, K]
    s'' = delay(s)                                      →    s.K = beam_gather(s, back); s'' = delay(s.K)
"""

from __future__ import annotations

from dataclasses import replace

from returnn_lite.dims import Dim
from returnn_lite.ir import Graph, Loop, Node, Origin, Value, loop_node
from returnn_lite.ir.ops.search import BeamGather, Choose, FirstBeam
from returnn_lite.ir.rewrite import Rewriter, retype
from returnn_lite.passes.errors import PassError


def beams(graph: Graph) -> Graph:
    """The graph with explicit beams; unchanged if nothing searches."""
    if not any(_choices(node) for node in graph.nodes):
        return graph
    explicit = replace(graph, nodes=tuple(_explicit(node) for node in graph.nodes))
    typed = retype(explicit)
    ordered = _Ordering()
    nodes = tuple(ordered.node(node) for node in typed.nodes)
    outputs = {name: ordered.value(value) for name, value in typed.outputs.items()}
    return Graph(typed.inputs, nodes, outputs, tuple(ordered.value(value) for value in typed.checks))


def _choices(node: Node) -> list[Node]:
    return [inner for inner in node.op.body if isinstance(inner.op, Choose)] if isinstance(node.op, Loop) else []


def _explicit(node: Node) -> Node:
    if isinstance(node.op, Choose | FirstBeam):
        return replace(node, op=replace(node.op, explicit=True))
    if isinstance(node.op, Loop):
        return replace(node, op=replace(node.op, body=tuple(_explicit(inner) for inner in node.op.body)))
    return node


class _Ordering(Rewriter):
    """Copies the graph; in bodies with choices, brings values to the order that their users need."""

    def node(self, node: Node) -> Node:
        """The copy of a node."""
        if isinstance(node.op, Loop) and _choices(node):
            return _OrderedBody(self, node, node.op).run()
        return super().node(node)


class _OrderedBody:
    """One body with choices."""

    def __init__(self, rewriter: Rewriter, node: Node, loop: Loop) -> None:
        self.rewriter = rewriter
        self.loop_node = node
        self.loop = loop
        self.stage: dict[Value, int] = {}
        self.pointers: list[Value] = []
        self.beam: Dim | None = None
        self.nodes: list[Node] = []
        self.gathered: dict[tuple[Value, int], Value] = {}

    def run(self) -> Node:
        """The loop with gathers where stages meet."""
        loop, rewriter = self.loop, self.rewriter
        for element in loop.elements:
            rewriter.bind(element.now, element.now.type)
        for state in loop.states:
            rewriter.bind(state.now, state.now.type)
        for inner in loop.body:
            self._add(inner)
        last = len(self.pointers)
        at_end = {value: self._at(value, last) for value in self._results()}
        copy = replace(
            loop,
            elements=tuple(replace(e, now=rewriter.value(e.now), whole=rewriter.value(e.whole)) for e in loop.elements),
            states=tuple(
                replace(s, now=rewriter.value(s.now), init=rewriter.value(s.init), next=at_end[s.next])
                for s in loop.states
            ),
            stacks=tuple(
                replace(e, now=at_end[e.now], whole=rewriter.bind(e.whole, e.whole.type)) for e in loop.stacks
            ),
            finals=tuple(
                replace(e, now=at_end[e.now], whole=rewriter.bind(e.whole, e.whole.type)) for e in loop.finals
            ),
            ending=None
            if loop.ending is None
            else replace(loop.ending, ended=at_end[loop.ending.ended], max_steps=rewriter.value(loop.ending.max_steps)),
            back_pointers=self._composed_pointers(),
            body=tuple(self.nodes),
        )
        return replace(loop_node(copy, self.loop_node.origin), clock=self.loop_node.clock)

    def _results(self) -> list[Value]:
        loop = self.loop
        values = [state.next for state in loop.states] + [element.now for element in (*loop.stacks, *loop.finals)]
        return values + ([loop.ending.ended] if loop.ending is not None else [])

    def _add(self, node: Node) -> None:
        stage = max((self.stage.get(value, 0) for value in node.inputs if self._has_beam(value)), default=0)
        if isinstance(node.op, Choose):
            if stage < len(self.pointers):
                stage = len(self.pointers)
            self._require_one_beam(node.op, node.origin)
        inputs = tuple(self._at(value, stage) for value in node.inputs)
        outputs = tuple(self.rewriter.bind(output, output.type) for output in node.outputs)
        self.nodes.append(replace(node, inputs=inputs, outputs=outputs))
        if isinstance(node.op, Choose):
            self.pointers.append(outputs[1])
            stage += 1
        for output in node.outputs:
            self.stage[output] = stage

    def _require_one_beam(self, op: Choose, origin: Origin) -> None:
        if self.beam is not None and self.beam is not op.beam:
            raise PassError(
                f"'{origin.layer}' is the second choice of its loop, after that of {self.beam}: in search, a loop can "
                "have one",
                [origin.layer],
            )
        self.beam = op.beam

    def _has_beam(self, value: Value) -> bool:
        return any(isinstance(node.op, Choose) and node.op.beam in value.type for node in self.loop.body)

    def _at(self, value: Value, stage: int) -> Value:
        """The copy of a body value in the order after `stage` choices."""
        current = self.rewriter.value(value)
        have = self.stage.get(value, 0)
        if self.beam is None or self.beam not in value.type:
            return current
        for step in range(have, stage):
            key = (value, step)
            if key not in self.gathered:
                op = BeamGather(self.beam)
                pointers = self.pointers[step]
                output = Value(f"{current.name}@beam", op.type_of(current.type, pointers.type))
                self.nodes.append(Node(op, (current, pointers), (output,), self._origin_of(value)))
                self.gathered[key] = output
            current = self.gathered[key]
        return current

    def _origin_of(self, value: Value) -> Origin:
        return next((node.origin for node in self.loop.body if value in node.outputs), self.loop_node.origin)

    def _composed_pointers(self) -> Value:
        """For each hypothesis at the end of the step, the one at its beginning that it extends."""
        composed = self.pointers[0]
        assert self.beam is not None
        for pointers in self.pointers[1:]:
            op = BeamGather(self.beam)
            output = Value(f"{composed.name}@beam", op.type_of(composed.type, pointers.type))
            self.nodes.append(Node(op, (composed, pointers), (output,), self.loop_node.origin))
            composed = output
        return composed
