"""What is on slower clocks as plain work of every step."""

from __future__ import annotations

import pytest

from returnn_lite.dims import Masked
from returnn_lite.ir import Graph
from returnn_lite.ir.ops.sources import StepIndex
from returnn_lite.passes.clocks import clocks
from returnn_lite.passes.guard import guard, guard_search
from tests.passes.meaning import B
from tests.passes.small import Case, Small, assert_meaning, assert_text
from tests.passes.test_clocks import a_faster_value_under_a_mask, a_mask_in_a_mask, no_mask, said_before_the_first_tick


def a_state() -> Graph:
    """It keeps its value where the mask is false."""
    g = Small()
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        h = g.cycle(g.frame)
    return g.closed(y=h)


def a_state_in_a_mask_in_a_mask() -> Graph:
    """It changes where both masks are true. The inner one is computed at every step."""
    g = Small()
    inner = g.b.binary("greater", g.total(g.frame), 0.0)
    with (
        g.b.masked(g.b.element(g.mask), g.masked_steps),
        g.b.masked(inner, Masked(g.masked_steps, inner, "inner", (B,))),
    ):
        h = g.cycle(g.frame)
    return g.closed(y=h)


def a_step_index() -> Graph:
    """The number of a masked step is counted."""
    g = Small()
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        number = g.b.apply(StepIndex())
        y = g.add(g.frame, g.b.cast(number, "float64"))
    return g.closed(y=y)


def _guarded(graph: Graph) -> Graph:
    return guard(clocks(graph))


CASES = [
    a_state,
    a_state_in_a_mask_in_a_mask,
    a_step_index,
    a_faster_value_under_a_mask,
    a_mask_in_a_mask,
    said_before_the_first_tick,
]


@pytest.mark.parametrize("case", CASES)
def test_guard(case: Case, request: pytest.FixtureRequest) -> None:
    assert_text(f"guard/{case.__name__}", case, _guarded, request)
    assert_meaning(case, _guarded)


def test_only_searches_are_guarded_before_beams() -> None:
    graph = clocks(a_state())
    assert guard_search(graph) is graph
    plain = no_mask()
    assert guard(plain) is plain
