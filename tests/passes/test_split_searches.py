"""What a search does not need leaves it."""

from __future__ import annotations

import pytest

from returnn_lite.ir import Graph
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


CASES = [nothing_else, behind, a_recurrence_behind]


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
