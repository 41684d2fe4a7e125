"""What is on slower clocks as plain work of every step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from returnn_lite.dims import Masked
from returnn_lite.ir import Graph
from returnn_lite.ir.legality import ON_ONE_CLOCK
from returnn_lite.ir.ops.sources import StepIndex
from returnn_lite.ir.verify import verify
from returnn_lite.passes.clocks import clocks
from returnn_lite.passes.guard import guard, guard_search
from tests.passes.meaning import LENGTHS, B, F, T, feeds, meaning
from tests.passes.small import Case, Small, assert_meaning, assert_text, distributed
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


@pytest.mark.parametrize("run", [_guarded, distributed])
def test_a_state_with_no_node_on_its_clock(run: Callable[[Graph], Graph]) -> None:
    """At the frames of the mask it is x of the frame of the mask before, or `start`; between them that is held."""
    g = Small()
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        before = g.state()
        before.next = g.frame
    g.b.hold(before.now, g.start)
    graph = g.closed(y=before.now)
    given = feeds(graph)
    expected = np.zeros((3, 4, 2))
    for sequence, length in enumerate(LENGTHS[T]):
        held = state = given["start"][sequence]
        for step in range(length):
            if given["m1"][sequence, step]:
                held, state = state, given["x"][sequence, step]
            expected[sequence, step] = held
    result = verify(run(graph), "this", ON_ONE_CLOCK)
    np.testing.assert_allclose(meaning(result)["y"].over((B, T, F)), expected)


def test_only_searches_are_guarded_before_beams() -> None:
    graph = clocks(a_state())
    assert guard_search(graph) is graph
    plain = no_mask()
    assert guard(plain) is plain
