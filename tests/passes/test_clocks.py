"""Where clocks meet, values are converted, each once."""

from __future__ import annotations

import pytest

from returnn_lite.dims import DimKind, Masked, Symbol
from returnn_lite.ir import Graph
from returnn_lite.ir.ops.axes import WindowOfSteps
from returnn_lite.ir.ops.reduction import Reduce
from returnn_lite.passes.clocks import clocks
from tests.passes.meaning import B, T
from tests.passes.small import Case, Small, assert_meaning, assert_text


def no_mask() -> Graph:
    """Nothing changes."""
    g = Small()
    return g.closed(y=g.cycle(g.frame))


def a_faster_value_under_a_mask() -> Graph:
    """It goes through `when`, and what reads the masked value through `current`."""
    g = Small()
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        h = g.cycle(g.tanh(g.frame))
    return g.closed(y=g.add(g.frame, h))


def two_readers() -> Graph:
    """A value is converted once for each clock."""
    g = Small()
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        one, other = g.tanh(g.frame), g.add(g.frame, g.frame)
    return g.closed(y=g.add(one, one), z=g.add(one, other))


def held_and_masked_again() -> Graph:
    """By the same mask: that is the value."""
    g = Small()
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        one = g.tanh(g.frame)
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        other = g.tanh(one)
    return g.closed(y=other)


def what_no_step_changes() -> Graph:
    """It belongs to every clock; under a mask it is nothing before the first frame."""
    g = Small()
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        inside = g.tanh(g.start)
        y = g.add(g.frame, g.tanh(g.start))
    return g.closed(y=y, z=g.tanh(inside))


def said_before_the_first_tick() -> Graph:
    """What is held begins with what was said."""
    g = Small()
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        h = g.tanh(g.frame)
    g.b.hold(h, g.start)
    return g.closed(y=g.tanh(h))


def a_mask_in_a_mask() -> Graph:
    """The inner mask is one on the outer one's frames."""
    g = Small()
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        inner = g.b.binary("greater", g.total(g.frame), 0.0)
        with g.b.masked(inner, Masked(g.masked_steps, inner, "inner", (B,))):
            h = g.tanh(g.frame)
    return g.closed(y=h)


def a_mask_in_a_mask_that_begins_with_what_was_said() -> Graph:
    """The inner mask is one of every step, taken at the outer one's frames; of both what is held begins alike."""
    g = Small()
    inner = g.b.binary("greater", g.total(g.frame), 0.0)
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        with g.b.masked(inner, Masked(g.masked_steps, inner, "inner", (B,))):
            h = g.tanh(g.frame)
        g.b.hold(h, g.start)
    return g.closed(y=h)


def two_masks() -> Graph:
    """From one to the other through the steps of the loop."""
    g = Small()
    other = g.b.binary("greater", g.total(g.frame), 0.0)
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        one = g.tanh(g.frame)
    with g.b.masked(other, Masked(T, other, "other", (B,))):
        two = g.tanh(one)
    return g.closed(y=two)


def after_the_last_step() -> Graph:
    """A result is what is held then."""
    g = Small()
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        h = g.tanh(g.frame)
    return g.b.graph(g.b.close_loop([], [("last", h)]))


def a_mask_that_no_step_changes() -> Graph:
    """A sequence has all frames of it, or none."""
    g = Small()
    mask = g.b.binary("greater", g.total(g.start), 0.0)
    with g.b.masked(mask, Masked(T, mask, "always", (B,))):
        h = g.tanh(g.frame)
    return g.closed(y=h)


def steps_to_come_of_what_no_step_changes() -> Graph:
    """At the last step there is none: so a mask takes its frames of them."""
    g = Small()
    window = Symbol("window", DimKind.SPATIAL, 2)
    both = g.b.apply(Reduce("sum", (window,)), g.b.apply(WindowOfSteps(window, 0), g.start))
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        h = g.cycle(both)
    return g.closed(y=h)


CASES = [
    no_mask,
    a_faster_value_under_a_mask,
    two_readers,
    held_and_masked_again,
    what_no_step_changes,
    said_before_the_first_tick,
    a_mask_in_a_mask,
    a_mask_in_a_mask_that_begins_with_what_was_said,
    two_masks,
    after_the_last_step,
    a_mask_that_no_step_changes,
    steps_to_come_of_what_no_step_changes,
]


@pytest.mark.parametrize("case", CASES)
def test_clocks(case: Case, request: pytest.FixtureRequest) -> None:
    assert_text(f"clocks/{case.__name__}", case, clocks, request)
    assert_meaning(case, clocks)


def test_nothing_masked_is_the_same_graph() -> None:
    graph = no_mask()
    assert clocks(graph) is graph
