"""What a search does not need leaves it."""

from __future__ import annotations

import pytest

from returnn_lite.dims import Symbol
from returnn_lite.ir import Graph
from returnn_lite.ir.ops.histories import CumConcatStep, EmptyHistory
from returnn_lite.ir.ops.reduction import Reduce
from returnn_lite.ir.ops.sources import RandomDraw
from returnn_lite.passes.split_searches import needed_by_search, split_searches
from tests.passes.small import Case, Searching, Small, assert_text


def nothing_else() -> Graph:
    """All of it is needed: nothing changes."""
    s = Searching()
    label, score = s.choose(s.log_p(s.label.now))
    return s.closed(label, score)


def behind() -> Graph:
    """What only reads labels is a loop behind the search."""
    s = Searching()
    label, score = s.choose(s.log_p(s.label.now))
    return s.closed(label, score, y=s.b.unary("exp", s.log_p(label)))


def a_recurrence_behind() -> Graph:
    """With its state."""
    s = Searching()
    label, score = s.choose(s.log_p(s.label.now))
    before = s.b.delay("sum", s.logits.type, s.logits)
    before.next = s.b.add(before.now, s.log_p(label))
    return s.closed(label, score, y=before.next)


def frames_so_far() -> Graph:
    """A history that a choice reads is not kept step by step: what else reads it stays."""
    s = Searching()
    frames = Symbol("history", varies_over=(s.steps,))
    with s.b.at_outer():
        empty, zero = s.b.apply(EmptyHistory(frames), s.logits), s.b.constant(0, "int32")
    before, count = s.b.delay("frames", empty.type, empty), s.b.delay("count", zero.type, zero)
    so_far = s.b.emit(CumConcatStep(frames), s.log_p(s.label.now), before.now, count.now)
    before.next, count.next = so_far
    label, score = s.choose(s.b.apply(Reduce("mean", (frames,)), before.next))
    return s.closed(label, score, y=s.b.unary("exp", s.b.apply(Reduce("max", (frames,)), before.next)))


def noise() -> Graph:
    """Every step of the loop behind the search has its own draw, as in the search."""
    s = Searching()
    label, score = s.choose(s.log_p(s.label.now))
    drawn = s.b.apply(RandomDraw("normal", 0.0, 1.0, (s.classes,), "seed", "float32", fresh=True))
    return s.closed(label, score, y=s.b.add(s.log_p(label), drawn))


CASES = [nothing_else, behind, a_recurrence_behind, frames_so_far, noise]


@pytest.mark.parametrize("case", CASES)
def test_split_searches(case: Case, request: pytest.FixtureRequest) -> None:
    assert_text(f"split_searches/{case.__name__}", case, split_searches, request)


def test_nothing_to_split_is_the_same_graph() -> None:
    for graph in (nothing_else(), Small().closed()):
        assert split_searches(graph) is graph


def test_what_a_search_needs() -> None:
    """Its choices, its end, and all that these need, also of the step before."""
    (loop,) = (node.op for node in behind().nodes if hasattr(node.op, "body"))
    needed = needed_by_search(loop)
    assert [node.op.label for node in loop.body if node not in needed] == ["cast", "add", "softmax", "exp"]
    assert all(state in needed for state in loop.states)
