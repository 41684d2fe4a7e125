"""Which values get a gradient: those that a parameter reaches, and that reach the objective."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from returnn_lite.ir import Loop, Node, Value
from returnn_lite.ir.ops.sources import Parameter

Flow = Callable[[Node, set[Value]], None]


def values_with_gradient(nodes: Sequence[Node], target: Value) -> frozenset[Value]:
    """The values of the nodes, those in loops included, whose gradient the backward pass computes."""
    trained: set[Value] = set()
    for node in nodes:
        _forwards(node, trained)
    reached = {target}
    for node in reversed(nodes):
        _backwards(node, reached)
    return frozenset(trained & reached)


def differentiated(node: Node) -> list[int]:
    """The operands that a gradient of the results is passed to."""
    if not any(output.type.is_float for output in node.outputs):
        return []
    return [i for i, x in enumerate(node.inputs) if x.type.is_float and node.op.passes_gradient(i)]


def _forwards(node: Node, found: set[Value]) -> None:
    """Adds the results that depend on what is found."""
    if isinstance(node.op, Loop):
        _through_loop(node.op, found, _forwards_once)
    elif isinstance(node.op, Parameter):
        found.update(node.outputs if node.op.trainable else ())
    elif any(node.inputs[i] in found for i in differentiated(node)):
        found.update(output for output in node.outputs if output.type.is_float)


def _backwards(node: Node, found: set[Value]) -> None:
    """Adds the operands that what is found depends on."""
    if isinstance(node.op, Loop):
        _through_loop(node.op, found, _backwards_once)
    elif any(output in found for output in node.outputs):
        found.update(node.inputs[i] for i in differentiated(node))


def _through_loop(loop: Loop, found: set[Value], once: Callable[[Loop, set[Value]], None]) -> None:
    """Goes through the body until what states carry to other steps adds nothing."""
    before = -1
    while before != len(found):
        before = len(found)
        once(loop, found)


def _forwards_once(loop: Loop, found: set[Value]) -> None:
    _pass_on(found, [(e.whole, e.now) for e in loop.elements])
    _pass_on(found, [pair for s in loop.states for pair in ((s.init, s.now), (s.next, s.now))])
    for node in loop.body:
        _forwards(node, found)
    _pass_on(found, [(e.now, e.whole) for e in (*loop.stacks, *loop.finals)])


def _backwards_once(loop: Loop, found: set[Value]) -> None:
    _pass_on(found, [(e.whole, e.now) for e in (*loop.stacks, *loop.finals)])
    _pass_on(found, [(s.now, s.next) for s in loop.states])
    for node in reversed(loop.body):
        _backwards(node, found)
    _pass_on(found, [(e.now, e.whole) for e in loop.elements])
    _pass_on(found, [(s.now, s.init) for s in loop.states])


def _pass_on(found: set[Value], pairs: Iterable[tuple[Value, Value]]) -> None:
    found.update(to for from_, to in pairs if from_ in found and to.type.is_float)
