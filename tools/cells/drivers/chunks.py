"""A long sequence in parts, each of which begins with the state that the one before ended with.

The state between is recorded: the later part begins with that, and the earlier one is compared with it. No gradient
goes from one to the other.
"""

from __future__ import annotations

from tools.cells.case import Case
from tools.cells.plan import Plan, frames_of, sequence
from tools.cells.recurrence import Recurrence


def saved_states(case: Case, in_loop: bool) -> Plan:
    """static_state_saving_rnn: one input, cut into the parts `chunk0`, `chunk1`, ..."""
    outputs = case.keys("out/")
    found, start, before = Plan(), 0, case.keys("state0/")
    for key in outputs:
        name = key.removeprefix("out/")
        end = start + case.arrays[key].shape[1]
        after = case.keys(f"state/{name}/")
        found |= sequence(case, f"in_{name}", "in/x", cut=slice(start, end))
        found |= Recurrence(name, case.constructor, f"data:in_{name}", case.keys("param/"), before, after).plan(
            case, in_loop
        )
        found |= frames_of(case, key, [name])
        start, before = end, after
    return found


def stateful(case: Case, in_loop: bool) -> Plan:
    """Keras' stateful layer: a batch from zero, and the recorded batch from its last state."""
    parameters, between = case.keys("param/"), case.keys("mid_state/")
    found = sequence(case, "before", "in/x_before") | sequence(case, "data", "in/x")
    first = Recurrence("first", case.constructor, "data:before", parameters, (), between)
    second = Recurrence("output", case.constructor, "data", parameters, between, case.keys("state/"))
    found |= first.plan(case, in_loop) | second.plan(case, in_loop)
    return found | frames_of(case, "out_before", ["first"]) | frames_of(case, "out/y", ["output"])
