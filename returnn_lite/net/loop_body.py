"""The steps of one loop while its body is being built, and the hypotheses (without search: the sequences) in them.

These have one score each, which the choices of a step change in turn.
"""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.dims import Copy, Dim, MarkedType
from returnn_lite.ir import Ending
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.open_body import InsertionPoint, OpenState
from returnn_lite.ir.ops.search import Choose, FirstBeam
from returnn_lite.ir.ops.sources import StepIndex
from returnn_lite.ir.reachability import reachable
from returnn_lite.ir.views import View, view_of
from returnn_lite.layers.base import LayerError


class LoopBody:
    """What all layers of a body share. Made at its point; `around` is that of the loop itself."""

    def __init__(
        self,
        builder: Builder,
        path: str,
        over: Dim,
        limit: View | None,
        around: InsertionPoint,
        batch: Dim,
        searches: bool,
    ) -> None:
        self.builder = builder
        self.path = path
        self.over = over
        self.limit = limit
        """The most steps of each sequence, if `end` says how many there are."""
        self.point = builder.point
        self.around = around
        self.searches = searches
        """Whether a choice of this loop, or of one around, extends hypotheses."""
        self.beam: Dim | None = None
        self.reported: View | None = None
        """With `beam` those of the step's last choice, which is what is left after search."""
        self._batch = batch
        self._copies: dict[View, tuple[View, Copy]] = {}
        self._ended_before: View | None = None
        self._ended: OpenState | None = None
        self._scores: OpenState | None = None
        self._current: View | None = None
        self._last: tuple[str, View] | None = None

    def unsliced(self, value: View) -> View:
        """The value with a copy of the loop's dim in place of it."""
        if self.over not in value.type:
            return value
        if value not in self._copies:
            copy = Copy(f"{self.over.name}'", self.over.kind, self.over.size, self.over.over, of=self.over)
            with self.builder.at(self.around):
                relabelled = self.builder.relabel(value, self.over, copy, "a copy for use inside the loop")
            self._copies[value] = relabelled, copy
        copied, copy = self._copies[value]
        return copied.with_type(value.type.renamed({self.over: copy}))

    # How it ends

    def ended_before(self) -> View:
        """Whether a hypothesis (a sequence) had ended before this step."""
        if self._ended_before is None:
            with self.builder.at(self.point):
                self._ended_before = self._make_ended_before()
        return self._ended_before

    def _make_ended_before(self) -> View:
        builder = self.builder
        step = builder.apply(StepIndex())
        limit = self.limit if self.limit is not None else builder.length(self.over)
        beyond = builder.binary("greater_equal", step, limit)
        if self.limit is None:
            return beyond
        with builder.at(self.around):
            not_yet = builder.constant(False, "bool")
        self._ended = builder.delay(f"{self.path}:ended", MarkedType((), "bool"), not_yet)
        return builder.binary("logical_or", self._ended.now, beyond)

    def ending(self, end: View, include_end: bool) -> Ending:
        """How a loop ends that has a limit, once it is known where a sequence does."""
        before, builder = self.ended_before(), self.builder
        assert self._ended is not None and self.limit is not None
        with builder.at(self.point):
            ended = builder.binary("logical_or", end, before)
            if include_end:  # the last step that its limit allows is the one that a sequence ends with
                last = builder.binary("greater_equal", builder.add(builder.apply(StepIndex()), 1), self.limit)
                ended = builder.binary("logical_or", ended, last)
        self._ended.next = ended
        return Ending(ended, self.limit, include_end)

    # Scores

    def before(self, needed: Sequence[View]) -> View:
        """The scores that a choice starts from: those after the choice before, in this step or the one before.

        `needed` is what the choice depends on: the label of the choice before must be under it. Raises LayerError.
        """
        builder = self.builder
        behind = reachable([value.of for value in needed], builder.operands_of)
        if self._last is not None and self._last[1] not in behind:
            raise LayerError(
                f"which choice is first, '{self._last[0]}' or this one? Neither needs the other in the same step",
                "Name one in the other's explicit_search_sources.",
                "explicit_search_sources",
            )
        if self._current is None:
            with builder.at(self.around):
                init = builder.constant(0.0)
            with builder.at(self.point):
                self._scores = builder.delay(f"{self.path}:score", MarkedType(()), init)
            self._current = self._scores.now
        return self._current

    def scored(self, score: View) -> None:
        """Says what the scores are now."""
        self._current = score

    def chosen(self, beam: Dim, label: View, score: View, reported: View) -> None:
        """Says that a choice has been made. `reported` are the scores as they are reported where it is the last."""
        self.scored(score)
        self._last = (self.builder.origin.layer, label)
        self.beam, self.reported = beam, reported

    @property
    def pointers(self) -> View | None:
        """Which hypothesis each one continues since the step's last choice; None if nothing searches."""
        if self.beam is None or self._last is None:
            return None
        choice = self.builder.producer(self._last[1])
        assert choice is not None and isinstance(choice.op, Choose), "what says that it has chosen is a choice"
        return view_of(choice.outputs[1])

    def complete_scores(self) -> None:
        """Connects the scores of the next step; in the first step there is one hypothesis."""
        if self._scores is None:
            return
        self._scores.next = self._current
        if self.beam is None:
            return
        with self.builder.at(self.around):
            first = self.builder.apply(FirstBeam(self.beam, self._scores.now.type.dtype))
            self._scores.init = self.builder.expand(first, self._batch)
