"""The scores of the hypotheses of a loop: one number a hypothesis, which each choice of a step changes in turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from returnn_lite.dims import Dim, TensorType
from returnn_lite.ir import Loop, Node, Value
from returnn_lite.ir.builder import Builder, OpenState
from returnn_lite.ir.ops.axes import Relabel
from returnn_lite.ir.ops.search import Choose, Decide, ExpectedOverBeam, FirstBeam, SplitBeam
from returnn_lite.ir.reachability import reachable
from returnn_lite.layers.base import Hypotheses, LayerError

if TYPE_CHECKING:
    from returnn_lite.net.context import NetworkContext
    from returnn_lite.net.loops import LoopScope


class HypothesisScores:
    """Of one loop. `beam` and `reported` are those of the step's last choice, which is what is left after search."""

    def __init__(self, scope: LoopScope) -> None:
        self._scope = scope
        self._state: OpenState | None = None
        self._current: Value | None = None
        self._last: tuple[str, Value] | None = None
        self.beam: Dim | None = None
        self.reported: Value | None = None

    def ended_before(self) -> Value:
        """Whether each hypothesis had ended before this step."""
        return self._scope.ended_before()

    def before(self, needed: Sequence[Value]) -> Value:
        """The scores that a choice starts from: those after the choice before, in this step or the one before.

        `needed` is what the choice depends on: the label of the choice before must be under it. Raises LayerError.
        """
        builder = self._scope.context.builder
        if self._last is not None and not _depends(builder, needed, self._last[1]):
            raise LayerError(
                f"which choice is first, '{self._last[0]}' or this one? Neither needs the other in the same step",
                "Name one in the other's explicit_search_sources.",
                "explicit_search_sources",
            )
        if self._current is None:
            with builder.at(self._scope.place):
                with builder.at(self._scope.outer_place):
                    init = builder.constant(0.0)
                self._state = builder.delay(f"{self._scope.path}:score", TensorType(()), init)
                self._current = self._state.now
        return self._current

    def scored(self, score: Value) -> None:
        """Says what the scores are now."""
        self._current = score

    def chosen(self, beam: Dim, label: Value, score: Value, reported: Value) -> None:
        """Says that a choice has been made. `reported` are the scores as they are reported where it is the last."""
        self.scored(score)
        self._last = (self._scope.context.builder.origin.layer, label)
        self.beam, self.reported = beam, reported

    @property
    def pointers(self) -> Value | None:
        """Which hypothesis each one continues since the step's last choice; None if nothing searches."""
        if self.beam is None or self._last is None:
            return None
        choice = self._scope.context.builder.producer(self._last[1])
        assert choice is not None and isinstance(choice.op, Choose), "what says that it has chosen is a choice"
        return choice.outputs[1]

    def complete(self) -> None:
        """Connects the scores of the next step; in the first step there is one hypothesis."""
        if self._state is None:
            return
        self._state.next = self._current
        if self.beam is None:
            return
        builder = self._scope.context.builder
        with builder.at(self._scope.outer_place):
            first = builder.apply(FirstBeam(self.beam, self._state.now.type.dtype))
            self._state.init = builder.expand(first, self._scope.context.extern_data.batch)


def _depends(builder: Builder, values: Sequence[Value], on: Value) -> bool:
    """True if one of the values is computed from another in the same step."""
    return any(value is on for value in reachable(values, builder.operands_of))


def hypotheses_of(context: NetworkContext, value: Value) -> Hypotheses | None:
    """The hypotheses of the loop that a value was computed from, by its dims or by the nodes before it.

    None where the best one has been picked, or all have been put together or side by side.
    """
    for result in context.hypotheses:
        if result.own_lengths and result.time in value.type:
            return result
    found = {result.scores: result for result in context.hypotheses}
    nodes = _nodes_of_hypotheses(context, value)
    return next((found[output] for node in nodes for output in node.outputs if output in found), None)


def with_varying_dims(context: NetworkContext, found: Hypotheses, value: Value) -> Hypotheses:
    """What is said of hypotheses, with the dims of a value computed from them that have a length for each."""
    makers: dict[Dim, Node] = {}
    others = {dim: dim for given in context.builder.inputs for dim in given.type.dims}
    for node in _nodes_of_hypotheses(context, value):
        makers |= dict.fromkeys(node.op.created_dims(), node)
        if isinstance(node.op, Relabel):
            others.setdefault(node.op.new, node.op.old)
    known: dict[Dim, bool] = {found.time: found.own_lengths and found.time.is_ragged}

    def varies(dim: Dim) -> bool:
        if dim not in known:
            known[dim] = False
            maker, other = makers.get(dim), others.get(dim, dim)
            if maker is not None and not isinstance(maker.op, Loop):
                known[dim] = any(hypotheses_of(context, told) == found for told in maker.inputs)
            else:
                known[dim] = varies(other) or any(map(varies, dim.operands()))
        return known[dim]

    return replace(found, varying=tuple(dim for dim in value.type.dims if varies(dim)))


def _nodes_of_hypotheses(context: NetworkContext, value: Value) -> Iterable[Node]:
    """The nodes that a value is computed by, back to where hypotheses were decided about, or put together."""
    builder = context.builder

    def before(current: Value) -> Sequence[Value]:
        node = builder.producer(current)
        if node is None or isinstance(node.op, Decide | ExpectedOverBeam | SplitBeam):
            return ()
        if node.inputs:
            return node.inputs
        # A length, or the numbers of frames: of a dim that is made of hypotheses.
        parts = {part for dim in node.op.named_dims() for part in dim.with_operands()}
        return [output for maker in map(builder.maker, parts) if maker is not None for output in maker.outputs]

    return filter(None, map(builder.producer, reachable([value], before)))
