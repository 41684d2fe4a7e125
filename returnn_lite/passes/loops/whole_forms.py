"""Which step-by-step work has a form on whole sequences, and along which dims it works there."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.dims import Dim
from returnn_lite.ir import InLoop, Loop, Node, Op, State, Value
from returnn_lite.ir.body import Vertex, carried


def can_be_vectorized(op: Op) -> bool:
    """True for what can do all steps at once where it is in no cycle. A recurrence then is none: its state comes from
    elsewhere, anew at each step."""
    if isinstance(op, Loop):
        return op.ending is None
    if op.in_loop is InLoop.RECURRENCE:
        return not op.state_inputs
    return op.in_loop is not InLoop.BEAM


def is_own_recurrence(node: Node, states: Sequence[Vertex]) -> bool:
    """True if the other vertices are just the node's own states. Not with an operand that says at which steps."""
    if node.op.in_loop is not InLoop.RECURRENCE or (node.op.mask_at is not None and len(node.inputs) > node.op.mask_at):
        return False
    found = {(state.next, state.now) for state in states if isinstance(state, State)}
    return found == carried(node) and len(found) == len(states)


def worked_on(op: Op, inputs: tuple[Value, ...]) -> set[Dim]:
    """The dims of the operands that are no batch dims to a primitive: those that it names or that it removes."""
    dims = {dim for value in inputs for dim in value.type.dims}
    outputs = op.output_types(tuple(value.type for value in inputs))
    removed = {dim for dim in dims for output in outputs if dim not in output}
    return dims & op.named_dims() | removed
