"""Loops that read each other frame by frame as one."""

from __future__ import annotations

import pytest

from returnn_lite.ir import Graph
from returnn_lite.passes.distribute_loops import distribute_loops
from returnn_lite.passes.fuse_loops import fuse_loops
from tests.passes.small import Case, Small, assert_meaning, assert_text


def in_the_same_step() -> Graph:
    """What the first stacks is read where it is made."""
    g = Small()
    return g.closed(y=g.cycle(g.cycle(g.frame, "first"), "second"))


def one_step_before() -> Graph:
    """The delay between them is the first one's own state, as both begin with the same."""
    g = Small()
    before = g.state("first")
    before.next = g.tanh(g.add(g.frame, before.now))
    return g.closed(y=g.cycle(before.now, "second"))


def two_steps_before() -> Graph:
    """A state of a state."""
    g = Small()
    earlier = g.state("earlier")
    before = g.state("first")
    before.next = g.tanh(g.add(g.frame, before.now))
    earlier.next = before.now
    return g.closed(y=g.cycle(earlier.now, "second"))


def three_of_them() -> Graph:
    """The last reads both."""
    g = Small()
    first = g.cycle(g.frame, "first")
    second = g.cycle(first, "second")
    third = g.state("third")
    third.next = g.tanh(g.add(g.add(first, third.now), second))
    return g.closed(y=third.next)


def with_a_product_between() -> Graph:
    """They stay two: the product is better done at once."""
    g = Small()
    return g.closed(y=g.cycle(g.dot(g.cycle(g.frame, "first")), "second"))


CASES = [in_the_same_step, one_step_before, two_steps_before, three_of_them, with_a_product_between]


def _fused(graph: Graph) -> Graph:
    return fuse_loops(distribute_loops(graph))


@pytest.mark.parametrize("case", CASES)
def test_joined_loop(case: Case, request: pytest.FixtureRequest) -> None:
    assert_text(f"joined_loop/{case.__name__}", case, _fused, request)
    assert_meaning(case, _fused)
