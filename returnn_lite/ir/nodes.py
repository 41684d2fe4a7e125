"""Values, nodes, and the loops and parts that nodes run. All are frozen; values and nodes are compared by identity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from returnn_lite.dims import Dim, TensorType
from returnn_lite.dims.records import record
from returnn_lite.ir.op import InLoop, Op
from returnn_lite.ir.values import Clock, Origin, Value


@record(frozen=True, eq=False)
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


@record(frozen=True, eq=False)
class State:
    """A delay: in the first step `now` is `init`, later what `next` was one step before. This is what `prev:x` is."""

    now: Value
    init: Value
    next: Value
    clock: Clock = ()
    origin: Origin = Origin()
    """The layer that has the state; of `prev:x` the one that asked for it first."""
    previous: str = ""
    """Of `prev:x`: the path of x."""


@record(frozen=True, eq=False)
class Element:
    """x[t] and its stack: `now` in the body, `whole` outside, with the loop's dim."""

    now: Value
    whole: Value
    clock: Clock = ()


@dataclass(frozen=True, eq=False)
class Ending:
    """How a loop of unknown length ends: `ended` [B, K?] bool in the body, and the most steps of each sequence, int []
    or [B] outside of it.

    The loop stops when `ended` is true everywhere. `length` counts, for each sequence, the steps that were not ended,
    with the one that ended it if `include_end` and there is one.
    """

    ended: Value
    max_steps: Value
    include_end: bool = False


@dataclass(frozen=True, eq=False)
class Search:
    """The hypotheses of a loop, as body values: `pointers` say of each at the end of a step which one it continues from
    the step before, `ended` [B?, K?] bool whether those before the step had ended.

    A step before which all of a sequence had ended is there for other sequences of the batch only.
    """

    pointers: Value
    ended: Value


STEPS_A_ROUND = 8
"""Of a loop that is to be unrolled, where its number of steps is known at run time only."""


@dataclass(frozen=True, eq=False)
class Loop(Op):
    """Runs `body` once for each frame of `over`.

    Four roles, as in JAX's scan: `elements` are sliced, `states` carried, `stacks` collected into whole values, and
    what the body uses from outside beyond that is invariant. The node's inputs are the wholes of `elements`, the inits
    of `states`, the bound of `ending`, then the invariants; its outputs the wholes of `stacks`, then of `finals`, which
    have the value after the last step that any sequence took. With `ending` the loop determines the length of `over`;
    without, it is known before. With `search`, finals of hypotheses have the value after the last step that their own
    sequence took, zero if it took none; stacked values are traced back from these hypotheses, and so are the lengths.
    """

    over: Dim
    elements: tuple[Element, ...]
    states: tuple[State, ...]
    stacks: tuple[Element, ...]
    body: tuple[Node, ...]
    finals: tuple[Element, ...] = ()
    ending: Ending | None = None
    search: Search | None = None
    holds: tuple[tuple[Value, Value], ...] = ()
    """Values of slower clocks with what they are before their clock's first tick (an outer value); zero if not here."""
    unroll: int = 1
    """How many steps are written out in each round of the loop that runs it; 0: all where their number is fixed, else
    `STEPS_A_ROUND`."""

    def type_of(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        stacks = tuple(stack.now.type.with_dims(stack_dim(self, stack)) for stack in self.stacks)
        return (*stacks, *(final.now.type for final in self.finals))

    @property
    def is_function(self) -> bool:
        """Never: its body may have effects."""
        return False

    @cached_property
    def fresh(self) -> bool:
        """True if numbers are drawn in its steps: each step of a loop around has others."""
        ops = [node.op for node in self.body]
        return any(op.fresh and (isinstance(op, Loop | Recompute) or op.in_loop is InLoop.RANDOM) for op in ops)

    @cached_property
    def has_loops(self) -> bool:
        """Whether there are bodies in its body."""
        return any(isinstance(node.op, Loop | Recompute) for node in self.body)

    def created_dims(self) -> tuple[Dim, ...]:
        return (self.over,) if self.ending is not None else ()

    def named_dims(self) -> frozenset[Dim]:
        return self._named_dims

    @cached_property
    def _named_dims(self) -> frozenset[Dim]:
        """The dim of the steps, and those that the body names."""
        return self.over.leaves.union((self.over,), *(node.op.named_dims() for node in self.body))

    def measured_dims(self) -> frozenset[Dim]:
        return frozenset(dim for dim in self.named_dims() if dim.size is None).difference(self.created_dims())

    def free_values(self) -> tuple[Value, ...]:
        """What the body uses from outside besides elements and states: the loop-invariant values, in order of use."""
        return self._free_values

    @cached_property
    def _free_values(self) -> tuple[Value, ...]:
        """Found once: passes ask."""
        bound = {e.now for e in self.elements} | {s.now for s in self.states}
        used: list[Value] = []
        for node in self.body:
            bound.update(node.outputs)
            used += node_operands(node)
        used += [s.next for s in self.states] + [s.now for s in (*self.stacks, *self.finals)]
        used += [self.ending.ended] if self.ending is not None else []
        used += [self.search.pointers, self.search.ended] if self.search is not None else []
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


@dataclass(frozen=True, eq=False)
class Recompute(Op):
    """Nodes that are computed again when gradients are taken: until then what they read is kept, and no value that they
    make but the states of recurrences on whole sequences.

    It is a part of the level that it stands in, not one of its own: its `results`, those of the body's values that are
    read outside of it, are the same values there.
    """

    body: tuple[Node, ...]
    results: tuple[Value, ...]

    def type_of(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return tuple(value.type for value in self.results)

    @property
    def is_function(self) -> bool:
        """Never: its results are bound in its body."""
        return False

    @property
    def fresh(self) -> bool:
        return any(node.op.fresh for node in self.body)

    def along(self, *inputs: TensorType) -> tuple[Dim, ...]:
        found = (node.op.along(*(value.type for value in node.inputs)) for node in self.body)
        return tuple(dict.fromkeys(dim for dims in found for dim in dims))

    def named_dims(self) -> frozenset[Dim]:
        return frozenset[Dim]().union(*(node.op.named_dims() for node in self.body))

    def measured_dims(self) -> frozenset[Dim]:
        """None: each node of the body has its own, which one before it in the body may make known."""
        return frozenset()

    def operands(self) -> tuple[Value, ...]:
        """The inputs that its node must have: all that the body reads of what it does not make, in order of use."""
        made = {output for node in self.body for output in node.outputs}
        read = dict.fromkeys(value for node in self.body for value in node_operands(node))
        return tuple(value for value in read if value not in made)


def recompute_node(body: tuple[Node, ...], results: tuple[Value, ...], origin: Origin) -> Node:
    """The node that has nodes of a level, in their order, computed again."""
    op = Recompute(body, results)
    return Node(op, op.operands(), results, origin)


def computed_once(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """The nodes, those inside of loops too, without what says that some are computed again."""
    found: list[Node] = []
    for node in nodes:
        if isinstance(node.op, Recompute):
            found += computed_once(node.op.body)
        elif isinstance(node.op, Loop) and any(isinstance(inner.op, Recompute) for inner in walk(node.op.body)):
            found.append(node.with_loop(replace(node.op, body=computed_once(node.op.body))))
        else:
            found.append(node)
    return tuple(found)


def node_operands(node: Node) -> tuple[Value, ...]:
    """Everything a node in a loop body reads: its inputs and the masks of its clock."""
    return (*node.inputs, *(mask.value for mask in node.clock)) if node.clock else node.inputs


def loop_node(loop: Loop, origin: Origin, clock: Clock = ()) -> Node:
    """The node that runs a loop."""
    return Node(loop, loop.operands(), tuple(e.whole for e in (*loop.stacks, *loop.finals)), origin, clock)


def walk(nodes: Iterable[Node]) -> Iterator[Node]:
    """All nodes, those in bodies after what has the body."""
    for node in nodes:
        yield node
        if isinstance(node.op, Loop):
            yield from walk(node.op.body) if node.op.has_loops else node.op.body
        elif isinstance(node.op, Recompute):
            yield from walk(node.op.body)
