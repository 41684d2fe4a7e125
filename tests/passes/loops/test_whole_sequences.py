"""What step-by-step work becomes on whole sequences, and on those of a mask."""

from __future__ import annotations

import pytest

from returnn_lite.dims import Masked
from returnn_lite.ir import Graph
from returnn_lite.ir.ops.recurrence import CumsumStep
from returnn_lite.ir.ops.sources import RandomDraw, StepIndex
from tests.passes.meaning import B, F, T
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


def a_draw_under_a_mask() -> Graph:
    """The frames of the mask have the draws of their steps."""
    g = Small()
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        drawn = g.b.apply(RandomDraw("normal", 0.0, 1.0, (F,), "seed", "float64", fresh=True))
        y = g.add(g.frame, drawn)
    return g.closed(y=y)


def steps_of_a_mask_that_no_step_changes() -> Graph:
    """They are counted with the mask at every step."""
    g = Small()
    mask = g.b.binary("greater", g.total(g.start), 0.0)
    with g.b.masked(mask, Masked(T, mask, "always", (B,))):
        y = g.add(g.frame, g.b.cast(g.b.apply(StepIndex()), "float64"))
    return g.closed(y=y)


CASES = [
    a_step_index,
    a_masked_step_before,
    a_masked_recurrence,
    a_state_that_never_changes,
    a_recurrence_of_what_no_step_changes,
    a_draw_under_a_mask,
    steps_of_a_mask_that_no_step_changes,
]


@pytest.mark.parametrize("case", CASES)
def test_whole_sequences(case: Case, request: pytest.FixtureRequest) -> None:
    assert_text(f"whole_sequences/{case.__name__}", case, distributed, request)
    assert_meaning(case, distributed)
