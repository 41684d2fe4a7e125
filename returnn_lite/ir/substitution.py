"""Values replaced through a sequence of nodes; nodes that nothing of concerns stay the same objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from returnn_lite.ir import Clock, Graph, Loop, Node, Search, Value, node_operands
from returnn_lite.ir.rewrite import Rewriter


class Substitution:
    """Old values and what they are now. Nodes must be passed in dependency order."""

    def __init__(self, replaced: Mapping[Value, Value] | None = None) -> None:
        self._rewriter = Rewriter(in_place=True)
        self._rewriter.values.update(replaced or {})

    def value(self, value: Value) -> Value:
        """What a value is now."""
        return self._rewriter.value(value)

    def clock(self, clock: Clock) -> Clock:
        """A clock with its masks' values replaced."""
        return self._rewriter.clock(clock) if any(self.value(m.value) is not m.value for m in clock) else clock

    def node(self, node: Node) -> Node:
        """The node with its operands replaced; the same object if none is. New outputs are recorded."""
        unchanged = self._rewriter.values.keys().isdisjoint(node_operands(node))
        return node if unchanged else self._rewriter.node(node)

    def loop(self, loop: Loop, body: Sequence[Node]) -> Loop:
        """A loop with another body, what it says of body values replaced."""
        ending, search = loop.ending, loop.search
        return dataclasses.replace(
            loop,
            body=tuple(body),
            states=tuple(
                dataclasses.replace(state, next=self.value(state.next), clock=self.clock(state.clock))
                for state in loop.states
            ),
            stacks=tuple(dataclasses.replace(e, now=self.value(e.now), clock=self.clock(e.clock)) for e in loop.stacks),
            finals=tuple(dataclasses.replace(e, now=self.value(e.now)) for e in loop.finals),
            ending=None if ending is None else dataclasses.replace(ending, ended=self.value(ending.ended)),
            search=None if search is None else Search(self.value(search.pointers), self.value(search.ended)),
            holds=tuple((self.value(value), init) for value, init in loop.holds),
        )

    def replace(self, replaced: Mapping[Value, Value]) -> None:
        """Adds replacements."""
        for old, new in replaced.items():
            if old is not new:
                self._rewriter.values[old] = self.value(new)

    def finish(self, graph: Graph, nodes: Sequence[Node]) -> Graph:
        """The graph with these nodes and its results replaced."""
        outputs = {name: self.value(value) for name, value in graph.outputs.items()}
        checks = tuple(self.value(value) for value in graph.checks)
        return dataclasses.replace(graph, nodes=tuple(nodes), outputs=outputs, checks=checks)


def with_operands(node: Node, replaced: Mapping[Value, Value]) -> Node:
    """The node with operands replaced, also where the body of a loop reads them; its results stay the same values, so
    that types have to be inferred again afterwards."""
    changed = Substitution({old: new for old, new in replaced.items() if old is not new}).node(node)
    if changed is node:
        return node
    if isinstance(node.op, Loop) and isinstance(changed.op, Loop):
        pairs = zip(changed.op.stacks, node.op.stacks, strict=True)
        stacks = tuple(dataclasses.replace(new, whole=old.whole) for new, old in pairs)
        pairs = zip(changed.op.finals, node.op.finals, strict=True)
        finals = tuple(dataclasses.replace(new, whole=old.whole) for new, old in pairs)
        changed = dataclasses.replace(changed, op=dataclasses.replace(changed.op, stacks=stacks, finals=finals))
    return dataclasses.replace(changed, outputs=node.outputs)
