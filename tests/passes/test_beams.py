"""Hypotheses become a dim; what a choice reorders is gathered."""

from __future__ import annotations

import pytest

from returnn_lite.ir import Graph
from returnn_lite.passes.beams import beams
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


@pytest.mark.parametrize("case", CASES)
def test_beams(case: Case, request: pytest.FixtureRequest) -> None:
    assert_text(f"beams/{case.__name__}", case, beams, request)


def test_nothing_searched_is_the_same_graph() -> None:
    graph = Small().closed()
    assert beams(graph) is graph
