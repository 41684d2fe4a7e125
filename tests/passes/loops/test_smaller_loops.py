"""A part of a body as a loop of its own: over which steps it runs, and what it is given."""

from __future__ import annotations

import pytest

from returnn_lite.ir import Graph
from returnn_lite.ir.ops.sources import StepIndex
from returnn_lite.passes.dead_nodes import dead_nodes
from returnn_lite.passes.distribute_loops import distribute_loops
from tests.passes.small import Case, Small, assert_meaning, assert_text, distributed
from tests.passes.test_guard import a_state


def nothing_given() -> Graph:
    """A cycle under a mask that reads nothing else: the steps of the mask are what it is given."""
    g = Small()
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        before = g.state()
        before.next = g.tanh(before.now)
    return g.closed(y=before.next)


def a_cycle_across_clocks() -> Graph:
    """It runs at every step, and what is masked in it keeps its value at others."""
    g = Small()
    before = g.state()
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        masked = g.tanh(before.now)
    before.next = g.add(masked, g.frame)
    return g.closed(y=before.next)


def a_cycle_across_clocks_read_under_its_mask() -> Graph:
    """Of what it makes at every step, only the frames of the mask are read behind it."""
    g = Small()
    before = g.state()
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        masked = g.tanh(before.now)
        shown = g.dot(masked)
    before.next = g.add(masked, g.frame)
    return g.closed(y=shown)


def after_the_last_step() -> Graph:
    """Of a cycle that is left to run."""
    g = Small()
    h = g.cycle(g.dot(g.frame))
    return g.b.graph(g.b.close_loop([("y", h)], [("last", h)]))


def what_no_step_changes() -> Graph:
    """It is computed outside, and a loop reads it as it is."""
    g = Small()
    return g.closed(y=g.cycle(g.tanh(g.start)))


def read_by_two_loops() -> Graph:
    """What is done at once is given to each of them."""
    g = Small()
    x = g.tanh(g.frame)
    return g.closed(y=g.cycle(x, "one"), z=g.cycle(x, "other"))


def the_same_for_all_sequences() -> Graph:
    """What has no batch gets that of the mask where its frames are picked, and so does a state."""
    g = Small()
    step = g.b.cast(g.b.apply(StepIndex()), "float64")
    with g.b.at_outer():
        zero = g.b.constant(0.0, "float64")
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        before = g.b.delay("h", zero.type, zero)
        before.next = g.tanh(g.add(step, before.now))
    return g.closed(y=before.next)


CASES = [
    a_state,
    nothing_given,
    a_cycle_across_clocks,
    a_cycle_across_clocks_read_under_its_mask,
    after_the_last_step,
    what_no_step_changes,
    read_by_two_loops,
    the_same_for_all_sequences,
]


@pytest.mark.parametrize("case", CASES)
def test_smaller_loops(case: Case, request: pytest.FixtureRequest) -> None:
    assert_text(f"smaller_loops/{case.__name__}", case, distributed, request)
    assert_meaning(case, distributed)


def test_what_says_how_many_steps_there_are_stays() -> None:
    """A loop that reads nothing has just that; distributed once more, it still has."""
    assert_meaning(nothing_given, lambda graph: dead_nodes(distribute_loops(distributed(graph))))
