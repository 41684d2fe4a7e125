"""What nothing needs is dropped, and no more."""

from __future__ import annotations

import pytest

from returnn_lite.dims import Symbol
from returnn_lite.ir import Graph
from returnn_lite.ir.ops.axes import Relabel
from returnn_lite.ir.ops.reduction import Reduce
from returnn_lite.ir.ops.sources import Iota
from returnn_lite.passes.dead_nodes import dead_nodes
from tests.passes.meaning import B, F, T
from tests.passes.small import Case, G, Small, assert_meaning, assert_text


def outside() -> Graph:
    """A node and a loop that no output needs."""
    g = Small()
    stacks = g.b.close_loop([("y", g.tanh(g.frame))])
    g.b.apply(Relabel(F, G), g.start)
    return g.b.graph({"z": g.tanh(g.start)} if stacks else {})


def in_a_body() -> Graph:
    """A node of a body, and the stack of another."""
    g = Small()
    kept, dropped = g.tanh(g.frame), g.add(g.frame, g.start)
    stacks = g.b.close_loop([("y", kept), ("z", dropped)])
    return g.b.graph({"y": stacks["y"]})


def states() -> Graph:
    """A state that only a dropped stack needs; one that feeds another stays."""
    g = Small()
    first = g.cycle(g.frame, "first")
    second = g.cycle(first, "second")
    third = g.cycle(second, "third")
    stacks = g.b.close_loop([("y", second), ("z", third)])
    return g.b.graph({"y": stacks["y"]})


def a_state_of_itself() -> Graph:
    """A cycle that nothing else needs."""
    g = Small()
    g.cycle(g.frame)
    return g.closed(y=g.tanh(g.frame))


def masks() -> Graph:
    """What a mask is computed from is needed by what it masks."""
    g = Small()
    mask = g.b.binary("greater", g.total(g.frame), 0.5)
    with g.b.masked(mask, g.masked_steps):
        y = g.cycle(g.frame)
    return g.closed(y=y)


def a_dim_of_known_size() -> Graph:
    """What gives a value a dim is not needed by what counts along the dim."""
    g = Small()
    g.b.apply(Relabel(F, G), g.cycle(g.frame))
    return g.closed(y=g.add(g.b.apply(Iota(G, "float64")), g.total(g.frame)))


def a_length_that_a_cycle_gives() -> Graph:
    """What gives a dim its length is needed by what counts along it, and so is the state that this reads."""
    g = Small()
    again = Symbol("again", varies_over=(B,))
    g.b.apply(Relabel(T, again), g.add(g.x, g.cycle(g.frame)))
    counted = g.b.apply(Reduce("sum", (again,)), g.b.apply(Iota(again, "float64")))
    return g.closed(y=g.add(counted, g.total(g.frame)))


def frames_that_count_steps() -> Graph:
    """Of a loop that reads no frames any more, one element says how many steps there are."""
    g = Small()
    g.total(g.frame)
    before = g.state()
    before.next = g.tanh(before.now)
    return g.closed(y=before.next)


def checks() -> Graph:
    """What must be computed although nothing needs it."""
    g = Small()
    y = g.tanh(g.frame)
    stacks = g.b.close_loop([("y", y), ("z", g.add(y, y))])
    return g.b.graph({"y": stacks["y"]}, [stacks["z"]])


CASES = [
    outside,
    in_a_body,
    states,
    a_state_of_itself,
    masks,
    a_dim_of_known_size,
    a_length_that_a_cycle_gives,
    frames_that_count_steps,
    checks,
]


@pytest.mark.parametrize("case", CASES)
def test_dead_nodes(case: Case, request: pytest.FixtureRequest) -> None:
    assert_text(f"dead_nodes/{case.__name__}", case, dead_nodes, request)
    assert_meaning(case, dead_nodes)
