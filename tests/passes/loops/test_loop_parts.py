"""A loop behind a search: what the search keeps for it, and what is computed in both."""

from __future__ import annotations

import numpy as np
import pytest

from returnn_lite.dims import DimKind, Masked, Symbol
from returnn_lite.ir import Graph
from returnn_lite.ir.ops.axes import WindowOfSteps
from returnn_lite.passes.clocks import clocks
from returnn_lite.passes.pipeline import optimize
from returnn_lite.passes.split_searches import split_searches
from tests.passes.meaning import B, feeds, meaning
from tests.passes.small import BEAM, Case, Searching, assert_text

AHEAD = Symbol("ahead", DimKind.SPATIAL, 2)


def needed_in_both() -> Graph:
    """What no step changes is computed again, not kept."""
    s = Searching()
    alike = s.b.unary("exp", s.logits)
    label, score = s.choose(s.b.add(alike, s.log_p(s.label.now)))
    return s.closed(label, score, y=s.b.add(alike, s.log_p(label)))


def a_state_of_the_search() -> Graph:
    """Its frames are kept."""
    s = Searching()
    label, score = s.choose(s.log_p(s.label.now))
    return s.closed(label, score, y=s.b.unary("exp", s.b.cast(s.label.now, "float32")))


def nothing_of_the_search() -> Graph:
    """A recurrence that reads no label is given one, so that it takes as many steps."""
    s = Searching()
    label, score = s.choose(s.log_p(s.label.now))
    before = s.b.delay("power", s.logits.type, s.logits)
    before.next = s.b.mul(before.now, s.logits)
    return s.closed(label, score, y=before.next)


def what_held_values_begin_with() -> Graph:
    """It is said in the loop that makes them: one in the search, one behind it."""
    s = Searching()
    goes_on = s.b.binary("not_equal", s.label.now, 1)
    with s.b.masked(goes_on, Masked(s.steps, goes_on, "goes on", (B,))):
        seen, shown = s.b.unary("exp", s.log_p(s.label.now)), s.b.unary("tanh", s.log_p(s.label.now))
    for value in (seen, shown):
        s.b.hold(value, s.logits)
    label, score = s.choose(seen)
    return s.closed(label, score, y=s.b.unary("exp", shown))


def steps_to_come() -> Graph:
    """How many there are differs from hypothesis to hypothesis, though what is seen is the same for all."""
    s = Searching()
    label, score = s.choose(s.log_p(s.label.now))
    before = s.b.delay("power", s.logits.type, s.logits)
    before.next = s.b.mul(before.now, s.logits)
    ahead = s.b.apply(WindowOfSteps(AHEAD, 0), before.now)
    return s.closed(label, score, y=ahead)


CASES = [needed_in_both, a_state_of_the_search, nothing_of_the_search, steps_to_come]


@pytest.mark.parametrize("case", CASES)
def test_loop_parts(case: Case, request: pytest.FixtureRequest) -> None:
    assert_text(f"loop_parts/{case.__name__}", case, split_searches, request)


def test_what_held_values_begin_with(request: pytest.FixtureRequest) -> None:
    """As is shown where clocks meet."""
    case = what_held_values_begin_with
    assert_text(f"loop_parts/{case.__name__}", case, lambda graph: clocks(split_searches(graph)), request)


@pytest.mark.parametrize("enabled", [True, False])
def test_each_hypothesis_sees_its_own_steps_to_come(enabled: bool) -> None:
    graph = steps_to_come()
    found = meaning(optimize(graph, enabled=enabled))
    (steps,) = set(found["labels"].dims) - {B, BEAM}
    (classes,) = set(found["y"].dims) - {B, BEAM, steps, AHEAD}
    lengths = (found["labels"].over((B, BEAM, steps)) != 0).sum(-1)  # 0 ends them
    assert len(set(lengths.ravel())) > 1
    logits = feeds(graph)["logits"][:, None, None, None]
    step, ahead = np.arange(lengths.max())[:, None, None], np.arange(2)[:, None]
    there = step + ahead < lengths[..., None, None, None]
    expected = np.where(there & (step < lengths[..., None, None, None]), logits ** (step + ahead + 1), 0)
    np.testing.assert_allclose(found["y"].over((B, BEAM, steps, AHEAD, classes)), expected, rtol=1e-6)
