"""What step-by-step work becomes on whole sequences, and on those of a mask."""

from __future__ import annotations

import pytest

from returnn_lite.ir import Graph
from returnn_lite.ir.ops.recurrence import CumsumStep
from tests.passes.small import Case, Small, assert_meaning, assert_text, distributed
from tests.passes.test_guard import a_step_index


def a_masked_step_before() -> Graph:
    """A delay over the frames of the mask."""
    g = Small()
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        before = g.state()
        before.next = g.tanh(g.frame)
        y = g.add(before.now, g.frame)
    return g.closed(y=y)


def a_masked_recurrence() -> Graph:
    """Its whole form, over the frames of the mask."""
    g = Small()
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        total = g.state()
        total.next = g.b.apply(CumsumStep(), g.frame, total.now)
    return g.closed(y=total.next)


def a_state_that_never_changes() -> Graph:
    """What is next is the same in all steps: it is repeated before it is delayed."""
    g = Small()
    before = g.state()
    before.next = g.tanh(g.start)
    return g.closed(y=g.add(before.now, g.frame))


def a_recurrence_of_what_no_step_changes() -> Graph:
    """Its operand is repeated."""
    g = Small()
    total = g.state()
    total.next = g.b.apply(CumsumStep(), g.tanh(g.start), total.now)
    return g.closed(y=total.next)


CASES = [
    a_step_index,
    a_masked_step_before,
    a_masked_recurrence,
    a_state_that_never_changes,
    a_recurrence_of_what_no_step_changes,
]


@pytest.mark.parametrize("case", CASES)
def test_whole_sequences(case: Case, request: pytest.FixtureRequest) -> None:
    assert_text(f"whole_sequences/{case.__name__}", case, distributed, request)
    assert_meaning(case, distributed)
