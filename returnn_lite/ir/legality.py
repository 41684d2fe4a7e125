"""What holds of a graph: rules that always do, and rules that a pass makes true.

A rule looks at a node where it stands, or at a loop once its body has been read, and says what is wrong there.
`ir/verify.py` reads the graph; which rules hold after which pass, `passes/pipeline.py` says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from returnn_lite.dims import Dim, DimError, DimKind
from returnn_lite.ir.body import can_recur, has_order, is_clocked, needs_all_steps, results_of_body, searches
from returnn_lite.ir.nodes import Clock, Loop, Node, Recompute, Value, node_operands, stack_dim, walk
from returnn_lite.ir.op import InLoop


@dataclass
class Level:
    """The outside of all loops, or the body of one, as far as it has been read."""

    bound: set[Value]
    """What this level has bound."""
    lengths: set[Dim]
    """The dims whose lengths are known since this level."""
    bound_anywhere: set[Value]
    """One set for the whole graph."""
    loop: Dim | None = None
    outer: Level | None = None
    clocks: dict[Value, Clock] = field(default_factory=dict)
    """The clocks of what differs from step to step."""

    def binds(self, value: Value) -> bool:
        """True if a value may be read here."""
        return value in self.bound or (self.outer is not None and self.outer.binds(value))

    def measures(self, dim: Dim) -> bool:
        """True if the length of a dim is known here."""
        if dim in self.lengths or dim.operands() or dim.size is not None:
            return True
        return self.outer is not None and self.outer.measures(dim)

    def loops(self) -> list[Dim]:
        """The dims of the loops around, the innermost first."""
        around = [] if self.outer is None else self.outer.loops()
        return around if self.loop is None else [self.loop, *around]

    def is_elsewhere(self, value: Value, clock: Clock) -> bool:
        """True if a value is of another clock than this."""
        return self.clocks.get(value, clock) != clock


@dataclass(frozen=True)
class NodeRule:
    """What holds of a node before its results are bound."""

    says: str
    fault: Callable[[Node, Level], str | None]


@dataclass(frozen=True)
class LoopRule:
    """What holds of a loop; the level is its body, read to the end."""

    says: str
    fault: Callable[[Loop, Level], str | None]


Rule = NodeRule | LoopRule


# Of nodes


def _read_unbound(node: Node, level: Level) -> str | None:
    for value in node_operands(node):
        if not level.binds(value):
            return f"{value.name} is read before it is bound"
    return None


def _bound_again(node: Node, level: Level) -> str | None:
    if isinstance(node.op, Recompute):
        return None  # its results are bound in its body
    bound = node.outputs
    if isinstance(node.op, Loop):
        bound = (*bound, *(element.now for element in node.op.elements), *(state.now for state in node.op.states))
    if level.bound_anywhere.isdisjoint(bound) and len(set(bound)) == len(bound):
        return None
    seen: set[Value] = set()
    for value in bound:
        if value in level.bound_anywhere or value in seen:
            return f"{value.name} is bound twice"
        seen.add(value)
    return None


def _mistyped(node: Node, level: Level) -> str | None:
    try:
        types = node.op.output_types(tuple([value.type for value in node.inputs]))
    except DimError as error:
        return str(error)
    if types != tuple([output.type for output in node.outputs]):
        return f"its rule gives {', '.join(map(str, types))}"
    return None


def _of_unknown_length(node: Node, level: Level) -> str | None:
    loop = node.op if isinstance(node.op, Loop) else None
    measured = node.op.measured_dims() if loop is None else {loop.over}.difference(loop.created_dims())
    unknown = {dim for dim in measured if dim.size is None and not level.measures(dim)} if measured else set()
    if unknown:
        unknown.difference_update(*(value.type.dims for value in node.inputs), (mask.dim for mask in node.clock))
    return f"nothing before it says how long {min(unknown, key=str)} is" if unknown else None


def _of_no_step(node: Node, level: Level) -> str | None:
    if level.loop is None and (node.clock or node.op.in_loop is InLoop.STEP_INDEX):
        return "it belongs to the steps of a loop, and is in none"
    if isinstance(node.op, Loop) and node.op.over in level.loops():
        return f"a loop around it is over {node.op.over} already"
    return None


def _badly_masked(node: Node, level: Level) -> str | None:
    for mask in node.clock:
        if mask.value.type.dtype != "bool" or mask.dim.size is not None:
            return f"{mask.value!r} is no mask whose frames are {mask.dim}"
    return None


def _chosen_elsewhere(node: Node, level: Level) -> str | None:
    if node.op.in_loop is InLoop.BEAM and len(level.loops()) != 1:
        return "it chooses outside of a loop, or in a loop inside of another one"
    return None


def _misused_loop(node: Node, level: Level) -> str | None:
    loop = node.op
    if not isinstance(loop, Loop):
        return None
    if set(node.inputs) != set(loop.operands()):
        names = ", ".join(sorted(value.name for value in set(node.inputs) ^ set(loop.operands())))
        return f"its inputs differ from what the loop reads: {names}"
    if node.outputs != tuple(element.whole for element in (*loop.stacks, *loop.finals)):
        return "its outputs are not what the loop collects"
    return None


def _misused_recompute(node: Node, level: Level) -> str | None:
    op = node.op
    if not isinstance(op, Recompute):
        return None
    if set(node.inputs) != set(op.operands()):
        names = ", ".join(sorted(value.name for value in set(node.inputs) ^ set(op.operands())))
        return f"its inputs differ from what its body reads: {names}"
    made = {output for inner in op.body for output in inner.outputs}
    if node.outputs != op.results or not made.issuperset(op.results):
        return "its outputs are not results of its body"
    return None


def _done_again(node: Node, level: Level) -> str | None:
    if not isinstance(node.op, Recompute):
        return None
    for inner in walk(node.op.body):
        if not can_recur(inner.op):
            return f"{inner.op.label} is not to be done twice"
    return None


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


def _unbound_results(loop: Loop, body: Level) -> str | None:
    for value in results_of_body(loop):
        if not body.binds(value):
            return f"the result {value.name} is not bound"
    return None


def _no_frames(loop: Loop, body: Level) -> str | None:
    for element in (*loop.elements, *loop.stacks):
        whole, now, over = element.whole.type, element.now.type, stack_dim(loop, element)
        if over not in whole or set(now.dims) != set(whole.dims) - {over} or now.dtype != whole.dtype:
            return f"{element.now!r} is no frame of {element.whole!r} along {over}"
    return None


def _unfit_states(loop: Loop, body: Level) -> str | None:
    for state in loop.states:
        for value, what in ((state.next, "next"), (state.init, "initial")):
            now = state.now.type
            if value.type.dtype != now.dtype or not set(value.type.dims) <= set(now.dims):
                return f"the {what} value {value!r} does not fit the state {state.now!r}"
    return None


def _endless(loop: Loop, body: Level) -> str | None:
    if loop.ending is None:
        return None
    if loop.ending.ended.type.dtype != "bool":
        return f"the end {loop.ending.ended!r} is not true or false"
    if not loop.ending.max_steps.type.dtype.startswith("int"):
        return f"{loop.ending.max_steps!r} is no number of steps"
    return None


def _unfit_holds(loop: Loop, body: Level) -> str | None:
    for value, init in loop.holds:
        if init.type.dtype != value.type.dtype or init in body.clocks:
            return f"{init!r} is not what {value!r} can be before its first frame"
    return None


def _wrong_pointers(loop: Loop, body: Level) -> str | None:
    if loop.search is not None:
        pointers = loop.search.pointers
        of = pointers.type.sparse
        if of is None or of.kind is not DimKind.BEAM or not any(d.kind is DimKind.BEAM for d in pointers.type.dims):
            return f"{pointers!r} does not say for each hypothesis which one it extends"
    return None


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


TYPES = NodeRule("a node has the types that its rule gives", _mistyped)
ALWAYS: tuple[Rule, ...] = (
    NodeRule("a value is read after it is bound", _read_unbound),
    NodeRule("a value is bound once", _bound_again),
    TYPES,
    NodeRule("the lengths of named dims are known", _of_unknown_length),
    NodeRule("clocks, step numbers and dims of steps belong to loops", _of_no_step),
    NodeRule("a clock has masks", _badly_masked),
    NodeRule("only the body of an outermost loop chooses", _chosen_elsewhere),
    NodeRule("a loop's node reads and gives what its loop does", _misused_loop),
    NodeRule("what is recomputed reads and gives what its body does", _misused_recompute),
    NodeRule("what is recomputed has no effect and gives the same again", _done_again),
    LoopRule("the results of a body are bound", _unbound_results),
    LoopRule("elements and stacks are along the steps", _no_frames),
    LoopRule("states fit what they are at first and next", _unfit_states),
    LoopRule("a loop that ends itself says when", _endless),
    LoopRule("held values fit what they are at first", _unfit_holds),
    LoopRule("back-pointers point from hypotheses to hypotheses", _wrong_pointers),
)
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
