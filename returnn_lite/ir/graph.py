"""The IR: values, nodes, loops and graphs. Everything is frozen; values and nodes are compared by identity."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from returnn_lite.dims import Dim, TensorType
from returnn_lite.ir.op import Op


@dataclass(frozen=True)
class Origin:
    """Where a node comes from: the layer's path, and the place of its text in a config (`file:line:col`)."""

    layer: str = ""
    position: str = ""

    def __str__(self) -> str:
        return f"{self.position}: {self.layer}" if self.position and self.layer else self.position or self.layer


@dataclass(frozen=True, eq=False)
class Value:
    """A result of a node or an input of a graph. Bound once."""

    name: str
    type: TensorType

    def __repr__(self) -> str:
        return f"{self.name}: {self.type}"


@dataclass(frozen=True, eq=False)
class Mask:
    """A slower clock in a loop: the steps at which `value` is true. `dim` has just those frames."""

    value: Value
    dim: Dim


Clock = tuple[Mask, ...]
"""The masks under which something runs, outermost first; empty for every step of the loop."""


@dataclass(frozen=True, eq=False)
class Node:
    """One application of a primitive. `clock` is set only in loop bodies."""

    op: Op
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    origin: Origin = Origin()
    clock: Clock = ()

    @property
    def output(self) -> Value:
        """The only output."""
        (output,) = self.outputs
        return output

    def with_loop(self, loop: Loop) -> Node:
        """The node, at the same place and on the same clock, that runs another loop."""
        return loop_node(loop, self.origin, self.clock)


@dataclass(frozen=True, eq=False)
class State:
    """A delay: in the first step `now` is `init`, later what `next` was one step before. This is what `prev:x` is."""

    now: Value
    init: Value
    next: Value
    clock: Clock = ()


@dataclass(frozen=True, eq=False)
class Element:
    """x[t] and its stack: `now` in the body, `whole` outside, with the loop's dim."""

    now: Value
    whole: Value
    clock: Clock = ()


@dataclass(frozen=True, eq=False)
class Ending:
    """How a loop of unknown length ends: `ended` [B, K?] bool in the body, and the most steps it may take (outside).

    The loop stops when `ended` is true everywhere. `length` counts, for each sequence, the steps that were not ended,
    with the one that ended it if `include_end`.
    """

    ended: Value
    max_steps: Value
    include_end: bool = False


@dataclass(frozen=True, eq=False)
class Loop(Op):
    """Runs `body` once for each frame of `over`.

    Four roles, as in JAX's scan: `elements` are sliced, `states` carried, `stacks` collected into whole values, and
    what the body uses from outside beyond that is invariant. The node's inputs are the wholes of `elements`, the inits
    of `states`, the bound of `ending`, then the invariants; its outputs the wholes of `stacks`, then of `finals`, which
    have the value after the last step that any sequence took. With `ending` the loop determines the length of `over`;
    without, it is known before. With `back_pointers` (search), stacked values are traced back from the hypotheses that
    are left at the end, and so are the lengths.
    """

    over: Dim
    elements: tuple[Element, ...]
    states: tuple[State, ...]
    stacks: tuple[Element, ...]
    body: tuple[Node, ...]
    finals: tuple[Element, ...] = ()
    ending: Ending | None = None
    back_pointers: Value | None = None
    holds: tuple[tuple[Value, Value], ...] = ()
    """Values of slower clocks with what they are before their clock's first tick (an outer value); zero if not here."""

    def type_of(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        stacks = tuple(stack.now.type.with_dims(stack_dim(self, stack)) for stack in self.stacks)
        return (*stacks, *(final.now.type for final in self.finals))

    @property
    def is_function(self) -> bool:
        """Never: its body may have effects."""
        return False

    def created_dims(self) -> tuple[Dim, ...]:
        return (self.over,) if self.ending is not None else ()

    def named_dims(self) -> set[Dim]:
        """The dim of the steps, and those that the body names."""
        return self.over.with_operands().union(*(node.op.named_dims() for node in self.body))

    def free_values(self) -> tuple[Value, ...]:
        """What the body uses from outside besides elements and states: the loop-invariant values, in order of use."""
        bound = {e.now for e in self.elements} | {s.now for s in self.states}
        bound |= {output for node in self.body for output in node.outputs}
        used = [value for node in self.body for value in node_operands(node)]
        used += [s.next for s in self.states] + [s.now for s in (*self.stacks, *self.finals)]
        used += [self.ending.ended] if self.ending is not None else []
        used += [self.back_pointers] if self.back_pointers is not None else []
        return tuple(value for value in dict.fromkeys(used) if value not in bound)

    def operands(self) -> tuple[Value, ...]:
        """The inputs that a node of this loop must have."""
        outer = [e.whole for e in self.elements] + [s.init for s in self.states]
        outer += [self.ending.max_steps] if self.ending is not None else []
        outer += [init for _, init in self.holds]
        return tuple(dict.fromkeys((*outer, *self.free_values())))


def stack_dim(loop: Loop, element: Element) -> Dim:
    """The dim along which an element is stacked: the loop's, or its masked frames on a slower clock."""
    return element.clock[-1].dim if element.clock else loop.over


def node_operands(node: Node) -> tuple[Value, ...]:
    """Everything a node in a loop body reads: its inputs and the masks of its clock."""
    return (*node.inputs, *(mask.value for mask in node.clock)) if node.clock else node.inputs


def loop_node(loop: Loop, origin: Origin, clock: Clock = ()) -> Node:
    """The node that runs a loop."""
    return Node(loop, loop.operands(), tuple(e.whole for e in (*loop.stacks, *loop.finals)), origin, clock)


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in dependency order between inputs and named outputs.

    `checks` are values that must be computed although nothing else uses them: runtime assertions and effects (print).
    """

    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    outputs: dict[str, Value] = field(default_factory=dict)
    checks: tuple[Value, ...] = ()

    def results(self) -> tuple[Value, ...]:
        """What must be computed: the outputs and the checks."""
        return (*self.outputs.values(), *self.checks)

    def __str__(self) -> str:
        lines = [f"{value.name} = input  # {value.type}" for value in self.inputs]
        lines += text_of(self.nodes)
        lines += [f"return {name} = {value.name}" for name, value in self.outputs.items()]
        return "\n".join(lines)


def walk(nodes: Iterable[Node]) -> Iterator[Node]:
    """All nodes, those in loop bodies after their loop."""
    for node in nodes:
        yield node
        if isinstance(node.op, Loop):
            yield from walk(node.op.body)


def text_of(nodes: Iterable[Node], indent: str = "") -> list[str]:
    """IR text: one line a node, `outputs = primitive(inputs, attributes)  # types`; loop bodies indented."""
    lines: list[str] = []
    for node in nodes:
        lines += _loop_text(node, node.op, indent) if isinstance(node.op, Loop) else [_node_text(node, indent)]
    return lines


def _node_text(node: Node, indent: str) -> str:
    attributes = [f"{key}={_attribute_text(value)}" for key, value in node.op.shown_attributes().items()]
    arguments = ", ".join([value.name for value in node.inputs] + attributes)
    types = "; ".join(str(output.type) for output in node.outputs)
    when = "".join(f" when {mask.value.name}" for mask in node.clock)
    left = f"{indent}{', '.join(output.name for output in node.outputs)} = {node.op.label}({arguments}){when}"
    return f"{left:<70}  # {types}"


def _loop_text(node: Node, loop: Loop, indent: str) -> list[str]:
    inner = indent + "  "
    head = f"{indent}{', '.join(output.name for output in node.outputs)} = loop {loop.over.name} {{"
    lines = [head]
    for element in loop.elements:
        lines.append(f"{inner}{element.now.name} = {element.whole.name}[{stack_dim(loop, element).name}]")
    for state in loop.states:
        when = "".join(f" when {mask.value.name}" for mask in state.clock)
        lines.append(f"{inner}{state.now.name} = delay({state.next.name}, {state.init.name}){when}")
    lines += text_of(loop.body, inner)
    if loop.ending is not None:
        ending = loop.ending
        counted = ", counting the end" if ending.include_end else ""
        lines.append(f"{inner}until {ending.ended.name} or {ending.max_steps.name} steps{counted}")
    for stack in loop.stacks:
        lines.append(f"{inner}{stack.whole.name} = stack({stack.now.name})  # {stack.whole.type}")
    lines += [f"{inner}{final.whole.name} = final({final.now.name})  # {final.whole.type}" for final in loop.finals]
    return [*lines, f"{indent}}}"]


def _attribute_text(value: object) -> str:
    if isinstance(value, Dim):
        return value.name
    if isinstance(value, tuple):
        return "(" + ", ".join(_attribute_text(item) for item in value) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, Op) or not dataclasses.is_dataclass(value):
        return repr(value) if isinstance(value, str) else str(value)
    fields = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
    return "{" + ", ".join(f"{name}: {_attribute_text(item)}" for name, item in fields if item not in ((), None)) + "}"
