"""Every rule of what is legal has a graph that breaks it and no other rule before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from returnn_lite.dims import Dim, DimKind, Masked, Symbol, TensorType
from returnn_lite.ir import (
    Element,
    Ending,
    Graph,
    Loop,
    Mask,
    Node,
    Recompute,
    Search,
    State,
    Value,
    legality,
    loop_node,
    recompute_node,
)
from returnn_lite.ir.op import Op
from returnn_lite.ir.ops.axes import Expand, Reverse
from returnn_lite.ir.ops.elementwise import Elementwise, PrintValue
from returnn_lite.ir.ops.masks import Current, When
from returnn_lite.ir.ops.reduction import Moments
from returnn_lite.ir.ops.search import Choose, ScoreRule
from returnn_lite.ir.ops.sources import Constant, Iota, StepIndex
from returnn_lite.ir.rule import Rule
from returnn_lite.ir.verify import InternalError, verify
from returnn_lite.ir.well_formedness import ALWAYS

B = Symbol("B", DimKind.BATCH)
T = Symbol("T", varies_over=(B,))
U = Symbol("U", varies_over=(B,))
F = Symbol("F", DimKind.FEATURE, 2)
CLASSES = Symbol("classes", DimKind.FEATURE, 3)
BEAM = Symbol("beam", DimKind.BEAM, 2)
FRAME, WHOLE = TensorType((B, F)), TensorType((B, T, F))


def node_of(op: Op, *inputs: Value, name: str = "") -> Node:
    """A node with the types of its rule."""
    types = op.output_types(tuple(value.type for value in inputs))
    names = [name or op.label, *(f"{op.label}.{number}" for number in range(2, len(types) + 1))]
    return Node(op, inputs, tuple(map(Value, names, types)))


@dataclass
class Running:
    """h = add(x[T], h') in a loop over T, of which each case changes something."""

    x: Value = field(default_factory=lambda: Value("x", WHOLE))
    m: Value = field(default_factory=lambda: Value("m", TensorType((B, T), "bool")))
    init: Value = field(default_factory=lambda: Value("init", FRAME))

    def __post_init__(self) -> None:
        self.frame = Element(Value("x[T]", FRAME), self.x)
        self.ticks = Element(Value("m[T]", TensorType((B,), "bool")), self.m)
        self.before = Value("before", FRAME)
        self.add = node_of(Elementwise("add"), self.frame.now, self.before)
        self.state = State(self.before, self.init, self.add.output)
        self.stack = Element(self.add.output, Value("h", WHOLE))
        self.mask = Mask(self.ticks.now, Masked(T, self.ticks.now, "m", (B,)))
        self.loop = Loop(T, (self.frame, self.ticks), (self.state,), (self.stack,), (self.add,))

    def graph(self, loop: Loop | None = None, *more: Node, before: tuple[Node, ...] = (), **changed: object) -> Graph:
        """The graph of the loop, changed as said, with further nodes before and behind."""
        loop = replace(loop or self.loop, **changed)  # type: ignore[arg-type]
        nodes = (*before, loop_node(loop, Node(loop, (), ()).origin), *more)
        return Graph((self.x, self.m, self.init), nodes, {"h": loop.stacks[0].whole if loop.stacks else self.x})

    def choosing(self, **changed: object) -> Loop:
        """A loop with a choice, whose hypotheses are a dim."""
        scores = self.add
        flag = node_of(Constant(False, "bool"), name="flag")
        step = node_of(StepIndex())
        zero = node_of(Constant(0.0), name="zero")
        op = replace(Choose(F, BEAM, ScoreRule(), explicit=True, incoming=BEAM), **changed)  # type: ignore[arg-type]
        choose = node_of(op, scores.output, zero.output, flag.output, step.output)
        body = (scores, flag, step, zero, choose)
        return replace(self.loop, body=body, search=Search(choose.outputs[1], flag.output) if op.explicit else None)


Case = Callable[[Running], Graph]


def read_before_it_is_bound(r: Running) -> Graph:
    later = node_of(Elementwise("tanh"), r.x)
    return Graph((r.x,), (node_of(Elementwise("exp"), later.output), later), {"y": later.output})


def bound_in_two_loops(r: Running) -> Graph:
    again = replace(r.loop, stacks=(replace(r.stack, whole=Value("again", WHOLE)),))
    return r.graph(None, loop_node(again, Node(again, (), ()).origin))


def another_type(r: Running) -> Graph:
    wrong = replace(node_of(Elementwise("tanh"), r.x), outputs=(Value("y", FRAME),))
    return Graph((r.x,), (wrong,), {"y": wrong.output})


def a_length_that_nothing_gives(r: Running) -> Graph:
    return r.graph(None, node_of(Iota(U)))


def a_step_number_outside(r: Running) -> Graph:
    return r.graph(None, node_of(StepIndex()))


def a_mask_of_numbers(r: Running) -> Graph:
    number = Mask(r.frame.now, r.mask.dim)
    return r.graph(body=(replace(r.add, clock=(number,)),))


def a_choice_outside(r: Running) -> Graph:
    loop = r.choosing()
    scores = node_of(Constant(0.0, dims=(F,)), name="scores")
    _, flag, _, zero, choose = loop.body
    step = node_of(Constant(0, "int32"), name="step")
    op = choose.op
    nodes = (scores, flag, step, zero, node_of(op, scores.output, zero.output, flag.output, step.output))
    return Graph((), nodes, {"label": nodes[-1].outputs[0]})


def a_loop_that_lacks_an_input(r: Running) -> Graph:
    graph = r.graph()
    (node,) = graph.nodes
    return replace(graph, nodes=(replace(node, inputs=node.inputs[:-1]),))


def recomputed(*body: Node, results: tuple[Value, ...]) -> Node:
    return recompute_node(body, results, Node(Recompute((), ()), (), ()).origin)


def a_result_that_is_no_result_of_its_body(r: Running) -> Graph:
    first = node_of(Elementwise("tanh"), r.x)
    node = recomputed(first, results=(first.output,))
    return Graph((r.x,), (replace(node, outputs=(Value("y", WHOLE),)),), {"x": r.x})


def a_print_that_is_done_twice(r: Running) -> Graph:
    shown = node_of(PrintValue("x"), r.x)
    return Graph((r.x,), (recomputed(shown, results=(shown.output,)),), {"y": shown.output})


def a_state_whose_mask_is_from_nowhere(r: Running) -> Graph:
    mask = Mask(Value("nowhere", TensorType((B,), "bool")), r.mask.dim)
    return r.graph(states=(replace(r.state, clock=(mask,)),))


def an_element_of_other_dims(r: Running) -> Graph:
    whole = Value("y", TensorType((B, T)))
    loop = replace(r.loop, elements=(*r.loop.elements, Element(Value("y[T]", FRAME), whole)))
    return replace(r.graph(loop), inputs=(r.x, r.m, r.init, whole))


def a_state_with_fewer_dims(r: Running) -> Graph:
    init = Value("init", TensorType((B, F), "int32"))
    loop = replace(r.loop, states=(replace(r.state, init=init),))
    return replace(r.graph(loop), inputs=(r.x, r.m, init))


def an_end_that_is_a_number(r: Running) -> Graph:
    steps = node_of(Constant(5, "int32"), name="steps")
    loop = replace(r.loop, elements=(), ending=Ending(r.add.output, steps.output), body=(r.add,))
    free = replace(r.add, inputs=(r.init, r.before))
    loop = replace(loop, over=U, body=(free,), stacks=(Element(free.output, Value("h", TensorType((U, B, F)))),))
    return r.graph(loop, before=(steps,))


def held_at_a_number_of_another_kind(r: Running) -> Graph:
    number = node_of(Constant(0, "int32"), name="number")
    return r.graph(before=(number,), holds=((r.add.output, number.output),))


def pointers_that_are_scores(r: Running) -> Graph:
    loop = r.choosing()
    return r.graph(loop, search=Search(loop.body[-1].outputs[2], loop.body[1].output))


def an_edge_across_clocks(r: Running) -> Graph:
    slow = replace(node_of(Elementwise("tanh"), r.frame.now), clock=(r.mask,))
    return r.graph(body=(r.add, slow))


def a_stack_across_clocks(r: Running) -> Graph:
    when = replace(node_of(When(T, r.mask.dim), r.frame.now, r.ticks.now), clock=(r.mask,))
    stack = Element(when.output, Value("slow", WHOLE))
    return r.graph(body=(r.add, when), stacks=(r.stack, stack))


def a_mask_in_a_search(r: Running) -> Graph:
    loop = r.choosing()
    when = replace(node_of(When(T, r.mask.dim), r.frame.now, r.ticks.now), clock=(r.mask,))
    return r.graph(loop, body=(*loop.body, when))


def a_held_value(r: Running) -> Graph:
    current = node_of(Current(r.mask.dim, T), r.frame.now, r.ticks.now, r.init)
    return r.graph(body=(r.add, current))


def a_state_on_a_clock(r: Running) -> Graph:
    return r.graph(states=(replace(r.state, clock=(r.mask,)),))


def a_choice_as_built(r: Running) -> Graph:
    return r.graph(r.choosing(explicit=False, incoming=None))


def a_choice_that_is_not_traced(r: Running) -> Graph:
    return r.graph(r.choosing(), search=None)


def statistics_in_a_body(r: Running) -> Graph:
    return r.graph(body=(r.add, node_of(Moments((F,)), r.add.output)))


def a_loop_without_a_cycle(r: Running) -> Graph:
    tanh = node_of(Elementwise("tanh"), r.frame.now)
    return r.graph(states=(), body=(tanh,), stacks=(Element(tanh.output, Value("h", WHOLE)),))


CASES: dict[str, tuple[Case, tuple[Rule, ...]]] = {
    "a value is read after it is bound": (read_before_it_is_bound, ()),
    "a value is bound once": (bound_in_two_loops, ()),
    "a node has the types that its rule gives": (another_type, ()),
    "the lengths of named dims are known": (a_length_that_nothing_gives, ()),
    "clocks, step numbers and dims of steps belong to loops": (a_step_number_outside, ()),
    "a clock has masks": (a_mask_of_numbers, ()),
    "only the body of an outermost loop chooses": (a_choice_outside, ()),
    "a loop's node reads and gives what its loop does": (a_loop_that_lacks_an_input, ()),
    "what is recomputed reads and gives what its body does": (a_result_that_is_no_result_of_its_body, ()),
    "what is recomputed has no effect and gives the same again": (a_print_that_is_done_twice, ()),
    "the results of a body are bound": (a_state_whose_mask_is_from_nowhere, ()),
    "elements and stacks are along the steps": (an_element_of_other_dims, ()),
    "states fit what they are at first and next": (a_state_with_fewer_dims, ()),
    "a loop that ends itself says when": (an_end_that_is_a_number, ()),
    "held values fit what they are at first": (held_at_a_number_of_another_kind, ()),
    "back-pointers point from hypotheses to hypotheses": (pointers_that_are_scores, ()),
    "no edge crosses clocks": (an_edge_across_clocks, legality.ON_ONE_CLOCK),
    "no result crosses clocks": (a_stack_across_clocks, legality.ON_ONE_CLOCK),
    "searches and loops in loops run at every step": (a_mask_in_a_search, legality.SEARCH_AT_EVERY_STEP),
    "every node runs at every step": (a_held_value, legality.AT_EVERY_STEP),
    "every element, state and stack is one of every step": (a_state_on_a_clock, legality.AT_EVERY_STEP),
    "the hypotheses are a dim": (a_choice_as_built, legality.EXPLICIT_BEAMS),
    "choices are traced back": (a_choice_that_is_not_traced, legality.EXPLICIT_BEAMS),
    "a body can be run step by step": (statistics_in_a_body, legality.STEP_BY_STEP),
    "a loop is there for what needs the step before": (a_loop_without_a_cycle, legality.FOR_CYCLES),
}


@pytest.mark.parametrize("says", CASES)
def test_a_broken_rule_is_told(says: str) -> None:
    case, made = CASES[says]
    with pytest.raises(InternalError, match=f"after breaking: .*; {says}:\n"):
        verify(case(Running()), "breaking", made)


@pytest.mark.parametrize("says", [says for says, (_, made) in CASES.items() if made])
def test_before_its_pass_a_rule_need_not_hold(says: str) -> None:
    case, _ = CASES[says]
    assert verify(case(Running()), "building")


def test_every_rule_has_a_case() -> None:
    stages = (
        legality.ON_ONE_CLOCK,
        legality.SEARCH_AT_EVERY_STEP,
        legality.AT_EVERY_STEP,
        legality.EXPLICIT_BEAMS,
        legality.STEP_BY_STEP,
        legality.FOR_CYCLES,
    )
    assert list(CASES) == [rule.says for rules in (ALWAYS, *stages) for rule in rules]


def test_a_state_does_not_get_wider() -> None:
    r = Running()
    init = Value("init", TensorType((B, F, CLASSES)))
    graph = replace(r.graph(states=(replace(r.state, init=init),)), inputs=(r.x, r.m, init))
    with pytest.raises(InternalError, match=r"the initial value .* does not fit the state"):
        verify(graph, "breaking")


def test_a_loop_in_a_loop_has_steps_of_its_own() -> None:
    r = Running()
    before = Value("again'", FRAME)
    again = node_of(Elementwise("add"), r.add.output, before, name="again")
    stack = Element(again.output, Value("all", WHOLE))
    inner = Loop(T, (), (State(before, r.init, again.output),), (stack,), (again,))
    with pytest.raises(InternalError, match="a loop around it is over T already"):
        verify(r.graph(body=(r.add, loop_node(inner, Node(inner, (), ()).origin))), "breaking")


def test_a_legal_graph_is_given_back() -> None:
    graph = Running().graph()
    assert verify(graph, "building", (*legality.STEP_BY_STEP, *legality.AT_EVERY_STEP, *legality.FOR_CYCLES)) is graph
    search = Running()
    assert verify(search.graph(search.choosing()), "beams", legality.EXPLICIT_BEAMS)


def test_results_are_bound() -> None:
    r = Running()
    graph = replace(r.graph(), checks=(Value("nowhere", FRAME),))
    with pytest.raises(InternalError, match="the result nowhere is not bound"):
        verify(graph, "breaking")


def test_what_a_body_binds_is_read_in_it_only() -> None:
    r = Running()
    with pytest.raises(InternalError, match="add is read before it is bound"):
        verify(r.graph(None, node_of(Elementwise("tanh"), r.add.output)), "breaking")


def test_what_is_recomputed_is_read_outside_only_if_it_is_a_result() -> None:
    r = Running()
    first = node_of(Elementwise("tanh"), r.x)
    second = node_of(Elementwise("exp"), first.output)
    third = node_of(Elementwise("sigmoid"), first.output)
    node = recomputed(first, second, results=(second.output,))
    verify(Graph((r.x,), (node,), {"y": second.output}), "building")
    with pytest.raises(InternalError, match="tanh is read before it is bound"):
        verify(Graph((r.x,), (node, third), {"y": third.output}), "breaking")


def test_what_is_recomputed_needs_nothing_that_needs_it() -> None:
    r = Running()
    first = node_of(Elementwise("tanh"), r.x)
    between = node_of(Elementwise("exp"), first.output)
    last = node_of(Elementwise("sigmoid"), between.output)
    node = recomputed(first, last, results=(first.output, last.output))
    for nodes in ((node, between), (between, node)):
        with pytest.raises(InternalError, match="is read before it is bound"):
            verify(Graph((r.x,), nodes, {"y": last.output}), "breaking")


def test_types_that_are_known_to_be_right_are_not_inferred_again() -> None:
    r = Running()
    graph = another_type(r)
    verify(graph, "breaking", typed=set(graph.nodes))


def test_the_message_has_the_node_and_its_place() -> None:
    wrong = node_of(Reverse(T), Value("x", WHOLE))
    wrong = replace(wrong, outputs=(Value("y", FRAME),))
    graph = Graph(wrong.inputs, (wrong,), {})
    with pytest.raises(InternalError, match=r"its rule gives \[B, T, F\(2\)\].*:\n  y = reverse\(x"):
        verify(graph, "breaking")


def test_lengths_are_known_from_what_varies_over_them() -> None:
    """A dim that is computed from others, one that an operand has, and one that an earlier node made."""
    r = Running()
    longer: Dim = T + 1
    nodes = (node_of(Iota(longer)), node_of(Expand((T,)), r.init))
    assert verify(Graph((r.x, r.m, r.init), nodes, {}), "building")
