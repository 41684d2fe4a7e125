"""Runs graphs with the reference meaning of their primitives.

A graph may be one as layers build it, with clocks and edges that cross them: what is under a mask is computed at every
step, but taken over only where the mask is true, sequence by sequence. So this is also a second meaning of the pass
`clocks`, which knows nothing of sequences.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from returnn_lite.dims import Dim, DimKind
from returnn_lite.ir import Clock, Element, Graph, Loop, Node, Op, Recompute, State, Value, stack_dim, walk
from returnn_lite.ir.ops.histories import EmptyHistory
from returnn_lite.ir.ops.masks import Current, When
from returnn_lite.ir.ops.search import BeamGather
from returnn_lite.ir.ops.sources import Parameter, RandomDraw, StepIndex
from tests.ir.primitives import FAMILY_NAMES
from tests.reference import elementwise, search
from tests.reference.all_steps import ALL_STEPS, Foreseen, active_steps, foreseen, nothing_yet
from tests.reference.named import Array, Lengths, Named, poisoned, real, union
from tests.reference.rule import Rule
from tests.reference.steps import chosen, frame, stacked

FAMILIES = tuple(importlib.import_module(f"tests.reference.{name}") for name in FAMILY_NAMES)
"""The modules beside this one that give the primitives of each family their meaning."""
RULES: Mapping[type[Op], Rule] = {op: rule for family in FAMILIES for op, rule in family.RULES.items()}
OF_THE_INTERPRETER = frozenset([Loop, Parameter, RandomDraw, StepIndex, When, Current, *ALL_STEPS])
"""Primitives that need more than their operands."""

Environment = dict[Value, Named]


def interpret(
    graph: Graph,
    inputs: Mapping[str, Array],
    lengths: Lengths,
    parameters: Mapping[str, Array],
    draws: Mapping[str, Named] | None = None,
) -> dict[str, Named]:
    """The outputs of a graph.

    `inputs` have the axes in the order of their types. `lengths` get those of the dims that the graph creates. `draws`
    are the random numbers, by the seed's name, enough for any length; with a loop's dim, each step has its own.
    """
    environment: Environment = {}
    for value in graph.inputs:
        environment[value] = poisoned(Named(np.asarray(inputs[value.name]), value.type.dims), lengths)
    has_clocks = any(node.clock for node in walk(graph.nodes))
    with np.errstate(all="ignore"):
        Scope(environment, lengths, parameters, draws or {}, has_clocks).run(graph.nodes)
    return {name: environment[value] for name, value in graph.outputs.items()}


@dataclass
class Scope:
    """One level of nodes with what it sees: outside of all loops, or one step of a loop."""

    environment: Environment
    lengths: Lengths
    parameters: Mapping[str, Array]
    draws: Mapping[str, Named]
    has_clocks: bool
    steps: tuple[tuple[Dim, int], ...] = ()
    held: Mapping[Value, Named] = field(default_factory=dict)
    ticks: Mapping[Clock, Named] = field(default_factory=dict)
    ahead: Mapping[Value, Foreseen] = field(default_factory=dict)

    def run(self, nodes: Iterable[Node]) -> None:
        """Computes the results of nodes, in order."""
        for node in nodes:
            clock = self.slower(node.clock)
            before = dict(self.lengths.known)
            results = list(self._results(node, clock))
            if node.op.causal and not self.has_clocks:  # types under masks do not say yet what differs
                results = [
                    shared(r, output.type.dims, self.lengths) for r, output in zip(results, node.outputs, strict=True)
                ]
            # A history before this step has another length than its dim has after it.
            if not isinstance(node.op, BeamGather | EmptyHistory):
                results = [self._checked(result, output) for result, output in zip(results, node.outputs, strict=True)]
            if clock:
                created = node.op.created_dims()
                for dim in created:
                    self.lengths.known[dim] = self._taken_over(self.lengths.known[dim], clock, before.get(dim))
                first = self.environment[node.inputs[2]] if isinstance(node.op, Current) else None
                olds = [self.held.get(output, first) for output in node.outputs]
                results = [self._taken_over(new, clock, old) for new, old in zip(results, olds, strict=True)]
                results = [_cut(result, created, self.lengths) for result in results]
            self.environment.update(zip(node.outputs, results, strict=True))

    def slower(self, clock: Clock) -> Clock:
        """The masks under which something runs that the loop itself does not: it may be the loop of a mask's frames."""
        own = [i for i, mask in enumerate(clock) if self.steps and mask.dim == self.steps[-1][0]]
        return clock[own[-1] + 1 :] if own else clock

    def active(self, clock: Clock) -> Named:
        """Where all masks are true."""
        masks = [self.environment[mask.value] for mask in clock]
        dims = union(masks)
        return Named(np.logical_and.reduce(np.broadcast_arrays(*(mask.over(dims) for mask in masks))), dims)

    def _checked(self, result: Named, output: Value) -> Named:
        """The result with all dims of its type, and wild padding.

        Before the pass `clocks` types do not say yet that what is under a mask differs from sequence to sequence.
        """
        extra = tuple(dim for dim in result.dims if dim not in output.type.dims)
        assert not extra or self.has_clocks, (output, result.dims)
        dims = (*output.type.dims, *extra)
        return poisoned(Named(result.full(dims, self.lengths), dims), self.lengths)

    def _taken_over(self, new: Named, clock: Clock, old: Named | None) -> Named:
        """On a slower clock the old value stays where the clock does not tick; zero if there is none yet."""
        return chosen(self.active(clock), new, old or Named(np.zeros((), new.array.dtype), ()))

    def _results(self, node: Node, clock: Clock) -> tuple[Named, ...]:
        op, inputs = node.op, [self.environment[value] for value in node.inputs]
        results: Any
        if isinstance(op, Loop):
            results = run_loop(op, self)
        elif isinstance(op, Recompute):
            self.run(op.body)
            results = tuple(self.environment[value] for value in node.outputs)
        elif isinstance(op, Parameter):
            results = Named(np.asarray(self.parameters[op.name]), op.dims)
        elif isinstance(op, RandomDraw):
            results = self._drawn(op)
        elif isinstance(op, StepIndex):
            results = self.ticks[clock] if clock else Named(np.array(self.steps[-1][1]), ())
        elif isinstance(op, When):
            results = inputs[0]
        elif isinstance(op, Current):
            results = chosen(inputs[1], inputs[0], self.held.get(node.output, inputs[2]))
        elif isinstance(op, ALL_STEPS):
            results = self._foreseen(node, inputs[0])
        else:
            results = RULES[type(op)](op, self.lengths, *inputs)
        return results if isinstance(results, tuple) else (results,)

    def _foreseen(self, node: Node, x: Named) -> Named:
        if node.output not in self.ahead:
            return nothing_yet(node.op, x, self.lengths)
        found = self.ahead[node.output]
        self.lengths.known.update(found.length)
        return found.frames[self.steps[-1][1]]

    def _drawn(self, op: RandomDraw) -> Named:
        drawn = self.draws[op.seed]
        for over, step in self.steps:
            if over not in op.dims:
                drawn = frame(drawn, over, step)
        return Named(drawn.array[tuple(slice(0, self.lengths.size(dim)) for dim in drawn.dims)], drawn.dims)


def shared(x: Named, dims: Sequence[Dim], lengths: Lengths) -> Named:
    """What is the same for all sequences, without those dims of x that are not in `dims`.

    Where a sequence ends changes nothing before for a causal primitive: so all that have a frame must agree about it.
    """
    extra = [dim for dim in x.dims if dim not in dims and dim.kind in (DimKind.BATCH, DimKind.BEAM)]
    if not extra:
        return x
    rest = tuple(dim for dim in x.dims if dim not in extra)
    sizes = [x.array.shape[x.axis(dim)] for dim in rest]
    count = math.prod(x.array.shape[x.axis(dim)] for dim in extra)
    array, where = (one.over((*extra, *rest)).reshape(count, *sizes) for one in (x, real(x, lengths)))
    one = np.take_along_axis(array, where.argmax(0)[None], 0)
    assert np.array_equal(np.where(where, array, 0), np.where(where, one, 0), equal_nan=array.dtype.kind == "f")
    return Named(one[0], rest)


def _cut(x: Named, dims: Sequence[Dim], lengths: Lengths) -> Named:
    """x without what is behind the longest of some dims."""
    return Named(x.array[tuple(slice(0, lengths.size(d)) if d in dims else slice(None) for d in x.dims)], x.dims)


@dataclass(frozen=True)
class Step:
    """What one step of a loop has computed: its values, and the lengths of the dims that it creates."""

    values: Environment
    lengths: Mapping[Dim, Named]


def run_loop(loop: Loop, outer: Scope) -> tuple[Named, ...]:
    """Runs the body step by step, for as long as the loop's dim or its ending says: the stacks, then the finals."""
    created = {dim for node in walk(loop.body) for dim in node.op.created_dims()}
    steps = _steps(loop, outer, created, {})
    for _ in [node for node in loop.body if isinstance(node.op, ALL_STEPS)]:
        steps = _steps(loop, outer, created, _ahead(loop, outer, steps))
    traces = _traces(loop, steps)
    _define_lengths(loop, steps, traces, created, outer.lengths)
    stacks = [_stack(stack, loop.over, steps, traces, outer.lengths) for stack in loop.stacks]
    return (*stacks, *(_final(final.now, loop, steps, outer) for final in loop.finals))


def _steps(loop: Loop, outer: Scope, created: Iterable[Dim], ahead: Mapping[Value, Foreseen]) -> list[Step]:
    """Runs the body step by step."""
    scope = replace(_loop_scope(loop, outer), ahead=ahead)
    slow = {
        value
        for node in loop.body
        if scope.slower(node.clock) or isinstance(node.op, Current)
        for value in node.outputs
    }
    states = {state.now: _initial(state, outer) for state in loop.states}
    steps: list[Step] = []
    for number in range(_most_steps(loop, outer)):
        scope = _step_scope(loop, outer, scope, number)
        scope.environment.update(states)
        scope.run(loop.body)
        values = scope.environment
        steps.append(Step(values, {dim: scope.lengths.known[dim] for dim in created}))
        states = {state.now: _next(state, scope) for state in loop.states}
        ticks = {clock: _advanced(count, scope.active(clock)) for clock, count in scope.ticks.items()}
        scope = replace(scope, held={value: values[value] for value in slow}, ticks=ticks)
        if loop.ending is not None and values[loop.ending.ended].array.all():
            break
    return steps


def _ahead(loop: Loop, outer: Scope, steps: Sequence[Step]) -> dict[Value, Foreseen]:
    """What the primitives that see all steps give at each, by what the steps of a run have computed."""
    found: dict[Value, Foreseen] = {}
    if not steps:
        return found
    assert loop.ending is None, "how many steps there are must be known before"
    scope, real = _loop_scope(loop, outer), outer.lengths.mask(loop.over)
    for node in loop.body:
        if isinstance(node.op, ALL_STEPS):
            clock = scope.slower(node.clock)
            always = Named(np.array(True), ())
            ticks = [replace(scope, environment=s.values).active(clock) if clock else always for s in steps]
            x = stacked([step.values[node.inputs[0]] for step in steps], loop.over)
            found[node.output] = foreseen(node.op, x, active_steps(ticks, real, loop.over), loop.over)
    return found


def _loop_scope(loop: Loop, outer: Scope) -> Scope:
    """The scope before the first step."""
    scope = replace(outer, steps=(*outer.steps, (loop.over, 0)), ticks={})
    clocks = {clock for node in loop.body if (clock := scope.slower(node.clock))}
    zero = Named(np.array(0), ())
    holds = {value: outer.environment[init] for value, init in loop.holds}
    return replace(scope, held=holds, ticks=dict.fromkeys(clocks, zero))


def _step_scope(loop: Loop, outer: Scope, before: Scope, number: int) -> Scope:
    """The scope of a step: what is outside, with frames of the elements, and lengths that differ from step to step."""
    known = {dim: frame(length, loop.over, number) for dim, length in outer.lengths.known.items()}
    environment = dict(outer.environment)
    for element in loop.elements:
        assert stack_dim(loop, element) == loop.over
        whole = frame(outer.environment[element.whole], loop.over, number)
        shorter = [dim for dim in whole.dims if dim in known and loop.over in outer.lengths.known[dim].dims]
        environment[element.now] = _cut(whole, shorter, Lengths(known))
    steps = (*outer.steps, (loop.over, number))
    created = {dim for node in walk(loop.body) for dim in node.op.created_dims()}
    around = outer.lengths.known.keys() - created  # of a history, around the loop is its length before the first step
    carried = {dim: length for dim, length in before.lengths.known.items() if dim not in around}
    return replace(before, environment=environment, lengths=Lengths(known | carried), steps=steps)


def _most_steps(loop: Loop, outer: Scope) -> int:
    if loop.ending is None:
        return outer.lengths.size(loop.over)
    return int(outer.environment[loop.ending.max_steps].array.max(initial=0))


def _initial(state: State, outer: Scope) -> Named:
    """The state before the first step, with all dims of its type that have a length by then."""
    value = outer.environment[state.init]
    missing = [dim for dim in state.now.type.dims if dim not in value.dims and outer.lengths.knows(dim)]
    shape = [*(outer.lengths.size(dim) for dim in missing), *value.array.shape]
    return Named(np.broadcast_to(value.array, shape), (*missing, *value.dims))


def _next(state: State, scope: Scope) -> Named:
    """The state of the next step, with all dims of its type."""
    value = scope.environment[state.next]
    if clock := scope.slower(state.clock):
        return chosen(scope.active(clock), value, scope.environment[state.now])
    missing = [dim for dim in state.now.type.dims if dim not in value.dims]
    dims = (*missing, *value.dims)
    shape = [*(scope.lengths.size(dim) for dim in missing), *value.array.shape]
    return Named(np.broadcast_to(value.array, shape), dims)


def _advanced(count: Named, active: Named) -> Named:
    dims = union([count, active])
    return Named(count.over(dims) + active.over(dims), dims)


def _traces(loop: Loop, steps: Sequence[Step]) -> list[Named | None]:
    """For each step the hypotheses that those at the end come from."""
    if loop.search is None or not steps:
        return [None] * len(steps)
    pointers = loop.search.pointers
    last = steps[-1].values[pointers]
    (beam,) = (dim for dim in last.dims if dim.kind is DimKind.BEAM)
    own = Named(np.arange(last.array.shape[last.axis(beam)]), (beam,)).over(last.dims)
    alive = Named(np.broadcast_to(own, last.array.shape), last.dims)
    traces: list[Named | None] = []
    for step in reversed(steps):
        traces.append(alive)
        before = search.beam_gather(BeamGather(beam), Lengths(), step.values[pointers], alive)
        alive = chosen(_over(step.values[loop.search.ended], beam), alive, before)
    return traces[::-1]


def _over(ended: Named, beam: Dim) -> Named:
    """Whether all hypotheses of a sequence had ended."""
    if beam not in ended.dims:
        return ended
    return Named(ended.array.all(ended.axis(beam)), tuple(dim for dim in ended.dims if dim != beam))


def _traced(value: Named, alive: Named | None) -> Named:
    """A step's value in the order of the hypotheses at the end."""
    beams = [dim for dim in value.dims if alive is not None and dim in alive.dims and dim.kind is DimKind.BEAM]
    if alive is None or not beams:
        return value
    return search.beam_gather(BeamGather(beams[0]), Lengths(), value, alive)


def _define_lengths(
    loop: Loop, steps: Sequence[Step], traces: Sequence[Named | None], created: set[Dim], lengths: Lengths
) -> None:
    """How long the dims are that the loop creates, its own among them."""
    _define_end(loop, steps, traces, lengths)
    for dim in created - {loop.over}:
        frames = [_traced(step.lengths[dim], trace) for step, trace in zip(steps, traces, strict=True)]
        whole = stacked(frames, loop.over) if frames else Named(np.zeros(0, int), (loop.over,))
        lengths.known[dim] = Named(whole.array[: lengths.size(loop.over)], whole.dims)


def _define_end(loop: Loop, steps: Sequence[Step], traces: Sequence[Named | None], lengths: Lengths) -> None:
    """How many steps each sequence has, if the loop ends by itself."""
    if loop.ending is None:
        return
    if not steps:
        dims = loop.ending.ended.type.dims
        lengths.known[loop.over] = Named(np.zeros([lengths.size(dim) for dim in dims], int), dims)
        return
    ending = loop.ending
    ended = stacked([_traced(s.values[ending.ended], t) for s, t in zip(steps, traces, strict=True)], loop.over)
    over = ended.array
    if ending.include_end:
        over = np.concatenate([np.zeros_like(over[:1]), over])[:-1]
    most = np.maximum(steps[0].values[ending.max_steps].over(ended.dims[1:]), 0)
    lengths.known[loop.over] = Named(np.minimum((~over).sum(0), most), ended.dims[1:])


def _stack(stack: Element, over: Dim, steps: Sequence[Step], traces: Sequence[Named | None], lengths: Lengths) -> Named:
    if not steps:
        dims = stack.whole.type.dims
        shape = [0 if dim == over else lengths.size(dim) for dim in dims]
        return Named(np.zeros(shape, elementwise.numpy_dtype(stack.whole.type.dtype)), dims)
    whole = stacked([_traced(step.values[stack.now], trace) for step, trace in zip(steps, traces, strict=True)], over)
    made = [dim for step in steps[:1] for dim in step.lengths]
    return _cut(whole, [over, *made], lengths)


def _final(value: Value, loop: Loop, steps: Sequence[Step], outer: Scope) -> Named:
    """The value after the last step; without steps that of the state before the first, or zero. Of hypotheses that
    after the last step of the sequence, or zero."""
    nothing = Named(np.zeros((), elementwise.numpy_dtype(value.type.dtype)), ())
    beam = loop.search.pointers.type.sparse if loop.search is not None else None
    if loop.search is not None and beam is not None and beam in value.type:
        last = nothing
        for step in steps:
            last = chosen(_over(step.values[loop.search.ended], beam), last, step.values[value])
        return last
    if steps:
        return steps[-1].values[value]
    init = next((state.init for state in loop.states if state.next is value), None)
    return nothing if init is None else outer.environment[init]
