"""What each primitive gives for the types that it takes: dims in order of declaration, dtype, class dim, markers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from returnn_lite.dims import DimError, DimKind, MarkedType, Symbol, TensorType, product_dim
from returnn_lite.dims.markers import marked
from returnn_lite.ir import Op
from returnn_lite.ir.ops import (
    among,
    axes,
    contraction,
    edit_distances,
    elementwise,
    foreign,
    gradients,
    histories,
    indexing,
    language_model,
    losses,
    masks,
    planes,
    recurrence,
    recurrent_cells,
    reduction,
    search,
    sources,
    stacked_recurrence,
)
from returnn_lite.layers.cells.foreign import NotBuilt
from tests.ir.dims import (
    FOUR,
    GATES,
    GATES2,
    GATES3,
    GATES5,
    GRU,
    HIDDEN,
    LSTM,
    NEW,
    ONE,
    PLANE,
    RESET_AFTER_GRU,
    RNN,
    ROWS,
    TWO,
    WIDTH,
    B,
    F,
    G,
    K,
    S,
    T,
    V,
    X,
    bools,
    floats,
    ints,
)
from tests.ir.primitives import declared_primitives

SPATIAL = contraction.SpatialDim(T, T.ceildiv(2), WIDTH, 2, padding="same")
K2 = Symbol("K2", DimKind.BEAM, 2)
RULE = search.ScoreRule()
NGRAMS = language_model.NgramModel("no.arpa", language_model.LabelTexts(("a", "b")))
CONSTANT = sources.Initializer("constant", (("value", 0.0),))

F_AND_G, T_AND_F = product_dim((F, G)), product_dim((T, F))

Case = tuple[Op, list[TensorType], list[TensorType]]

CASES: list[Case] = [
    # Sources
    (sources.Parameter("W", (F, G), CONSTANT), [], [TensorType((F, G))]),
    (sources.AssignParameter("m", (F,)), [floats(F)], [floats(F)]),
    (sources.Constant(3, "int32", (B,), V), [], [ints(B, of=V)]),
    (sources.ConstantArray((1.0,) * 24, (F, G)), [], [TensorType((F, G))]),
    (sources.Iota(T, "int32", T), [], [ints(T, of=T)]),
    (sources.StepIndex(), [], [ints()]),
    (sources.Length(T), [], [ints(B)]),
    (sources.Length(F, "float32"), [], [floats()]),
    (sources.RandomDraw("normal", 0.0, 1.0, (B, F), "seed"), [], [TensorType((B, F))]),
    # Element by element
    (elementwise.Elementwise("tanh"), [X], [X]),
    (elementwise.Elementwise("add"), [floats(B, F), X], [X]),
    (elementwise.Elementwise("add"), [X, floats(B, S)], [MarkedType((B, T, S, F), feature=F, time=T)]),
    (elementwise.Elementwise("add"), [ints(B, of=V), ints(T)], [ints(B, T, of=V)]),
    (elementwise.Elementwise("less"), [ints(B, of=V), ints(T)], [bools(B, T)]),
    (elementwise.Elementwise("logical_and"), [bools(B), bools(T)], [bools(B, T)]),
    (elementwise.Elementwise("is_finite"), [X], [MarkedType((B, T, F), "bool", None, F, T)]),
    (elementwise.Select(), [bools(B, T), floats(F), floats()], [MarkedType((B, T, F), feature=F)]),
    (elementwise.Cast("int64"), [ints(B, of=V)], [TensorType((B,), "int64", V)]),
    (elementwise.Cast("float32"), [ints(B, of=V)], [floats(B)]),
    (elementwise.AsIndex(V), [ints(B)], [ints(B, of=V)]),
    (elementwise.AsIndex(None), [ints(B, of=V)], [ints(B)]),
    (elementwise.ScaleGradient(0.5), [X], [X]),
    (elementwise.StraightThroughClip(upper=0.5), [X], [X]),
    (elementwise.HostCall(len, "len", floats(B, F)), [floats(B, T)], [MarkedType((B, T, F), feature=F)]),
    (elementwise.PrintValue("x"), [X], [X]),
    (elementwise.CheckFinite("x"), [X], [X]),
    # Foreign cells
    (
        foreign.CellStep(NotBuilt(), "Cell", F, (S, G), V, ((F, G), (G,)), TWO),
        [X, floats(B, S), floats(G), floats(F, G), floats(G), ints(T, TWO)],
        [MarkedType((B, T, dim), feature=mark, time=T) for dim, mark in ((V, None), (S, None), (G, G))],
    ),
    # Gradients
    (gradients.FilterGradient("x", (T, F), 0.5), [X], [X]),
    (gradients.FilterGradient("x", (F,), 0.5), [floats(F), ints(T)], [MarkedType((T, F), feature=F)]),
    (gradients.TransformGradient("x", F, F), [X, floats(B), floats()], [X]),
    # Products
    (contraction.Dot((F,)), [X, MarkedType((F, G), feature=G)], [MarkedType((B, T, G), feature=G, time=T)]),
    (contraction.Dot((T,)), [floats(B, T), X], [floats(B, F)]),
    (contraction.Dot((T, F)), [X, X], [floats(B)]),
    (contraction.Dot(()), [X, floats(B, S)], [MarkedType((B, T, F, S), feature=F, time=T)]),
    (
        contraction.Conv((SPATIAL,), F, F, G),
        [X, TensorType((WIDTH, F, G))],
        [MarkedType((B, T.ceildiv(2), G), feature=G, time=T.ceildiv(2))],
    ),
    (
        contraction.Conv((SPATIAL,), F, TWO, G, 2),
        [X, TensorType((WIDTH, TWO, G))],
        [MarkedType((B, T.ceildiv(2), G), feature=G, time=T.ceildiv(2))],
    ),
    (
        contraction.TransposedConv((contraction.SpatialDim(T, T * 2 + 1, WIDTH, 2),), F, G, ((0, 0),)),
        [X, TensorType((WIDTH, G, F))],
        [MarkedType((B, T * 2 + 1, G), feature=G, time=T * 2 + 1)],
    ),
    (contraction.Pool("max", (SPATIAL,)), [X], [MarkedType((B, T.ceildiv(2), F), feature=F, time=T.ceildiv(2))]),
    # Reductions
    (reduction.Reduce("sum", (T,)), [X], [floats(B, F)]),
    (reduction.Reduce("any", (B, T)), [bools(B, T, F)], [bools(F)]),
    (among.Among(reduction.Reduce("sum", (B,)), B), [bools(B, T), floats(B, F)], [MarkedType((T, F), feature=F)]),
    (among.Among(reduction.Softmax(B), B), [bools(B), X], [X]),
    (reduction.ArgReduce("max", F), [X], [MarkedType((B, T), "int32", F, time=T)]),
    (reduction.Softmax(T, True), [X], [X]),
    (reduction.Normalize((F,), 1e-3), [X], [X]),
    (reduction.Moments((F,)), [X], [floats(F), floats(F)]),
    (reduction.TopK(F, TWO), [X], [MarkedType((B, T, TWO), time=T), MarkedType((B, T, TWO), "int32", F, time=T)]),
    (reduction.Last(T), [X, floats(B, F)], [floats(B, F)]),
    # Indexing
    (indexing.Gather(V), [MarkedType((V, F), feature=F), ints(B, T, of=V)], [MarkedType((B, T, F), feature=F)]),
    (indexing.Gather(T), [X, MarkedType((B, S), "int32", time=S)], [MarkedType((B, S, F), feature=F, time=S)]),
    (indexing.CheckIndex(V), [ints(B, of=V)], [ints(B, of=V)]),
    (indexing.OneHot(V), [ints(B, of=V)], [TensorType((B, V))]),
    (indexing.Slice(T, T - 1, 1), [X], [MarkedType((B, T - 1, F), feature=F, time=T - 1)]),
    (indexing.SliceAt(T, TWO), [X, ints(B)], [MarkedType((B, TWO, F), feature=F, time=TWO)]),
    (indexing.SliceAt(T, NEW), [floats(T), ints(B), ints(B)], [MarkedType((NEW, B), time=NEW)]),
    (indexing.Scatter((T,), V), [X, ints(B, T)], [MarkedType((B, V, F), feature=F)]),
    (indexing.Concat((T, S), T + S), [X, floats(B, S, F)], [MarkedType((B, T + S, F), feature=F, time=T + S)]),
    (indexing.Concat((ONE, T), T + ONE), [floats(ONE), floats(B, T)], [MarkedType((B, T + ONE), time=T + ONE)]),
    (masks.Compress(T, NEW), [X, bools(B, T)], [MarkedType((B, NEW, F), feature=F, time=NEW)]),
    (masks.Compress(T, NEW), [floats(F), bools(B, T)], [MarkedType((NEW, B, F), feature=F)]),
    (masks.Hold(S, T), [floats(B, S, F), bools(B, T), floats(F)], [X]),
    (masks.When(T, NEW), [floats(B, F), bools(B)], [floats(B, F)]),
    (masks.Current(NEW, T), [floats(F), bools(B), floats()], [MarkedType((B, F), feature=F)]),
    (indexing.SearchSorted(V, "left"), [floats(V), floats(B, T)], [MarkedType((B, T), "int32", V, time=T)]),
    (indexing.Sort(F), [X], [MarkedType((B, T, F), "int32", F, F, T)]),
    # Axes
    (axes.Expand((G,)), [X], [MarkedType((B, T, G, F), feature=F, time=T)]),
    (axes.Squeeze(ONE), [floats(B, ONE)], [floats(B)]),
    (axes.Relabel(F, FOUR), [X], [floats(B, T, FOUR)]),
    (axes.MergeDims((F, G), F_AND_G), [floats(F, B, G)], [TensorType((F_AND_G, B))]),
    (axes.MergeDims((T, F), T_AND_F), [X], [TensorType((B, T_AND_F))]),
    (axes.SplitDim(T, (T.ceildiv(2), TWO)), [X], [MarkedType((B, T.ceildiv(2), TWO, F), feature=F)]),
    (axes.SplitDim(F, (TWO, ONE * 2)), [X], [MarkedType((B, T, TWO, ONE * 2), time=T)]),
    (axes.Pad(T, T + 3, 1, 2), [X], [MarkedType((B, T + 3, F), feature=F, time=T + 3)]),
    (axes.WindowOfSteps(WIDTH, 1), [X], [MarkedType((B, T, WIDTH, F), feature=F, time=T)]),
    (axes.AllSteps(S), [X], [MarkedType((B, T, S, F), feature=F, time=T)]),
    (axes.Window(T, T, WIDTH, 1), [X], [MarkedType((B, T, WIDTH, F), feature=F, time=T)]),
    (axes.Reverse(T), [X], [X]),
    (axes.ShiftFrames(T, T + 1, 1), [X], [MarkedType((B, T + 1, F), feature=F, time=T + 1)]),
    (axes.MaskFrames(T, 0.0), [X], [X]),
    # Recurrences
    (recurrence.Delay(T), [floats(B, F), floats()], [MarkedType((B, T, F), feature=F)]),
    (recurrent_cells.LstmStep(LSTM), [floats(B, GATES), floats(ROWS, GATES), floats(HIDDEN), floats(HIDDEN)],
     [floats(B, HIDDEN)] * 2),
    (recurrence.Recurrence(recurrent_cells.LstmStep(LSTM), T),
     [floats(B, GATES), floats(ROWS, GATES), floats(HIDDEN), floats(HIDDEN)],
     [MarkedType((B, HIDDEN, T), feature=HIDDEN)] * 2),
    (recurrent_cells.GruStep(GRU),
     [floats(B, GATES2), floats(HIDDEN), floats(ROWS, GATES2), floats(ROWS, HIDDEN), floats(HIDDEN)],
     [floats(B, HIDDEN)]),
    (recurrence.Recurrence(recurrent_cells.GruStep(GRU), T),
     [floats(B, T, GATES2), floats(HIDDEN), floats(ROWS, GATES2), floats(ROWS, HIDDEN), floats(HIDDEN)],
     [floats(B, T, HIDDEN)]),
    (recurrent_cells.ResetAfterGruStep(RESET_AFTER_GRU),
     [floats(B, GATES3), floats(ROWS, GATES3), floats(GATES3), floats(HIDDEN)],
     [floats(B, HIDDEN)]),
    (recurrence.Recurrence(recurrent_cells.ResetAfterGruStep(RESET_AFTER_GRU), T),
     [floats(B, T, GATES3), floats(ROWS, GATES3), floats(GATES3), floats(HIDDEN)],
     [floats(B, T, HIDDEN)]),
    (recurrent_cells.SimpleRnnStep(RNN), [floats(HIDDEN), floats(ROWS, HIDDEN), floats(B, HIDDEN)],
     [floats(B, HIDDEN)]),
    (recurrence.Recurrence(recurrent_cells.SimpleRnnStep(RNN), T),
     [floats(B, T, HIDDEN), floats(ROWS, HIDDEN), floats(HIDDEN)],
     [floats(B, T, HIDDEN)]),
    (stacked_recurrence.StackedRecurrence(F, ((stacked_recurrence.Member(recurrent_cells.LstmStep(LSTM), F),),), T),
     [floats(B, T, F), floats(F, GATES), floats(GATES), floats(ROWS, GATES), floats(HIDDEN), floats(HIDDEN)],
     [floats(B, T, HIDDEN), floats(B, HIDDEN), floats(B, HIDDEN)]),
    (recurrence.CumsumStep(), [floats(F), floats(B)], [MarkedType((B, F), feature=F)]),
    (recurrence.Recurrence(recurrence.CumsumStep(), T), [floats(F), floats(B)], [MarkedType((B, T, F), feature=F)]),
    (histories.EmptyHistory(NEW), [floats(B, F)], [MarkedType((B, NEW, F), feature=F)]),
    (histories.CumConcatStep(NEW), [floats(B, F), MarkedType((NEW, F), feature=F), ints()],
     [MarkedType((NEW, B, F), feature=F), ints()]),
    (histories.CumConcatStep(NEW), [floats(F), MarkedType((NEW, F), feature=F), ints(), bools(B)],
     [MarkedType((NEW, B, F), feature=F), ints(B)]),
    (histories.CumConcat(T, NEW), [X, TensorType((NEW, F)), ints()],
     [MarkedType((NEW, B, F), feature=F), ints(T)]),
    (edit_distances.EditDistanceStep(S, S + 1), [ints(B, of=V), ints(B, S, of=V), ints(S + 1)],
     [ints(B, S + 1)]),
    (recurrence.Recurrence(edit_distances.EditDistanceStep(S, S + 1, 1), T),
     [ints(K, of=V), ints(B, S, of=V), ints(S + 1)],
     [ints(K, B, S + 1, T)]),
    # Recurrences on a plane
    (planes.PlaneLstmStep(PLANE),
     [floats(S, GATES5), floats(B, GATES5), *[floats(ROWS, GATES5)] * 2, floats(S, HIDDEN), floats(S, HIDDEN)],
     [MarkedType((S, B, HIDDEN), feature=HIDDEN, time=S)] * 2),
    (recurrence.Recurrence(planes.PlaneLstmStep(PLANE), T),
     [floats(B, S, GATES5), floats(T, GATES5), *[floats(ROWS, GATES5)] * 2, floats(S, HIDDEN), floats(S, HIDDEN)],
     [MarkedType((B, S, T, HIDDEN), feature=HIDDEN, time=S)] * 2),
    # Losses
    (losses.SparseCrossEntropy(V), [floats(B, T, V), ints(B, T, of=V)], [floats(B, T)]),
    (losses.SigmoidCrossEntropy(), [X, floats(B)], [X]),
    (losses.Ctc(T, V, S, 4), [floats(B, T, V), ints(B, S)], [floats(B)]),
    (losses.CtcGreedyDecode(T, V, 4, NEW), [floats(B, T, V)], [TensorType((B, NEW), "int32", V)]),
    (losses.CtcBeamDecode(T, V, 4, NEW, 8), [floats(B, T, V)], [TensorType((B, NEW), "int32", V)]),
    (losses.EditDistance(T, S), [ints(B, T, of=V), ints(B, S, of=V)], [ints(B)]),
    (losses.OptimalCompletions(S, S + 1, V), [ints(K, S + 1), ints(B, S, of=V)],
     [ints(K, B, V)]),
    (losses.FrameCount(), [X], [floats()]),
    # Language models
    (language_model.NgramScoreStep(NGRAMS, F), [ints(B, of=V), ints(F)], [floats(B), ints(B, F)]),
    (language_model.NgramScoreStep(NGRAMS, F, V), [ints(B, of=V), ints(B, F), bools(T)],
     [TensorType((B, T, V)), TensorType((B, T, F), "int32")]),
    (recurrence.Recurrence(language_model.NgramScoreStep(NGRAMS, F), T), [ints(B, T, of=V), ints(F)],
     [TensorType((B, T)), ints(B, T, F)]),
    (recurrence.Recurrence(language_model.NgramScoreStep(NGRAMS, F, V), T), [ints(B, of=V), ints(F)],
     [TensorType((B, V, T)), ints(B, F, T)]),
    # Search
    (search.Choose(V, K, RULE), [floats(B, V), floats(B), bools(), ints()],
     [ints(B, of=V), ints(B, of=K), floats(B)]),
    (search.Choose(V, K, RULE, True), [floats(B, V), floats(B), bools(B), ints()],
     [ints(B, K, of=V), ints(B, K, of=K), floats(B, K)]),
    (search.FirstBeam(K), [], [floats()]),
    (search.FirstBeam(K, explicit=True), [], [floats(K)]),
    (search.BeamGather(K), [floats(K, F), ints(B, K)], [MarkedType((K, B, F), feature=F)]),
    (search.BeamGather(K), [floats(B, K), ints(B, K2)], [floats(B, K2)]),
    (search.Choose(V, K2, RULE, True, K), [floats(B, K, V), floats(B, K), bools(B), ints(), ints(B, of=V)],
     [ints(B, K2, of=V), ints(B, K2, of=K), floats(B, K2)]),
    (search.SumOverBeam(K), [floats(B, K)], [floats(B)]),
    (search.SumOverBeam(K), [floats(B)], [floats(B)]),
    (search.ExpectedOverBeam(K), [floats(B, K), floats(B, K)], [floats(B)]),
    (search.ExpectedOverBeam(K), [floats(B), floats(B)], [floats(B)]),
    (search.SplitBeam(K, FOUR), [floats(B, K)], [TensorType((B, FOUR))]),
    (search.SplitBeam(K, FOUR, ((T, NEW),)), [ints(B, T, of=V)], [TensorType((B, NEW, FOUR), "int32", V)]),
    (search.Decide(K, ((T, NEW),)), [floats(B, K, T), floats(B, K)], [MarkedType((B, NEW), time=NEW)]),
    (search.Decide(K, ((T, NEW),)), [floats(B, T), floats(B)], [MarkedType((B, NEW), time=NEW)]),
]  # fmt: skip


def name(case: Case) -> str:
    return f"{type(case[0]).__name__}: {', '.join(map(str, case[1]))}"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_rule(case: Case) -> None:
    op, inputs, expected = case
    found = op.output_types(tuple(inputs))
    assert found == tuple(expected)
    for type_, wanted in zip((marked(x, inputs) for x in found), map(marked, expected), strict=True):
        assert (type_.dims, type_.feature, type_.time) == (wanted.dims, wanted.feature, wanted.time)


OF_ALL_DIMS = reduction.Moments | losses.FrameCount | sources.AssignParameter  # whose variable has just its dims
BATCHED = [case for case in CASES if case[1] and not isinstance(case[0], OF_ALL_DIMS)]


@pytest.mark.parametrize("case", BATCHED, ids=name)
def test_a_dim_that_is_not_named_is_a_batch_dim(case: Case) -> None:
    """Adding a dim to an input adds it to the outputs and changes nothing else."""
    op, inputs, expected = case
    extra = Symbol("extra", varies_over=(B,))
    found = op.output_types((inputs[0].with_dims(extra), *inputs[1:]))
    assert any(extra in type_ for type_ in found)
    for type_, wanted in zip(found, expected, strict=True):
        assert (type_.without(extra) if extra in type_ else type_) == wanted


RECURRENCES = [case for case in CASES if isinstance(case[0], recurrence.Recurrence)]


@pytest.mark.parametrize("case", RECURRENCES, ids=name)
def test_what_runs_forwards_only_is_refused_backwards(case: Case) -> None:
    op, inputs, _ = case
    assert isinstance(op, recurrence.Recurrence)
    backwards = replace(op, reverse=True)
    if isinstance(op.step, edit_distances.EditDistanceStep | planes.PlaneLstmStep | language_model.NgramScoreStep):
        with pytest.raises(DimError, match=f"{op.label} goes from the first frame to the last only"):
            backwards.output_types(tuple(inputs))
    else:
        assert backwards.output_types(tuple(inputs)) == op.output_types(tuple(inputs))


def test_every_primitive_is_here() -> None:
    assert {type(op) for op, _, _ in CASES} == declared_primitives()
