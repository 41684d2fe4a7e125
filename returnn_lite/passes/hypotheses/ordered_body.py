"""The body of a search with its hypotheses in order: gathers where values of different stages meet (see `beams`)."""

from __future__ import annotations

from dataclasses import replace

from returnn_lite.dims import Dim, DimError
from returnn_lite.ir import Loop, Node, Op, Origin, Search, Value
from returnn_lite.ir.body import BodyGraph, is_choice, results_of
from returnn_lite.ir.ops.search import BeamGather
from returnn_lite.ir.substitution import with_operands
from returnn_lite.passes.errors import PassError
from returnn_lite.passes.hypotheses.stages import stages


def ordered_body(loop: Loop, origin: Origin) -> Loop:
    """The loop with explicit beams in its body, where the dims of types are still those without.

    Raises PassError for a choice that can't have the beam it asks for.
    """
    return _OrderedBody(loop, origin).run()


class _OrderedBody:
    """One body with choices, which are in the order in which they are made."""

    def __init__(self, loop: Loop, origin: Origin) -> None:
        self.loop = loop
        self.origin = origin
        self.body = BodyGraph(loop)
        self.of_hypotheses = _of_hypotheses(self.body)
        self.beams: list[Dim] = [node.op.chosen for node in loop.body if node.op.chosen is not None]
        self.stage: dict[Value, int] = {}
        self.pointers: list[Value] = []
        self.ended: list[Value] = []
        """Whether the hypotheses before each choice had ended before the step."""
        self.nodes: list[Node] = []
        self.gathered: dict[tuple[Value, int], Value] = {}

    def run(self) -> Loop:
        """The loop with gathers where stages meet."""
        loop = self.loop
        stage_of = stages(loop, self.of_hypotheses)
        for inner in sorted(loop.body, key=stage_of.__getitem__):
            self._add(inner, stage_of[inner])
        last = len(self.pointers)
        ending = loop.ending
        return replace(
            loop,
            states=tuple(replace(state, next=self._at(state.next, last)) for state in loop.states),
            stacks=tuple(replace(element, now=self._at(element.now, last)) for element in loop.stacks),
            finals=tuple(replace(element, now=self._at(element.now, last)) for element in loop.finals),
            ending=None if ending is None else replace(ending, ended=self._at(ending.ended, last)),
            search=Search(self._composed_pointers(), self.ended[0]),
            body=tuple(self.nodes),
        )

    def _add(self, node: Node, stage: int) -> None:
        self.nodes.append(self._moved(node, stage))
        if node.op.pointers_at is not None and node.op.ended_at is not None:
            self.pointers.append(node.outputs[node.op.pointers_at])
            self.ended.append(self.nodes[-1].inputs[node.op.ended_at])
            stage += 1
        for output in node.outputs:
            self.stage[output] = stage

    def _moved(self, node: Node, stage: int) -> Node:
        """The node with its operands in the order after `stage` choices."""
        moved = {value: self._at(value, stage) for value in node.inputs}
        if isinstance(node.op, Loop):
            return with_operands(node, moved)
        return replace(node, op=self._explicit(node, stage), inputs=tuple(moved[value] for value in node.inputs))

    def _explicit(self, node: Node, stage: int) -> Op:
        if not node.op.lacks_beam:
            return node.op
        try:
            return node.op.with_beam(self._beam_at(stage))
        except DimError as error:
            raise PassError(str(error), [node.origin.layer]) from error

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
        return maker.origin if isinstance(maker, Node) else self.origin

    def _composed_pointers(self) -> Value:
        """For each hypothesis at the end of the step, the one at its beginning that it extends."""
        composed = self.pointers[0]
        for step in range(1, len(self.pointers)):
            composed = self._gathered(composed, step, self.origin)
        return composed


def _of_hypotheses(body: BodyGraph) -> set[Value]:
    """The body values that differ from hypothesis to hypothesis: what depends on a choice, also of a step before."""
    choices = filter(is_choice, body.loop.body)
    return {value for vertex in body.downstream(choices) for value in results_of(vertex)}
