"""Whether a graph is legal: checked after every pass, so that an error of the compiler shows where it was made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn

from returnn_lite.dims import Dim, DimKind
from returnn_lite.ir.body import is_invariant
from returnn_lite.ir.graph import Graph, text_of
from returnn_lite.ir.nodes import Element, Loop, Node, Recompute, State, walk
from returnn_lite.ir.rule import Level, LoopRule, NodeRule, Rule
from returnn_lite.ir.well_formedness import ALWAYS, TYPES


class InternalError(Exception):
    """An error of the compiler itself, not of a config. The message has the IR around the node."""


def verify(graph: Graph, after: str, made: Sequence[Rule] = (), typed: set[Node] | None = None) -> Graph:
    """The graph, if all rules hold that always do, and those that passes have `made` true.

    `after` says which pass made the graph. `typed` are nodes whose types are known to be right, as they were in an
    earlier graph; this graph's are added. Raises InternalError.
    """
    reader = _Reader(after, (*ALWAYS, *made), set() if typed is None else typed)
    level = Level(set(graph.inputs), _given_lengths(graph), set(graph.inputs))
    reader.read(graph.nodes, level)
    for value in graph.results():
        if value not in level.bound:
            raise InternalError(f"after {after}: the result {value.name} is not bound")
    return graph


class _Reader:
    """Reads a graph in its order, and asks the rules."""

    def __init__(self, after: str, rules: Sequence[Rule], typed: set[Node]) -> None:
        self.after = after
        self.of_nodes = [rule for rule in rules if isinstance(rule, NodeRule)]
        self.of_loops = [rule for rule in rules if isinstance(rule, LoopRule)]
        self.typed = typed

    def read(self, nodes: Iterable[Node], level: Level) -> None:
        """Reads the nodes of a level, which then has bound their results."""
        for node in nodes:
            for rule in self.of_nodes:
                if rule is TYPES and node in self.typed:
                    continue
                fault = rule.fault(node, level)
                if fault is not None:
                    self._refuse(rule, fault, node)
            self.typed.add(node)
            if isinstance(node.op, Loop):
                self._read_loop(node, node.op, level)
            elif isinstance(node.op, Recompute):
                self._read_recomputed(node.op, level)
            if level.loop is not None and not is_invariant(node, level.loop, level.clocks):
                level.clocks.update(dict.fromkeys(node.outputs, node.clock))
            level.bound.update(node.outputs)
            level.bound_anywhere.update(node.outputs)
            level.lengths.update(node.op.created_dims(), *[output.type.dims for output in node.outputs])

    def _read_loop(self, node: Node, loop: Loop, level: Level) -> None:
        given: tuple[Element | State, ...] = (*loop.elements, *loop.states)
        clocks = {part.now: part.clock for part in given}
        level.bound_anywhere.update(clocks)
        body = Level(set(clocks), {loop.over}, level.bound_anywhere, loop.over, level, clocks)
        self.read(loop.body, body)
        for rule in self.of_loops:
            fault = rule.fault(loop, body)
            if fault is not None:
                self._refuse(rule, fault, node)

    def _read_recomputed(self, op: Recompute, level: Level) -> None:
        """Reads a body that is a part of its level, of which only the results are seen there."""
        inside = Level(set(), level.lengths, level.bound_anywhere, level.loop, level, level.clocks)
        self.read(op.body, inside)

    def _refuse(self, rule: Rule, fault: str, node: Node) -> NoReturn:
        where = f" ({node.origin.layer}, {node.origin.position})" if node.origin.layer else ""
        text = text_of([node], "  ")
        raise InternalError(f"after {self.after}: {fault}{where}; {rule.says}:\n{text}")


def _given_lengths(graph: Graph) -> set[Dim]:
    """The dims whose lengths come with the inputs. That of the batch always does."""
    made = (output for node in walk(graph.nodes) for output in node.outputs)
    batch = {dim for value in made for dim in value.type.dims if dim.kind is DimKind.BATCH}
    given = {dim for value in graph.inputs for dim in value.type.dims}
    return batch.union(given, *(dim.leaves for dim in given))
