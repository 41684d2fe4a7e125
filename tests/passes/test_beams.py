"""Hypotheses become a dim; what a choice reorders is gathered."""

from __future__ import annotations

import pytest

from returnn_lite.dims import Symbol
from returnn_lite.ir import Graph
from returnn_lite.ir.ops.histories import CumConcatStep, EmptyHistory
from returnn_lite.ir.ops.reduction import Reduce
from returnn_lite.passes.beams import beams
from returnn_lite.passes.errors import PassError
from tests.passes.meaning import B
from tests.passes.small import Case, Searching, Small, assert_text


def one_choice() -> Graph:
    """What was before the choice, and is read by the next step, is gathered by its pointers."""
    s = Searching()
    label, score = s.choose(s.log_p(s.label.now))
    return s.closed(label, score)


def a_state_beside() -> Graph:
    """A value of before the choice that the next step reads."""
    s = Searching()
    log_p = s.log_p(s.label.now)
    label, score = s.choose(log_p)
    kept = s.b.delay("kept", log_p.type, s.logits)
    kept.next = s.b.add(log_p, kept.now)
    return s.closed(label, score)


def read_twice() -> Graph:
    """One gather for all readers."""
    s = Searching()
    log_p = s.log_p(s.label.now)
    label, score = s.choose(log_p)
    after = s.log_p(label)
    return s.closed(label, score, y=s.b.add(after, log_p), z=s.b.mul(after, log_p))


def what_no_hypothesis_changes() -> Graph:
    """It has no beam."""
    s = Searching()
    label, score = s.choose(s.log_p(s.label.now))
    return s.closed(label, score, y=s.b.unary("exp", s.logits))


def two_choices() -> Graph:
    """The second extends the hypotheses of the first; the pointers of a step are those of both."""
    s = Searching()
    first, score = s.choose(s.log_p(s.label.now))
    label, score = s.choose(s.log_p(first), score)
    return s.closed(label, score, first=first)


CASES = [one_choice, a_state_beside, read_twice, what_no_hypothesis_changes, two_choices]


def frames_so_far(masked: bool) -> Graph:
    """A history that is read before the choice, and with its label behind it."""
    s = Searching()
    frames = Symbol("history", varies_over=(s.steps,))
    with s.b.at_outer():
        empty, zero = s.b.apply(EmptyHistory(frames), s.logits), s.b.constant(0, "int32")
    before, count = s.b.delay("frames", empty.type, empty), s.b.delay("count", zero.type.with_dims(B), zero)
    mask = [s.b.binary("not_equal", s.label.now, 1)] if masked else []
    so_far = s.b.emit(CumConcatStep(frames), s.log_p(s.label.now), before.now, count.now, *mask)
    before.next, count.next = so_far
    label, score = s.choose(s.b.apply(Reduce("mean", (frames,)), before.next))
    y = s.b.apply(Reduce("max", (frames,)), s.b.mul(before.next, s.b.cast(label, "float32")))
    return s.closed(label, score, y=y)


def test_frames_in_two_orders(request: pytest.FixtureRequest) -> None:
    """All hypotheses have as many."""
    assert_text("beams/frames_so_far", lambda: frames_so_far(masked=False), beams, request)


def test_frames_in_two_orders_whose_number_differs() -> None:
    """There is one length of a dim in each step."""
    with pytest.raises(PassError, match="how many there are differs from hypothesis to hypothesis"):
        beams(frames_so_far(masked=True))


@pytest.mark.parametrize("case", CASES)
def test_beams(case: Case, request: pytest.FixtureRequest) -> None:
    assert_text(f"beams/{case.__name__}", case, beams, request)


def test_nothing_searched_is_the_same_graph() -> None:
    graph = Small().closed()
    assert beams(graph) is graph
