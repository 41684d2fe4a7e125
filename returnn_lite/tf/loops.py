"""Loops: the body once for each frame, as one `tf.while_loop`."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import tensorflow as tf

from returnn_lite.dims import Dim, Symbol
from returnn_lite.ir import Element, Loop, Node, Value, stack_dim, walk
from returnn_lite.tf.context import Context
from returnn_lite.tf.gradients import LiveTap, Taps, find_taps
from returnn_lite.tf.hypotheses import (
    final_order,
    in_final_order,
    last_of_sequences,
    steps_before_end,
    steps_of_sequences,
)
from returnn_lite.tf.layout import Tensor, body_order, move_first
from returnn_lite.tf.mask import broadcast, masked, padded_dims
from returnn_lite.tf.product import own_shape
from returnn_lite.tf.rounds import Rounds, is_written_out
from returnn_lite.tf.sizes import Size
from returnn_lite.tf.stacks import Column

Environment = MutableMapping[Value, Tensor]
Raws = list[tf.Tensor]
LowerNodes = Callable[[Iterable[Node], Environment, Context], None]


@dataclass(frozen=True)
class Plan:
    """What is known of a loop before its body is traced."""

    loop: Loop
    created: frozenset[Dim]
    """Dims whose lengths each step determines anew."""
    carried: tuple[Element, ...]
    """The finals that are not a state anyway."""
    traced: tuple[Element, ...]
    """The finals of hypotheses."""

    def is_local(self, dim: Dim) -> bool:
        return dim in self.created or any(self.is_local(operand) for operand in dim.operands())

    def local_leaves(self) -> list[Dim]:
        """The created dims whose lengths are needed outside, because something stacked has them."""
        found: dict[Dim, None] = {}

        def visit(dim: Dim) -> None:
            if dim in self.created:
                found[dim] = None
            for operand in dim.operands():
                visit(operand)

        for stack in self.loop.stacks:
            for dim in stack.now.type.dims:
                visit(dim)
        return list(found)

    def layout(self, dims: Iterable[Dim]) -> tuple[Dim, ...]:
        """The layout of a state. A dim that grows from step to step comes second to last, as products want it."""
        kept = body_order(dim for dim in dims if not self.is_local(dim))
        growing = tuple(dim for dim in dims if self.is_local(dim))
        return (*kept[:-1], *growing, *kept[-1:])

    def columns(self, c: Context) -> list[Column]:
        """The stacks, then `ended`, what there is of a search, and lengths of local dims."""
        values = [stack.now for stack in self.loop.stacks]
        values += [self.loop.ending.ended] if self.loop.ending is not None else []
        values += [self.loop.search.pointers, self.loop.search.ended] if self.loop.search is not None else []
        values += [final.now for final in self.traced]
        columns = [
            Column(value, c.dtype(value.type.dtype), tuple(d for d in value.type.dims if self.is_local(d)))
            for value in values
        ]
        return columns + [Column(dim, tf.int32) for dim in self.local_leaves()]


def plan_of(loop: Loop) -> Plan:
    """Raises ValueError for a loop that passes should have rewritten."""
    for element in (*loop.elements, *loop.stacks):
        if stack_dim(loop, element) != loop.over:
            raise ValueError(f"{element.now.name} is on a slower clock than its loop over {loop.over}: no pass ran")
    for clock in [node.clock for node in loop.body] + [state.clock for state in loop.states]:
        if clock and clock[-1].dim != loop.over:
            raise ValueError(f"a value in the loop over {loop.over} is on a slower clock: no pass ran")
    created = frozenset(dim for node in walk(loop.body) for dim in node.op.created_dims())
    next_values = {state.next for state in loop.states}
    beam = loop.search.pointers.type.sparse if loop.search is not None else None
    traced = tuple(final for final in loop.finals if beam is not None and beam in final.now.type)
    carried = tuple(final for final in loop.finals if final not in traced and final.now not in next_values)
    plan = Plan(loop, created, carried, traced)
    for final in loop.finals:
        for dim in filter(plan.is_local, final.now.type.dims):
            raise ValueError(f"{final.now.name} is wanted after the loop, but each step has its own length of {dim}")
    return plan


def lower_loop(c: Context, loop: Loop, environment: Environment, lower_nodes: LowerNodes) -> tuple[Tensor, ...]:
    """The stacks of a loop, then its finals; defines the lengths of the dims that it determines."""
    plan = plan_of(loop)
    columns = plan.columns(c)
    bound = _step_bound(c, loop, environment)
    environment = ChainMap(rearranged(loop, environment), environment)
    elements = [_unstacked(environment[element.whole], loop.over) for element in loop.elements]
    states = [initial_state(c, plan, environment[state.init], state.now) for state in loop.states]
    finals = [_zeros(c, plan, final.now) for final in plan.carried]
    taps = find_taps(c.sizes, loop, environment.__getitem__) if c.differentiable and not c.forgets else []

    written_out = loop.ending is None and is_written_out(loop.unroll, bound)

    def body(number: Size, state_raws: Raws, final_raws: Raws, arrays: Raws, tapped: Any, _: tf.Tensor) -> Any:
        step = tf.convert_to_tensor(number)
        live = [LiveTap(tap, flow, written) for tap, (flow, written) in zip(taps, tapped, strict=True)]
        inner_taps = Taps(live, step, plan.is_local, written_out) if live else None
        inner = replace(c, sizes=c.sizes.inside(loop.over, step), steps=(*c.steps, (loop.over, step)), taps=inner_taps)
        local: Environment = ChainMap({}, environment)
        for element, (array, dims) in zip(loop.elements, elements, strict=True):
            local[element.now] = Tensor(tf.ensure_shape(array.read(step), [dim.size for dim in dims]), dims)
        for state, tensor, raw in zip(loop.states, states, state_raws, strict=True):
            local[state.now] = Tensor(raw, tensor.dims)
        lower_nodes(loop.body, local, inner)
        state_raws = [carried(inner, local[s.next], like) for s, like in zip(loop.states, states, strict=True)]
        final_raws = [carried(inner, local[f.now], like) for f, like in zip(plan.carried, finals, strict=True)]
        entries = [entry for column in columns for entry in column.entries(inner, _column_value(inner, local, column))]
        arrays = [array.write(step, entry) for array, entry in zip(arrays, entries, strict=True)]
        done = tf.reduce_all(local[loop.ending.ended].raw) if loop.ending is not None else tf.constant(False)
        return number + 1, state_raws, final_raws, arrays, [(tap.flow, tap.inputs) for tap in live], done

    known = bound if loop.ending is None else None
    arrays = [array for column in columns for array in column.arrays(known)]
    tapped = [tap.sinks(known) for tap in taps]
    variables = (0, [t.raw for t in states], [t.raw for t in finals], arrays, tapped, tf.constant(False))
    shapes = [[tf.TensorShape([dim.size for dim in t.dims]) for t in tensors] for tensors in (states, finals)]
    scalar = tf.TensorShape([])
    anything = tf.TensorShape(None)
    invariants = (scalar, *shapes, [anything for _ in arrays], [(anything, anything) for _ in tapped], scalar)
    rounds = Rounds(body, bound, loop.unroll, None if loop.ending is None else lambda *variables: variables[-1])
    steps, state_raws, final_raws, arrays, tapped, _ = rounds.run(variables, invariants)
    for tap, (_, written) in zip(taps, tapped, strict=True):
        tap.written = None if tap.again else written
    most = environment[loop.ending.max_steps] if loop.ending is not None else None
    stacks, traced = _stacked(c, plan, columns, arrays, steps, most)
    after = {s.next: Tensor(raw, t.dims) for s, t, raw in zip(loop.states, states, state_raws, strict=True)}
    after |= {f.now: Tensor(raw, t.dims) for f, t, raw in zip(plan.carried, finals, final_raws, strict=True)}
    return (*stacks, *({**after, **traced}[final.now] for final in loop.finals))


def rearranged(loop: Loop, environment: Environment) -> Environment:
    """Loop-invariant values with several axes for data, in the layout that the body's products want.

    They are transposed once, before the loop, and not in each step.
    """
    values = {value: environment[value] for value in loop.free_values()}
    return {
        value: tensor.laid_out(body_order(tensor.dims))
        for value, tensor in values.items()
        if value.type.batch is not None and sum(dim.is_dynamic for dim in tensor.dims) > 1
    }


def _step_bound(c: Context, loop: Loop, environment: Environment) -> Size:
    if loop.ending is None:
        return c.size(loop.over)
    return tf.maximum(tf.reduce_max(tf.cast(environment[loop.ending.max_steps].raw, tf.int32)), 0)


def _unstacked(whole: Tensor, over: Dim) -> tuple[tf.TensorArray, tuple[Dim, ...]]:
    """The frames of a whole value, and their layout."""
    first = move_first(whole, over)
    raw = first.raw
    array = tf.TensorArray(raw.dtype, tf.shape(raw)[0], element_shape=raw.shape[1:])
    return array.unstack(raw), first.dims[1:]


def initial_state(c: Context, plan: Plan, init: Tensor, now: Value) -> Tensor:
    """The initial value, repeated along the dims that it lacks."""
    dims = plan.layout(now.type.dims)
    if all(dim in init.dims for dim in dims):
        return Tensor(init.in_order(dims), dims)
    own = dict(zip(init.dims, own_shape(init.raw), strict=True))
    shape = [own[dim] if dim in own else c.size(dim) for dim in dims]
    return Tensor(init.repeated(dims, shape), dims)


def _zeros(c: Context, plan: Plan, value: Value) -> Tensor:
    dims = plan.layout(value.type.dims)
    return Tensor(tf.zeros(c.shape(dims), c.dtype(value.type.dtype)), dims)


def carried(c: Context, value: Tensor, like: Tensor) -> tf.Tensor:
    """A value for the next step, where its padding is taken to be finite."""
    if not value.finite:
        value = masked(c.sizes, value, padded_dims(c.sizes, value))
    value = broadcast(c.sizes, value, like.dims)
    return tf.ensure_shape(value.raw, [dim.size for dim in like.dims])


def _column_value(c: Context, local: Environment, column: Column) -> Tensor:
    return local[column.source] if isinstance(column.source, Value) else c.sizes.lengths(column.source)


def _stacked(
    c: Context,
    plan: Plan,
    columns: list[Column],
    arrays: list[tf.TensorArray],
    steps: tf.Tensor,
    most: Tensor | None,
) -> tuple[list[Tensor], dict[Value, Tensor]]:
    """The stacks as whole values: in the order of the final hypotheses, cut to the longest, padded to it; and the
    finals of hypotheses."""
    loop = plan.loop
    remaining = iter(arrays)
    written = [(column, [next(remaining) for _ in range(column.array_count)]) for column in columns]
    stacks, extra = written[: len(loop.stacks)], iter(written[len(loop.stacks) :])
    ran, trim = loop.over, loop.ending is not None  # what ended it may not count, and the last step runs for all
    if loop.ending is not None:
        ran = Symbol(f"steps of {loop.over.name}")
        c.sizes.define(ran, Tensor(steps, ()), steps)
        column, own = next(extra)
        ended = column.whole(c, ran, own, trim=False)
    order, beam = None, None
    finals: dict[Value, Tensor] = {}
    if loop.search is not None:
        beam = loop.search.pointers.type.sparse
        assert beam is not None
        pointers, ended_before, *last = (
            column.whole(c, ran, own, trim=False) for column, own in islice(extra, 2 + len(plan.traced))
        )
        own_steps = steps_of_sequences(ended_before, ran, beam)
        order = final_order(c, pointers, ran, beam, own_steps)
        wholes = zip(plan.traced, last, strict=True)
        finals = {final.now: last_of_sequences(c, whole, ran, own_steps) for final, whole in wholes}
    if loop.ending is not None and most is not None:
        ended = in_final_order(c, ended, order, beam)
        c.sizes.define(loop.over, steps_before_end(ended, ran, loop.ending.include_end, most))
        if order is not None:
            order = Tensor(order.raw[: c.size(loop.over)], order.dims).rename({ran: loop.over})
    for column, own in extra:
        assert isinstance(column.source, Dim)
        lengths = in_final_order(c, column.whole(c, loop.over, own, trim), order, beam)
        c.sizes.define(column.source, lengths, exact=False)
    return [in_final_order(c, column.whole(c, loop.over, own, trim), order, beam) for column, own in stacks], finals
