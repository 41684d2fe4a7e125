"""Where each layer is computed after the passes, and why: the analysis behind `explain`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from returnn_lite.ir import Graph, Loop, Node, Value, node_operands, walk
from returnn_lite.ir.ops.elementwise import Annotate

Where = Literal["outside", "before", "loop", "after"]


@dataclass(frozen=True)
class Place:
    """Where a layer is: outside of all loops as the config has it, in a loop, or moved before or after it."""

    where: Where
    loop: str | None
    reason: str


def placement(before: Graph, after: Graph) -> dict[str, Place]:
    """The place of each layer of `before` (as built) in `after` (as compiled), by layer path.

    A layer is where the value that it makes is computed; passes keep the names of values.
    """
    loops = {output.name: loop for loop, node in _bodies(after) for output in node.outputs}
    outer = {output.name for node in after.nodes for output in node.outputs if not isinstance(node.op, Loop)}
    behind = _depending_on_loops(after)
    places: dict[str, Place] = {}
    for name, value in before.outputs.items():
        if not name.startswith("layer:"):
            continue
        path = name.removeprefix("layer:")
        inner = _inside_value(before, value)
        holds_others = any(other.startswith(f"{name}/") for other in before.outputs)
        if inner is None or (holds_others and "/" not in path):
            places[path] = Place("outside", None, "")
        elif inner.name in loops:
            loop = loops[inner.name]
            places[path] = Place("loop", loop.over.name, _cycle_reason(_layer_of_value(loop, inner.name), loop))
        elif inner.name in behind:
            places[path] = Place("after", None, "nothing in the loop needs it")
        elif inner.name in outer or _is_element(before, inner):
            places[path] = Place("before", None, "it needs nothing that the loop computes")
    return dict(sorted(places.items()))


def _bodies(graph: Graph) -> Iterator[tuple[Loop, Node]]:
    for node in graph.nodes:
        if isinstance(node.op, Loop):
            for inner in walk(node.op.body):
                yield node.op, inner


def _inside_value(graph: Graph, value: Value) -> Value | None:
    """The body value whose stack a value is; None if it is not computed in a loop as built."""
    producers = {output: node for node in graph.nodes for output in node.outputs}
    node = producers.get(value)
    while node is not None and isinstance(node.op, Annotate):
        value = node.inputs[0]
        node = producers.get(value)
    if node is None or not isinstance(node.op, Loop):
        return None
    stacks = {stack.whole: stack.now for stack in node.op.stacks}
    return stacks.get(value)


def _is_element(graph: Graph, value: Value) -> bool:
    """True for a frame of what is given to a loop."""
    return any(
        element.now is value for node in graph.nodes if isinstance(node.op, Loop) for element in node.op.elements
    )


def _layer_of_value(loop: Loop, name: str) -> str:
    return next(node.origin.layer for node in walk(loop.body) for output in node.outputs if output.name == name)


def _depending_on_loops(graph: Graph) -> set[str]:
    """The names of what is computed outside of loops from what a loop computes."""
    from_loop: set[Value] = set()
    names: set[str] = set()
    for node in graph.nodes:
        is_loop = isinstance(node.op, Loop)
        if is_loop or any(value in from_loop for value in node_operands(node)):
            from_loop.update(node.outputs)
            if not is_loop:
                names.update(output.name for output in node.outputs)
    return names


def _cycle_reason(layer: str, loop: Loop) -> str:
    """The shortest way from the layer back to itself, through what it reads and through `prev:`."""
    owner = {output: node.origin.layer for node in loop.body for output in node.outputs}
    states = {state.now: state for state in loop.states}
    queue: list[tuple[Value, tuple[str, ...]]] = [
        (value, (layer,)) for node in loop.body if node.origin.layer == layer for value in node_operands(node)
    ]
    seen: set[Value] = set()
    producers = {output: node for node in loop.body for output in node.outputs}
    while queue:
        value, path = queue.pop(0)
        if value in seen:
            continue
        seen.add(value)
        if value in states:
            queue.append((states[value].next, (*path, value.name)))
        elif value in producers:
            if owner[value] == layer and len(path) > 1:
                scope = layer.rpartition("/")[0] + "/"
                return "it needs " + ", which needs ".join(p.removeprefix(scope) for p in (*path[1:], layer))
            same = path[-1].replace("prev:", "") == owner[value]
            step = path if same or not _is_layer(owner[value], loop) else (*path, owner[value])
            queue.extend((operand, step) for operand in producers[value].inputs)
    return "the loop's length or a search choice depends on it"


def _is_layer(path: str, loop: Loop) -> bool:
    """False for the rec layer itself, whose own nodes only pass values on."""
    return not any(node.origin.layer.startswith(f"{path}/") for node in loop.body)
