"""A loop behind a search: what the search keeps for it, and what is computed in both."""

from __future__ import annotations

import pytest

from returnn_lite.ir import Graph
from returnn_lite.passes.split_searches import split_searches
from tests.passes.small import Case, Searching, assert_text


def needed_in_both() -> Graph:
    """What no step changes is computed again, not kept."""
    s = Searching()
    alike = s.b.unary("exp", s.logits)
    label, score = s.choose(s.b.add(alike, s.log_p(s.label.now)))
    return s.closed(label, score, y=s.b.add(alike, s.log_p(label)))


def a_state_of_the_search() -> Graph:
    """Its frames are kept."""
    s = Searching()
    label, score = s.choose(s.log_p(s.label.now))
    return s.closed(label, score, y=s.b.unary("exp", s.b.cast(s.label.now, "float32")))


def nothing_of_the_search() -> Graph:
    """A recurrence that reads no label is given one, so that it takes as many steps."""
    s = Searching()
    label, score = s.choose(s.log_p(s.label.now))
    before = s.b.delay("power", s.logits.type, s.logits)
    before.next = s.b.mul(before.now, s.logits)
    return s.closed(label, score, y=before.next)


CASES = [needed_in_both, a_state_of_the_search, nothing_of_the_search]


@pytest.mark.parametrize("case", CASES)
def test_loop_parts(case: Case, request: pytest.FixtureRequest) -> None:
    assert_text(f"loop_parts/{case.__name__}", case, split_searches, request)
