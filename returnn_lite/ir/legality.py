"""What a pass makes true of a graph. Which rules hold after which pass, `passes/pipeline.py` says."""

from __future__ import annotations

from returnn_lite.ir.body import has_order, is_clocked, needs_all_steps, searches
from returnn_lite.ir.nodes import Loop, Node
from returnn_lite.ir.rule import Level, LoopRule, NodeRule, Rule
from returnn_lite.ir.values import Clock

# Of nodes


def _across_clocks(node: Node, level: Level) -> str | None:
    if not level.clocks:
        return None
    masks = [(mask.value, node.clock[:depth]) for depth, mask in enumerate(node.clock)]
    crossing = node.op.crossing
    if crossing is None:
        read = [(value, node.clock) for value in node.inputs]
    elif crossing.holds:
        read = [(value, node.clock) for value in node.inputs[1:]]
    else:
        read = [(value, node.clock[:-1]) for value in node.inputs]
    for value, clock in (*read, *masks):
        if level.is_elsewhere(value, clock):
            return f"{value.name} is of another clock"
    return None


def _clocked(node: Node, level: Level) -> str | None:
    if node.clock or node.op.crossing is not None:
        return "it does not run at every step of its loop"
    return None


def _implicit(node: Node, level: Level) -> str | None:
    if node.op.lacks_beam:
        return "it has no dim of the hypotheses"
    return None


def _needing_all_steps(node: Node, level: Level) -> str | None:
    if level.loop is not None and needs_all_steps(node):
        return "it needs all steps at once and is in a loop"
    return None


# Of loops


def _clocks(loop: Loop) -> list[Clock]:
    return [element.clock for element in (*loop.elements, *loop.stacks)] + [state.clock for state in loop.states]


def _untraced(loop: Loop, body: Level) -> str | None:
    if searches(loop) != (loop.search is not None):
        return "it has choices without back-pointers, or back-pointers without choices"
    return None


def _results_across_clocks(loop: Loop, body: Level) -> str | None:
    read = [(state.next, state.clock) for state in loop.states]
    read += [(stack.now, stack.clock) for stack in loop.stacks] + [(final.now, ()) for final in loop.finals]
    read += [(loop.ending.ended, ())] if loop.ending is not None else []
    for value, clock in read:
        if body.is_elsewhere(value, clock):
            return f"the result {value.name} is of another clock"
    for value, _ in loop.holds:
        if body.clocks.get(value):
            return f"{value.name} is still held by the loop"
    return None


def _without_cycle(loop: Loop, body: Level) -> str | None:
    return None if has_order(loop) else "no step needs the one before"


def _clocked_search(loop: Loop, body: Level) -> str | None:
    if (searches(loop) or len(body.loops()) > 1) and (is_clocked(loop) or any(_clocks(loop))):
        return "parts of it do not run at every step"
    return None


def _clocked_parts(loop: Loop, body: Level) -> str | None:
    if any(_clocks(loop)):
        return "parts of it do not run at every step"
    return None


ON_ONE_CLOCK: tuple[Rule, ...] = (
    NodeRule("no edge crosses clocks", _across_clocks),
    LoopRule("no result crosses clocks", _results_across_clocks),
)
SEARCH_AT_EVERY_STEP: tuple[Rule, ...] = (LoopRule("searches and loops in loops run at every step", _clocked_search),)
AT_EVERY_STEP: tuple[Rule, ...] = (
    NodeRule("every node runs at every step", _clocked),
    LoopRule("every element, state and stack is one of every step", _clocked_parts),
)
EXPLICIT_BEAMS: tuple[Rule, ...] = (
    NodeRule("the hypotheses are a dim", _implicit),
    LoopRule("choices are traced back", _untraced),
)
STEP_BY_STEP: tuple[Rule, ...] = (NodeRule("a body can be run step by step", _needing_all_steps),)
FOR_CYCLES: tuple[Rule, ...] = (LoopRule("a loop is there for what needs the step before", _without_cycle),)
