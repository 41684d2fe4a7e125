"""Loop distribution: each loop is split into what needs its steps and what does not.

The body of a loop is a dataflow program with delays (`State`). Its strongly connected components, delays included, are
taken in dependency order. A component of one node without a cycle is vectorised: the same primitive on whole sequences,
outside. A recurrence alone in its cycle becomes its whole-sequence primitive. What remains becomes a loop of its own.

    y = loop T {                          s = ...                     # as it was
      x = input[T]                        a = dot(input, W)           # [T, B, F]: vectorised
      a = dot(x, W)                       h = loop T {
      h' = delay(h, 0)            →         a = a[T]
      h = f(a, h')                          h' = delay(h, 0)
      y = tanh(h)                           h = f(a, h')
    }                                     }
                                          y = tanh(h)                 # [T, B, H]: vectorised

Allen and Kennedy, Optimizing Compilers for Modern Architectures (2001), chapter 2; Lustre's clocks for what is masked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from returnn_lite.ir import Graph, Loop, Node, Value, walk
from returnn_lite.ir.body import BodyGraph, has_order
from returnn_lite.ir.ops.axes import Expand
from returnn_lite.ir.substitution import Substitution
from returnn_lite.passes.loops.partition import Group, partition
from returnn_lite.passes.loops.smaller_loops import SmallerLoops
from returnn_lite.passes.loops.whole_sequences import WholeSequences


def distribute_loops(graph: Graph, only_required: bool = False) -> Graph:
    """The graph with every loop distributed; with `only_required`, only what can't be done step by step leaves."""
    nodes, substitution = _distributed(graph.nodes, only_required, lambda loop: True)
    return substitution.finish(graph, nodes)


def distribute_unordered(graph: Graph) -> Graph:
    """The graph without loops of which no step needs the one before, as where rules have shown a state to be constant.
    Others stay as they are, which have been distributed and fused before."""
    if all(has_order(node.op) for node in walk(graph.nodes) if isinstance(node.op, Loop)):
        return graph
    nodes, substitution = _distributed(graph.nodes, False, lambda loop: not has_order(loop))
    return substitution.finish(graph, nodes)


def _distributed(
    nodes: Iterable[Node], only_required: bool, wanted: Callable[[Loop], bool]
) -> tuple[list[Node], Substitution]:
    """The nodes with the wanted loops split, inner loops first; and what old values are now."""
    substitution = Substitution()
    result: list[Node] = []
    for node in nodes:
        current = substitution.node(node)
        if isinstance(current.op, Loop):
            loop = _with_distributed_body(current.op, only_required, wanted)
            if not wanted(loop):
                result.append(current if loop is current.op else current.with_loop(loop))
                substitution.replace(dict(zip(node.outputs, result[-1].outputs, strict=True)))
                continue
            whole, replaced = _split(current, loop, only_required)
            result.extend(whole.nodes)
            substitution.replace(replaced)
            substitution.replace(dict(zip(node.outputs, current.outputs, strict=True)))
        else:
            result.append(current)
    return result, substitution


def _with_distributed_body(loop: Loop, only_required: bool, wanted: Callable[[Loop], bool]) -> Loop:
    if not any(isinstance(node.op, Loop) for node in loop.body):
        return loop
    body, inner = _distributed(loop.body, only_required, wanted)
    return inner.loop(loop, body)


def _split(node: Node, loop: Loop, only_required: bool) -> tuple[WholeSequences, dict[Value, Value]]:
    """A loop in parts: the nodes of the level around, and what the loop's results are now."""
    body = BodyGraph(loop)
    whole = WholeSequences(loop, node.origin, node.clock)
    loops = SmallerLoops(body, whole)
    for group in partition(body, node.origin.layer, only_required):
        if group.stays:
            loops.add(group)
        else:
            _leave(group, whole, loops)
    return whole, _results(loop, whole) | loops.finals


def _leave(group: Group, whole: WholeSequences, loops: SmallerLoops) -> None:
    """Computes a group on whole sequences: a node, a state, or a recurrence, and of its own states those that more than
    the recurrence reads."""
    vertices = set(group.vertices)
    for node in group.nodes:
        whole.vectorize(node)
    for state in group.states:
        is_own = len(vertices) > 1
        is_read = loops.is_result(state.now) or loops.is_read_beyond(state.now, vertices)
        if state.now not in whole and (is_read or not is_own):
            whole.delay(state)


def _results(loop: Loop, whole: WholeSequences) -> dict[Value, Value]:
    """What the loop's stacks and finals are on whole sequences."""
    found: dict[Value, Value] = {}
    for stack in loop.stacks:
        now, over = whole.of(stack.now), whole.over(stack.clock)
        found[stack.whole] = now if over in now.type else whole.apply(Expand((over,)), (now,), stack.whole.name)
    return found | {final.whole: whole.of(final.now) for final in loop.finals}
