"""What always holds of a graph. `ir/verify.py` reads the graph."""

from __future__ import annotations

from returnn_lite.dims import DimError, DimKind
from returnn_lite.ir.body import can_recur, results_of_body
from returnn_lite.ir.nodes import Loop, Node, Recompute, node_operands, stack_dim, walk
from returnn_lite.ir.op import InLoop
from returnn_lite.ir.rule import Level, LoopRule, NodeRule, Rule
from returnn_lite.ir.values import Value

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


# Of loops


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
