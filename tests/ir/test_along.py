"""What primitives say of themselves: which dims they work along, and what they do besides giving results."""

from __future__ import annotations

import inspect

import pytest

from returnn_lite.dims import Dim
from returnn_lite.ir import Effect, Op
from returnn_lite.ir.ops import axes, contraction, elementwise, recurrence, recurrent_cells, reduction, sources
from tests.ir.dims import LSTM, WIDTH, B, F, T, X
from tests.ir.primitives import declared_primitives
from tests.ir.test_type_rules import CASES


def declares(op: type[Op]) -> bool:
    """True if the class, or one that it comes from, says which dims it works along."""
    families = [base for base in inspect.getmro(op) if base.__module__.startswith("returnn_lite.ir.ops")]
    return any({"works_along", "along"} & set(vars(base)) for base in families)


@pytest.mark.parametrize("op", {type(case[0]): case[0] for case in CASES}.values(), ids=lambda op: type(op).__name__)
def test_a_primitive_with_dims_says_which_of_them_it_works_along(op: Op) -> None:
    if op.named_dims():
        assert declares(type(op)), f"{type(op).__name__} has no works_along"


def test_every_attribute_that_is_declared_exists() -> None:
    for op in declared_primitives():
        assert set(op.works_along) <= set(inspect.signature(op).parameters), op.__name__


@pytest.mark.parametrize(
    ("op", "dims"),
    [
        (reduction.Reduce("sum", (B, T)), (B, T)),
        (reduction.Softmax(F), (F,)),
        (contraction.Dot((F,)), (F,)),
        (contraction.Pool("max", (contraction.SpatialDim(T, T.ceildiv(2), WIDTH, 2),)), (T,)),
        (recurrence.Recurrence(recurrent_cells.LstmStep(LSTM), T), (LSTM.hidden, LSTM.recurrent, LSTM.gates, T)),
        (reduction.Moments((F,)), (B, T)),
        (axes.Expand((T,)), ()),
        (axes.Relabel(T, F), ()),
        (sources.Iota(T), ()),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Op) else "",
)
def test_along(op: Op, dims: tuple[Dim, ...]) -> None:
    assert op.along(X) == dims


def test_what_looks_ahead_is_not_causal() -> None:
    assert (
        recurrence.Recurrence(recurrence.CumsumStep(), T).causal
        and not recurrence.Recurrence(recurrence.CumsumStep(), T, reverse=True).causal
    )
    assert axes.ShiftFrames(T, T, 1).causal and not axes.ShiftFrames(T, T, -1).causal
    assert not reduction.Softmax(T).causal


def test_effects() -> None:
    with_effects = {op.__name__ for op in declared_primitives() if op.effect is not Effect.NONE}
    assert with_effects == {"AssignParameter", "CheckFinite", "CheckIndex", "HostCall", "PrintValue"}
    assert not elementwise.PrintValue("x").is_function
    assert elementwise.Elementwise("tanh").is_function


def test_draws_are_fresh_in_each_step_if_they_say_so() -> None:
    draw = sources.RandomDraw("normal", 0.0, 1.0, (F,), "seed")
    assert not draw.fresh and draw.is_function
    assert sources.StepIndex().fresh and not sources.Constant(1.0).fresh
