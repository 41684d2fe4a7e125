"""What leaves a loop, what stays together, and what becomes of masks between the two."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from returnn_lite.compiler import build, optimized
from returnn_lite.dims import Dim, Masked, Symbol, TensorType
from returnn_lite.ir import Ending, Graph, Loop, Value
from returnn_lite.ir.ops.histories import CumConcatStep, EmptyHistory
from returnn_lite.ir.ops.recurrence import CumsumStep
from returnn_lite.ir.ops.reduction import Reduce
from returnn_lite.ir.ops.sources import StepIndex
from returnn_lite.passes.distribute_loops import distribute_loops, distribute_unordered
from tests.passes.meaning import B, F, T
from tests.passes.small import Case, Small, assert_meaning, assert_text, distributed
from tests.passes.test_clocks import (
    a_faster_value_under_a_mask,
    a_mask_in_a_mask,
    a_mask_in_a_mask_that_begins_with_what_was_said,
    steps_to_come_of_what_no_step_changes,
    two_masks,
    what_no_step_changes,
)
from tests.properties.running import assert_equal, feed_of, run

DATA = {"data": {"dim": 3}, "classes": {"dim": 3, "sparse": True, "available_for_inference": False}}


def test_a_loop_of_all_steps_that_makes_the_mask_of_what_others_read() -> None:
    """The frames of a masked layer are taken out of such a loop with a mask that the loop makes itself: after it."""
    linear = {"class": "linear", "n_out": 3, "activation": "tanh"}
    masked = {"class": "masked_computation", "mask": "prev:m", "unit": {**linear, "from": "data"}}
    unit: dict[str, Any] = {
        "k": {**masked, "from": "data:source"},
        "first": {"class": "reduce", "mode": "sum", "axis": "F", "from": "k"},
        "m": {"class": "compare", "from": "first", "value": 0.1, "kind": "less", "initial_output": True},
        "behind": {**masked, "from": "k", "is_output_layer": True},
        "output": {"class": "copy", "from": "m"},
    }
    network = {"output": {"class": "rec", "from": "data", "unit": unit}}
    config = {"network": network, "extern_data": DATA, "behavior_version": 21}
    built = build(config, "train")
    feed, lengths = feed_of(config, ([4, 3, 1], [2, 1, 1]))
    plain = run(built, optimized(built, False), feed, lengths)
    assert_equal(run(built, optimized(built, True), feed, lengths), plain)
    assert np.ptp(plain["layer:output/behind"].array) > 0


def all_of_it() -> Graph:
    """No cycle: no loop."""
    g = Small()
    return g.closed(y=g.tanh(g.dot(g.frame)))


def around_a_cycle() -> Graph:
    """What comes before and behind a cycle is done at once."""
    g = Small()
    return g.closed(y=g.dot(g.cycle(g.dot(g.frame))))


def two_cycles() -> Graph:
    """Each gets a loop of its own."""
    g = Small()
    first = g.cycle(g.frame, "first")
    return g.closed(y=g.cycle(g.dot(first), "second"))


def one_cycle_of_two_states() -> Graph:
    """States that need each other stay together."""
    g = Small()
    one, other = g.state("one"), g.state("other")
    one.next = g.add(g.frame, other.now)
    other.next = g.tanh(one.now)
    return g.closed(y=other.next)


def a_step_before() -> Graph:
    """A state that is in no cycle is a delay over the steps."""
    g = Small()
    before = g.state()
    before.next = g.tanh(g.frame)
    return g.closed(y=g.add(before.now, g.frame))


def a_recurrence() -> Graph:
    """Alone in its cycle it has a whole form; its state, where others read it, is a delay of that."""
    g = Small()
    total = g.state()
    total.next = g.b.apply(CumsumStep(), g.frame, total.now)
    return g.closed(y=total.next, z=g.tanh(total.now))


def a_recurrence_in_a_cycle() -> Graph:
    """With more in its cycle it stays step by step."""
    g = Small()
    total = g.state()
    summed = g.b.apply(CumsumStep(), g.add(g.frame, g.tanh(total.now)), total.now)
    total.next = summed
    return g.closed(y=summed)


def what_each_step_has_alike() -> Graph:
    """It is computed once, and repeated only where it is shown."""
    g = Small()
    return g.closed(y=g.tanh(g.start))


def the_number_of_the_step() -> Graph:
    """It becomes 0, 1, 2, ..."""
    g = Small()
    return g.closed(y=g.add(g.frame, g.b.cast(g.b.apply(StepIndex()), "float64")))


def a_loop_that_ends_itself() -> Graph:
    """It takes another number of steps in each step of the loop around: it stays there."""
    g = Small()
    b, x, most = g.b, g.frame, g.b.constant(3, "int32")
    b.open_loop(Symbol("steps", varies_over=(B,)))
    before = b.delay("total", TensorType((B, F), "float64"), g.start)
    before.next = g.add(before.now, x)
    ended = b.binary("greater", g.total(before.next), 0.5)
    found = b.close_loop([], [("total", before.next)], Ending(ended, most))
    return g.closed(y=g.tanh(found["total"]))


def _frames_so_far(g: Small) -> tuple[Dim, Value]:
    """The dim of a history, and the frames in it, on the clock of the place."""
    b, dim = g.b, Symbol("history", varies_over=(T,))
    with b.at_outer():
        empty, zero = b.apply(EmptyHistory(dim), g.start), b.constant(0, "int32")
    before, count = b.delay("frames", empty.type, empty), b.delay("count", zero.type, zero)
    before.next, count.next = b.emit(CumConcatStep(dim), g.frame, before.now, count.now)
    return dim, before.next


def a_history_under_a_mask() -> Graph:
    """It sees the frames of the mask, and each of these as many of them as there are by then."""
    g = Small()
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        dim, frames = _frames_so_far(g)
        mean = g.b.apply(Reduce("mean", (dim,)), frames)
    return g.closed(y=mean)


def a_history_under_a_mask_that_a_cycle_across_clocks_sees() -> Graph:
    """It stays in the loop of the cycle: how long it is between the frames of the mask, nothing else says."""
    g = Small()
    h = g.state()
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        dim, frames = _frames_so_far(g)
        mean = g.b.apply(Reduce("mean", (dim,)), g.tanh(g.add(frames, h.now)))
    h.next = g.add(g.frame, mean)
    return g.closed(y=h.next)


def a_cycle_through_a_mask_in_a_mask() -> Graph:
    """What it reads inside leaves the loop, and is brought back to every step, mask by mask."""
    g = Small()
    h = g.state()
    with g.b.masked(g.b.element(g.mask), g.masked_steps):
        inner = g.b.binary("greater", g.total(g.frame), 0.0)
        with g.b.masked(inner, Masked(g.masked_steps, inner, "inner", (B,))):
            seen = g.add(g.tanh(g.frame), h.now)
    h.next = g.add(g.frame, seen)
    return g.closed(y=h.next)


PLAIN_CASES = [
    all_of_it,
    around_a_cycle,
    two_cycles,
    one_cycle_of_two_states,
    a_step_before,
    a_recurrence,
    a_recurrence_in_a_cycle,
    what_each_step_has_alike,
    the_number_of_the_step,
    a_loop_that_ends_itself,
]
MASKED_CASES = [
    a_faster_value_under_a_mask,
    a_history_under_a_mask,
    a_history_under_a_mask_that_a_cycle_across_clocks_sees,
    a_cycle_through_a_mask_in_a_mask,
    a_mask_in_a_mask,
    a_mask_in_a_mask_that_begins_with_what_was_said,
    steps_to_come_of_what_no_step_changes,
    two_masks,
    what_no_step_changes,
]


@pytest.mark.parametrize("case", [*PLAIN_CASES, *MASKED_CASES])
def test_distribute_loops(case: Case, request: pytest.FixtureRequest) -> None:
    assert_text(f"distribute_loops/{case.__name__}", case, distributed, request)
    assert_meaning(case, distributed)


@pytest.mark.parametrize("case", [around_a_cycle, two_cycles])
def test_what_can_be_done_step_by_step_stays(case: Case, request: pytest.FixtureRequest) -> None:
    """With `only_required`."""
    assert_text(f"distribute_loops/{case.__name__}_required", case, lambda g: distribute_loops(g, True), request)


def test_later_only_loops_without_order_go() -> None:
    """Rules may show that a loop does not need its state, when loops have been distributed and fused: others stay."""
    assert not any(isinstance(node.op, Loop) for node in distribute_unordered(all_of_it()).nodes)
    assert_meaning(all_of_it, distribute_unordered)
    graph = around_a_cycle()
    assert distribute_unordered(graph) is graph
