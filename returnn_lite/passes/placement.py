"""Where each layer is computed after the passes, and why: the analysis behind `explain`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from returnn_lite.ir import Graph, Loop, Node, State, Value, node_operands, walk

Where = Literal["outside", "before", "loop", "after"]


@dataclass(frozen=True)
class Place:
    """Where a layer is: outside of all loops as the config has it, in a loop, or moved before or after it."""

    where: Where
    loop: str | None
    reason: str


def placement(before: Graph, after: Graph) -> dict[str, Place]:
    """The place of each layer of `before` (as built) in `after` (as compiled), by layer path."""
    in_loop_as_built = _layers_in_loops(before.nodes)
    depends_on_loop = _depending_on_loops(after)
    places: dict[str, Place] = {}
    looped: dict[str, Loop] = {}
    for node in after.nodes:
        if isinstance(node.op, Loop):
            for inner in walk(node.op.body):
                looped.setdefault(inner.origin.layer, node.op)
    for layer in dict.fromkeys(node.origin.layer for node in walk(before.nodes) if node.origin.layer):
        if layer in looped and layer in in_loop_as_built:
            loop = looped[layer]
            places[layer] = Place("loop", loop.over.name, _cycle_reason(layer, loop))
        elif layer not in in_loop_as_built:
            places[layer] = Place("outside", None, "")
        elif layer in depends_on_loop:
            places[layer] = Place("after", None, "nothing in the loop needs it")
        else:
            places[layer] = Place("before", None, "it needs nothing that the loop computes")
    return places


def _layers_in_loops(nodes: tuple[Node, ...]) -> set[str]:
    return {inner.origin.layer for node in nodes if isinstance(node.op, Loop) for inner in walk(node.op.body)}


def _depending_on_loops(graph: Graph) -> set[str]:
    """Layers with a node outside of loops that needs what a loop computes."""
    from_loop: set[Value] = set()
    layers = set()
    for node in graph.nodes:
        is_loop = isinstance(node.op, Loop)
        if is_loop or any(value in from_loop for value in node_operands(node)):
            from_loop.update(node.outputs)
            if not is_loop:
                layers.add(node.origin.layer)
    return layers


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
            queue.append((states[value].next, (*path, "prev:" + _layer_of(states[value], owner))))
        elif value in producers:
            if owner[value] == layer and len(path) > 1:
                return "it needs " + ", which needs ".join([*path[1:], layer])
            step = path if path[-1].removeprefix("prev:") == owner[value] else (*path, owner[value])
            queue.extend((operand, step) for operand in producers[value].inputs)
    return "the loop's length or a search choice depends on it"


def _layer_of(state: State, owner: dict[Value, str]) -> str:
    return owner.get(state.next, state.next.name)
