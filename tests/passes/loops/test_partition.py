"""Which vertices of a body are a group, in which order, and which groups stay in a loop."""

from __future__ import annotations

import pytest

from returnn_lite.ir import Loop, Node
from returnn_lite.ir.body import BodyGraph
from returnn_lite.passes.loops.partition import Group, partition
from tests.passes.small import Case
from tests.passes.test_beams import what_no_hypothesis_changes
from tests.passes.test_distribute_loops import (
    a_recurrence,
    a_recurrence_in_a_cycle,
    a_step_before,
    around_a_cycle,
    one_cycle_of_two_states,
)


def _in_words(group: Group) -> str:
    names = [vertex.op.label if isinstance(vertex, Node) else vertex.now.name for vertex in group.vertices]
    return f"{'stays' if group.stays else 'leaves'}: {', '.join(names)}"


def _groups(case: Case, only_required: bool = False) -> list[str]:
    (loop,) = (node.op for node in case().nodes if isinstance(node.op, Loop))
    return [_in_words(group) for group in partition(BodyGraph(loop), "loop", only_required)]


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (around_a_cycle, ["leaves: dot", "leaves: relabel", "stays: add, tanh, h", "leaves: dot", "leaves: relabel"]),
        (one_cycle_of_two_states, ["stays: add, tanh, one, other"]),
        (a_step_before, ["leaves: tanh", "leaves: h", "leaves: add"]),
        (a_recurrence, ["leaves: cumsum_step, h", "leaves: tanh"]),
        (a_recurrence_in_a_cycle, ["stays: tanh, add, cumsum_step, h"]),
    ],
)
def test_groups(case: Case, expected: list[str]) -> None:
    assert _groups(case) == expected


def test_only_what_is_required_leaves() -> None:
    assert _groups(around_a_cycle, only_required=True) == ["stays: dot, relabel, add, tanh, dot, relabel, h"]


def test_what_varies_in_a_loop_that_ends_itself_stays_together() -> None:
    """What no step changes leaves it."""
    *others, last = sorted(_groups(what_no_hypothesis_changes))
    assert "leaves: exp" in others and all(group.startswith("leaves") for group in others)
    assert last.startswith("stays: ") and {"choose", "equal", "label", "score", "ended"} <= set(last[7:].split(", "))
