"""Random bodies of loops, made with the Builder alone: delays, recurrences, histories, masks in masks, chains.

All values are [B, F] in the body, or [F] where no step changes them, so that any can be an operand of any node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import strategies as st

from returnn_lite.dims import Dim, DimKind, Masked, Symbol, TensorType
from returnn_lite.ir import Graph, Origin, Value
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.open_body import OpenState
from returnn_lite.ir.ops.axes import Relabel
from returnn_lite.ir.ops.contraction import Dot
from returnn_lite.ir.ops.elementwise import Elementwise, Select
from returnn_lite.ir.ops.histories import CumConcatStep, EmptyHistory
from returnn_lite.ir.ops.indexing import Concat
from returnn_lite.ir.ops.recurrence import CumsumStep
from returnn_lite.ir.ops.recurrent_cells import SimpleRnnCell, SimpleRnnStep
from returnn_lite.ir.ops.reduction import Moments, Reduce
from returnn_lite.ir.ops.sources import Parameter, RandomDraw, StepIndex
from tests.passes.meaning import CONSTANT, B, F, T

F2 = Symbol("F2", DimKind.FEATURE, 2)


class Drawn:
    """A random graph, which prints as IR text."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def __repr__(self) -> str:
        return f"\n{self.graph}\n"


@dataclass
class Body:
    """A body under construction: the values that later nodes may read."""

    draw: st.DrawFn
    builder: Builder
    outer: list[Value]
    masks: list[Value]
    values: list[Value] = field(default_factory=list)
    delays: list[OpenState] = field(default_factory=list)
    mask_dims: dict[tuple[Dim, Value], Dim] = field(default_factory=dict)
    number: int = 0

    def operand(self) -> Value:
        """Any value so far, of any clock."""
        return self.draw(st.sampled_from([*self.values, *self.outer]))

    def parameter(self, *dims: Dim) -> Value:
        """A parameter of its own."""
        self.number += 1
        with self.builder.at_outer():
            return self.builder.apply(Parameter(f"p{self.number}", dims, CONSTANT, "float64"))

    def mask_dim(self, over: Dim, mask: Value) -> Dim:
        """The frames of a dim at which a mask is true: one dim for a mask."""
        return self.mask_dims.setdefault((over, mask), Masked(over, mask, mask.name, (B,)))


@st.composite
def graphs(draw: st.DrawFn, masks: bool = True, whole_axis: bool = False, cycles: bool = False) -> Drawn:
    """A graph of one loop over T with some of its values as outputs.

    `masks`: parts of it run on slower clocks. `whole_axis`: it may have statistics over all steps, which no pass can
    make a meaning of inside a cycle. `cycles`: most nodes are cycles of their own, which become loops of their own.
    """
    b = Builder()
    x = b.input("x", TensorType((B, T, F), "float64"))
    start = b.input("start", TensorType((B, F), "float64"))
    given = [b.input(name, TensorType((B, T), "bool")) for name in ("m1", "m2")]
    invariant = b.apply(Parameter("invariant", (F,), CONSTANT, "float64"))
    b.open_loop(T)
    body = Body(draw, b, [invariant, start], [b.element(mask) for mask in given])
    body.values.append(b.element(x))
    kinds = [*KINDS, *([_statistics] if whole_axis else []), *([_cycle] * len(KINDS) if cycles else [])]
    _add_delays(body, draw(st.integers(0, 0 if cycles else 2)))
    _add_nodes(body, kinds, depth=0, masks=masks)
    for delay in body.delays:
        delay.next = body.operand()
    shown = draw(st.lists(st.sampled_from(body.values), min_size=1, max_size=3, unique=True))
    found = b.close_loop([(f"y{index}", value) for index, value in enumerate(shown)])
    return Drawn(b.graph(found))


def _add_nodes(body: Body, kinds: list[Callable[[Body], Value]], depth: int, masks: bool) -> None:
    """A few nodes on the current clock, and sometimes some more under a mask."""
    for _ in range(body.draw(st.integers(1, 4))):
        under_mask = masks and depth < 2 and body.draw(st.integers(0, 2)) == 0
        if under_mask:
            _add_masked(body, kinds, depth)
            continue
        make = body.draw(st.sampled_from(kinds))
        layer = f"l{len(body.values)}"
        with body.builder.within(Origin(layer)):
            body.values.append(make(body))
        if body.draw(st.integers(0, 4)) == 0:
            body.masks.append(_mask_of(body, body.operand()))


def _add_masked(body: Body, kinds: list[Callable[[Body], Value]], depth: int) -> None:
    mask = body.draw(st.sampled_from(body.masks))
    clock = body.builder.clock
    dim = body.mask_dim(clock[-1].dim if clock else T, mask)
    before = len(body.values)
    with body.builder.masked(mask, dim):
        _add_delays(body, body.draw(st.integers(0, 1)))
        _add_nodes(body, kinds, depth + 1, masks=True)
    # What a state of a slower clock is for a faster one is said in test_clocks.py: the interpreter has its next value.
    states = {delay.now for delay in body.delays}
    made = [value for value in body.values[before:] if value not in states]
    body.values[before:] = made
    if made and body.draw(st.booleans()):
        body.builder.hold(made[-1], body.outer[0])


def _add_delays(body: Body, count: int) -> None:
    for _ in range(count):
        name = f"prev{len(body.delays)}"
        init = body.draw(st.sampled_from(body.outer))
        delay = body.builder.delay(name, TensorType((B, F), "float64"), init)
        body.delays.append(delay)
        body.values.append(delay.now)


def _mask_of(body: Body, value: Value) -> Value:
    """A mask that is computed."""
    b = body.builder
    summed = b.apply(Reduce("sum", (F,)), value)
    return b.apply(Elementwise("greater"), summed, b.constant(0.0, "float64"))


# Kinds of nodes


def _tanh(body: Body) -> Value:
    return body.builder.apply(Elementwise("tanh"), body.operand())


def _add(body: Body) -> Value:
    return body.builder.apply(Elementwise("add"), body.operand(), body.operand())


def _select(body: Body) -> Value:
    mask = body.draw(st.sampled_from(body.masks))
    return body.builder.apply(Select(), mask, body.operand(), body.operand())


def _dot(body: Body) -> Value:
    """Half the time of two values joined: that is what `split_dots` looks for."""
    b = body.builder
    x, over = body.operand(), F
    if body.draw(st.booleans()):
        other = b.apply(Relabel(F, F2), body.operand())
        over = F + F2
        x = b.apply(Concat((F, F2), over), x, other)
    product = b.apply(Dot((over,)), x, body.parameter(over, F2))
    return b.apply(Relabel(F2, F), product)


def _cumsum(body: Body) -> Value:
    b = body.builder
    total = b.delay(f"sum{body.number}", TensorType((B, F), "float64"), body.outer[1])
    total.next = b.apply(CumsumStep(), body.operand(), total.now)
    return total.next


def _simple_rnn(body: Body) -> Value:
    b = body.builder
    rows = Symbol("rows", DimKind.FEATURE, 2)
    state = b.delay("h", TensorType((B, F), "float64"), body.outer[1])
    cell = SimpleRnnCell(F, rows)
    state.next = b.apply(SimpleRnnStep(cell), body.operand(), body.parameter(rows, F), state.now)
    return state.next


def _history(body: Body) -> Value:
    """The mean of all frames so far: a history and what is done over it."""
    b = body.builder
    frames = Symbol("history", varies_over=(T,))
    x = b.apply(Elementwise("add"), body.operand(), body.values[0])
    with b.at_outer():
        empty = b.apply(EmptyHistory(frames), body.outer[1])
        zero = b.constant(0, "int32")
    before = b.delay("frames", empty.type, empty)
    count = b.delay("count", zero.type, zero)
    before.next, count.next = b.emit(CumConcatStep(frames), x, before.now, count.now)
    return b.apply(Reduce("mean", (frames,)), before.next)


def _step_index(body: Body) -> Value:
    b = body.builder
    return b.apply(Elementwise("add"), b.cast(b.apply(StepIndex()), "float64"), body.operand())


def _noise(body: Body) -> Value:
    # The steps of a slower clock draw as many numbers as there are, of whatever steps of the loop they are.
    fresh = not body.builder.clock and body.draw(st.booleans())
    seed = f"noise {fresh} {body.draw(st.integers(0, 1))}"
    op = RandomDraw("normal", 0.0, 1.0, (F,), seed, "float64", fresh)
    return body.builder.apply(Elementwise("add"), body.builder.apply(op), body.operand())


def _cycle(body: Body) -> Value:
    """A cycle that is no known recurrence. Other nodes may read its state too."""
    b = body.builder
    state = b.delay(f"before{body.number}", TensorType((B, F), "float64"), body.draw(st.sampled_from(body.outer)))
    body.number += 1
    state.next = b.apply(Elementwise("tanh"), b.apply(Elementwise("add"), body.operand(), state.now))
    if not b.clock:
        body.values.append(state.now)
    return state.next


def _statistics(body: Body) -> Value:
    b = body.builder
    x = b.apply(Elementwise("add"), body.operand(), body.values[0])
    mean, _ = b.emit(Moments((F,)), x)
    return b.apply(Elementwise("sub"), x, mean)


KINDS: list[Callable[[Body], Value]] = [
    _tanh,
    _add,
    _select,
    _dot,
    _cumsum,
    _simple_rnn,
    _history,
    _step_index,
    _noise,
]
