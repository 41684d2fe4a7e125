"""What search has left of loops: the hypotheses that a value outside is computed from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from returnn_lite.dims import Dim
from returnn_lite.ir import Loop, Node, Value
from returnn_lite.ir.ops.axes import Relabel
from returnn_lite.ir.ops.search import Decide, ExpectedOverBeam, SplitBeam
from returnn_lite.ir.reachability import reachable
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Hypotheses
from returnn_lite.net.context import NetworkContext


def hypotheses_of(context: NetworkContext, value: Value) -> Hypotheses | None:
    """The hypotheses of the loop that a value was computed from, by its dims or by the nodes before it.

    None where the best one has been picked, or all have been put together or side by side.
    """
    if not context.hypotheses:
        return None
    for result in context.hypotheses:
        if result.own_lengths and result.time in value.type:
            return result
    found: dict[Value, Hypotheses] = {result.scores: result for result in context.hypotheses}
    nodes = _nodes_of_hypotheses(context, value)
    return next((found[output] for node in nodes for output in node.outputs if output in found), None)


def with_varying_dims(context: NetworkContext, found: Hypotheses, value: View) -> Hypotheses:
    """What is said of hypotheses, with the dims of a value computed from them that have a length for each."""
    makers: dict[Dim, Node] = {}
    others = {dim: dim for given in context.builder.inputs for dim in given.type.dims}
    for node in _nodes_of_hypotheses(context, value):
        makers |= dict.fromkeys(node.op.created_dims(), node)
        if isinstance(node.op, Relabel):
            others.setdefault(node.op.new, node.op.old)
    known: dict[Dim, bool] = {found.time: found.own_lengths and found.time.is_ragged}

    def varies(dim: Dim) -> bool:
        if dim not in known:
            known[dim] = False
            maker, other = makers.get(dim), others.get(dim, dim)
            if maker is not None and not isinstance(maker.op, Loop):
                known[dim] = any(hypotheses_of(context, told) == found for told in maker.inputs)
            else:
                known[dim] = varies(other) or any(map(varies, dim.operands()))
        return known[dim]

    return replace(found, varying=tuple(dim for dim in value.type.dims if varies(dim)))


def _nodes_of_hypotheses(context: NetworkContext, value: Value) -> Iterable[Node]:
    """The nodes that a value is computed by, back to where hypotheses were decided about, or put together."""
    builder = context.builder

    def before(current: Value) -> Sequence[Value]:
        node = builder.producer(current)
        if node is None or isinstance(node.op, Decide | ExpectedOverBeam | SplitBeam):
            return ()
        if node.inputs:
            return node.inputs
        # A length, or the numbers of frames: of a dim that is made of hypotheses.
        parts = {part for dim in node.op.named_dims() for part in dim.leaves}
        return [output for maker in map(builder.maker, parts) if maker is not None for output in maker.outputs]

    return filter(None, map(builder.producer, reachable([value], before)))
