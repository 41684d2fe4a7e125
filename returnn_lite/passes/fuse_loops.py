"""Loop fusion: two loops over the same steps become one, where no step of the second needs a later step of the first.

Distribution makes a loop of each cycle. A loop that reads another's results frame by frame, at the same step or an
earlier one, joins it: they take their steps together, and what only the second read is no longer stacked.

    h = loop T {                     h, s = loop T {
      x = input[T]                     x = input[T]
      h' = delay(h, 0)                 h' = delay(h, 0)
      h = f(x, h')                     h = f(x, h')
      h = stack(h)               →     g = delay(h, 0)
    }                                  s' = delay(s, 0)
    g = delay(h, 0, over=T)            s = f(h, g, s')
    s = loop T {                       h = stack(h)        # goes with the dead nodes, if nothing else reads it
      h = h[T]                         s = stack(s)
      g = g[T]                       }
      s' = delay(s, 0)
      s = f(h, g, s')
    }

Any other node between them needs whole sequences of the first, or is better done at once (a product with weights):
then they stay two. So do loops that do not need each other, which can run side by side (docs/decisions/0006), loops
that find out themselves when to end, loops of a search, and loops with slower clocks.

Kennedy and McKinley, Maximizing Loop Parallelism and Improving Data Locality via Loop Fusion and Distribution (1993);
Allen and Kennedy, Optimizing Compilers for Modern Architectures (2001), chapter 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from returnn_lite.dims import Dim, TensorType
from returnn_lite.ir import Element, Graph, Loop, Node, State, Value, loop_node, node_operands, walk
from returnn_lite.ir.ops.elementwise import Annotate
from returnn_lite.ir.ops.recurrence import Delay
from returnn_lite.passes.substitution import Substitution


def fuse_loops(graph: Graph) -> Graph:
    """The graph with loops over the same steps fused, also in loop bodies. Each keeps the values that it had."""
    return replace(graph, nodes=tuple(_fused(graph.nodes)))


def _fused(nodes: Iterable[Node]) -> list[Node]:
    """The nodes of one level with loops fused, each with the nearest before it that it can join."""
    done: list[Node] = []
    for node in nodes:
        current = _with_fused_body(node, node.op) if isinstance(node.op, Loop) else node
        done = _joined(done, current) or [*done, current]
    return done


def _with_fused_body(node: Node, loop: Loop) -> Node:
    if not any(isinstance(inner.op, Loop) for inner in loop.body):
        return node
    body = tuple(_fused(loop.body))
    return replace(loop_node(replace(loop, body=body), node.origin), clock=node.clock)


def _joined(before: Sequence[Node], second: Node) -> list[Node] | None:
    """The nodes before a loop with the loop fused into one of them; None if there is none that it can join."""
    if not isinstance(second.op, Loop) or not _takes_plain_steps(second.op):
        return None
    for position in range(len(before) - 1, -1, -1):
        first = before[position]
        if not isinstance(first.op, Loop) or first.op.over != second.op.over or first.clock != second.clock:
            continue
        if not _takes_plain_steps(first.op) or _made_dims(first.op) & _made_dims(second.op):
            continue
        independent, dependent = _apart(first, before[position + 1 :])
        fusion = Fusion(first.op, {output: node for node in (first, *dependent) for output in node.outputs})
        if fusion.allows(second.op):
            node = replace(loop_node(fusion.of(second.op), first.origin), clock=first.clock)
            earlier = [*before[:position], *independent]
            return [*(_joined(earlier, node) or [*earlier, node]), *dependent]
    return None


def _takes_plain_steps(loop: Loop) -> bool:
    """True for a loop that takes one step for each frame of its dim, for one hypothesis, all of it in every step."""
    if loop.ending is not None or loop.back_pointers is not None:
        return False
    clocks = [element.clock for element in (*loop.elements, *loop.stacks)]
    return not any([*clocks, *(state.clock for state in loop.states), *(node.clock for node in loop.body)])


def _made_dims(loop: Loop) -> set[Dim]:
    return {dim for node in walk(loop.body) for dim in node.op.created_dims()}


def _apart(first: Node, between: Sequence[Node]) -> tuple[list[Node], list[Node]]:
    """The nodes behind a loop that do not depend on it, and those that do, also by a dim that one of these creates."""
    from_first, made = set(first.outputs), set(first.op.created_dims())
    independent: list[Node] = []
    dependent: list[Node] = []
    for node in between:
        named = node.op.named_dims() - set(node.op.created_dims())
        if any(value in from_first for value in node_operands(node)) or named & made:
            from_first.update(node.outputs)
            made.update(node.op.created_dims())
            dependent.append(node)
        else:
            independent.append(node)
    return independent, dependent


class Fusion:
    """What a loop can fuse with: `producers` are the loop and what depends on it, by the values that they make."""

    def __init__(self, first: Loop, producers: Mapping[Value, Node]) -> None:
        self.first = first
        self.producers = producers
        self._stacked = {stack.whole: stack.now for stack in first.stacks}

    def allows(self, second: Loop) -> bool:
        """True if the second loop reads frames of the first, of the same step or an earlier one, and no more of it."""
        read = [element for element in second.elements if element.whole in self.producers]
        whole = [*(state.init for state in second.states), *(init for _, init in second.holds), *second.free_values()]
        for element in read:
            path = self._path(element.whole)
            if path is None or element.now.type != self._frame_type(path):
                return False
            whole += [delay.inputs[1] for delay in path[1]]
        return bool(read) and not any(value in self.producers for value in whole)

    def _path(self, whole: Value) -> tuple[Value, list[Node]] | None:
        """The value of the first loop's body whose stack a value is, and the delays it has since, the first one first.

        None if anything else was done with the stack. Annotations say nothing to primitives.
        """
        delays: list[Node] = []
        while whole not in self._stacked:
            node = self.producers[whole]
            if isinstance(node.op, Delay) and node.op.over == self.first.over and node.inputs[0] in self.producers:
                delays.insert(0, node)
            elif not isinstance(node.op, Annotate):
                return None
            whole = node.inputs[0]
        return self._stacked[whole], delays

    def _frame_type(self, path: tuple[Value, list[Node]]) -> TensorType:
        """The type of what the fused loop has in place of an element."""
        now, delays = path
        return delays[-1].output.type.without(self.first.over) if delays else now.type

    def of(self, second: Loop) -> Loop:
        """Both loops as one."""
        first = self.first
        given = {element.whole: element.now for element in first.elements}
        states = list(first.states)
        own: list[Element] = []
        mapping: dict[Value, Value] = {}
        for element in second.elements:
            if element.whole in given:
                mapping[element.now] = given[element.whole]
            elif element.whole in self.producers:
                mapping[element.now] = self._frame(element.whole, states)
            else:
                own.append(element)
        inside = Substitution(mapping)
        rest = inside.loop(second, [inside.node(node) for node in second.body])
        return replace(
            first,
            elements=(*first.elements, *own),
            states=(*states, *rest.states),
            stacks=(*first.stacks, *rest.stacks),
            body=(*first.body, *rest.body),
            finals=(*first.finals, *rest.finals),
            holds=(*first.holds, *rest.holds),
        )

    def _frame(self, whole: Value, states: list[State]) -> Value:
        """What an element read from the first loop is in it. Delays become states, unless it has them already."""
        path = self._path(whole)
        assert path is not None, "the loops may fuse"
        now, delays = path
        for delay in delays:
            before = Value(delay.output.name, delay.output.type.without(self.first.over))
            state = State(before, delay.inputs[1], now)
            kept = next((old for old in states if _is_same_delay(old, state)), None)
            if kept is None:
                states.append(state)
            now = (kept or state).now
        return now


def _is_same_delay(one: State, other: State) -> bool:
    return one.next is other.next and one.init is other.init and one.now.type == other.now.type
