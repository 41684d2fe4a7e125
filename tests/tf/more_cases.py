"""Primitives on small ragged batches: those that pick and move frames, recurrences, losses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from returnn_lite.dims import DimKind, Symbol, linear_dim, product_dim
from returnn_lite.ir.ops import axes, edit_distances, indexing, losses, masks, recurrence, recurrent_cells
from tests.tf.cases import (
    F2,
    GATES2,
    HALF,
    LATER,
    LSTM,
    LSTM_OPERANDS,
    MASKED,
    ROW,
    B,
    Case,
    F,
    H,
    K,
    R,
    S,
    T,
    V,
    X,
    bools,
    ctc,
    ctc_by_paths,
    floats,
    greedy,
    gru,
    held,
    ints,
    levenshtein,
    lstm,
    most_probable,
    reset_after_gru,
    rnn,
    shifted,
    sigmoid,
    softmax,
    windows,
)

ONE = Symbol("1", DimKind.SPATIAL, 1)
BEFORE = ints(9, B, ROW)
JOINT = linear_dim([(T, 1), (S, 1)], 0)


def padded(mode: str) -> Case:
    def meaning(x: np.ndarray) -> np.ndarray:
        return np.pad(x, [[2, 1], [0, 0]], mode={"replication": "edge"}.get(mode, mode))

    return Case(f"pad {mode}", axes.Pad(T, T + 3, 2, 1, mode), (X,), meaning)


def row_after(blank: int = -1) -> Callable[..., np.ndarray]:
    """A row of the edit distance table by its definition: the least cost of an edit script's last step."""

    def of_one(label: np.ndarray, right: np.ndarray, before: np.ndarray) -> np.ndarray:
        if label == blank:
            return before
        row = [before[0] + 1]
        for j in range(len(right)):
            row.append(min(row[j] + 1, before[j + 1] + 1, before[j] + int(label != right[j])))
        return np.array(row)

    return of_one


def rows_after(blank: int = -1) -> Callable[..., np.ndarray]:
    def of_one(labels: np.ndarray, right: np.ndarray, row: np.ndarray) -> np.ndarray:
        rows = [row]
        for t, label in enumerate(labels):
            rows.append(row_after(blank)(label, right if right.ndim == 1 else right[t], rows[-1]))
        return np.array(rows[1:], int).reshape(len(labels), len(row))

    return of_one


def completions(blank: int = -1) -> Callable[..., np.ndarray]:
    return lambda row, right: np.array([row_after(blank)(label, right, row).min() for label in range(5)])


def reversed_lstm(z: np.ndarray, w: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    hs, cs = lstm(z[::-1], w, h, c, 1.0, "ijfo")
    return hs[::-1], cs[::-1]


def cross_entropy(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    return -np.log(softmax(x, 1)[np.arange(len(x)), target])


def sigmoid_cross_entropy(x: np.ndarray, t: np.ndarray) -> np.ndarray:
    return -2 * t * np.log(sigmoid(x)) - (1 - t) * np.log(1 - sigmoid(x))


def cumulated(x: np.ndarray, init: np.ndarray) -> np.ndarray:
    return np.cumsum(x, 0) + init


def split_in_two(x: np.ndarray) -> np.ndarray:
    return np.pad(x, [[0, len(x) % 2], [0, 0]]).reshape(-1, 2, x.shape[1])


def scattered(x: np.ndarray, index: np.ndarray) -> np.ndarray:
    result = np.zeros((5, x.shape[1]))
    for frame, i in zip(x, index, strict=True):
        result[i] += frame
    return result.T


GATES3 = H * 3
GRU_AFTER_OPERANDS = (floats(B, T, GATES3), floats(R, GATES3), floats(GATES3), floats(B, H))
GRU_OPERANDS = (floats(B, T, GATES2), floats(B, T, H), floats(R, GATES2), floats(R, H), floats(B, H))

CTC_OPERANDS = (floats(B, T, V), ints(4, B, S))

MORE_CASES = [
    Case("gather", indexing.Gather(V), (floats(V, F), ints(5, B, T)), lambda x, i: x[i]),
    Case(
        "gather in time",
        indexing.Gather(T, clip=True),
        (X, ints(4, B, S)),
        lambda x, i: x[np.clip(i, 0, len(x) - 1)] if len(x) else np.zeros((len(i), x.shape[1])),
    ),
    Case("check index", indexing.CheckIndex(V), (ints(5, B, T),), lambda i: i),
    Case("one hot", indexing.OneHot(V), (ints(5, B, T),), lambda i: np.eye(5)[i]),
    Case("slice", indexing.Slice(T, T - 1, 1), (X,), lambda x: x[1:]),
    Case("slice step", indexing.Slice(T, HALF, 0, 2), (X,), lambda x: x[::2]),
    Case("slice back", indexing.Slice(T, T, 0, -1), (X,), lambda x: x[::-1]),
    Case(
        "slice at",
        indexing.SliceAt(T, LATER),
        (X, ints(3, B), ints(4, B)),
        lambda x, start, size: np.array(
            [x[t] if t < len(x) else 0 * np.ones(4) for t in range(start, start + size)]
        ).reshape(size, 4),
    ),
    Case("scatter", indexing.Scatter((T,), V), (X, ints(5, B, T)), scattered),
    Case(
        "concat ragged",
        indexing.Concat((T, S), JOINT),
        (X, floats(B, S, F)),
        lambda x, y: np.concatenate([x, y]),
    ),
    Case(
        "concat prefix",
        indexing.Concat((ONE, T), T + 1),
        (floats(ONE, F), X),
        lambda x, y: np.concatenate([x, y]),
    ),
    Case("compress", masks.Compress(T, MASKED), (X, bools(B, T)), lambda x, m: x[m]),
    Case(
        "hold",
        masks.Hold(S, T),
        (floats(B, S, F), bools(B, T), floats(F)),
        lambda y, m, init: held(np.concatenate([y, np.tile(init, (9, 1))]), m & (np.cumsum(m) <= len(y)), init),
    ),
    Case(
        "search sorted",
        indexing.SearchSorted(T, "right"),
        (floats(B, T), floats(B, S)),
        lambda x, v: np.searchsorted(x, v, "right"),
    ),
    Case(
        "search sorted along the same",
        indexing.SearchSorted(T, "left"),
        (floats(B, T), floats(B, T)),
        lambda x, v: np.searchsorted(x, v, "left"),
    ),
    Case("sort", indexing.Sort(T), (X,), lambda x: np.argsort(x, 0, kind="stable")),
    Case("sort down", indexing.Sort(T, True), (X,), lambda x: np.argsort(-x, 0, kind="stable")),
    Case("merge", axes.MergeDims((T, F), product_dim((T, F))), (X,), lambda x: x.reshape(-1)),
    Case("split", axes.SplitDim(T, (HALF, F2)), (X,), split_in_two),
    padded("constant"),
    Case("window", axes.Window(T, T, K, 1), (X,), lambda x: windows(x, 1, 1)),
    Case("window stride", axes.Window(T, HALF, K, 2, 2), (X,), lambda x: windows(x, 2, 2)),
    Case("reverse", axes.Reverse(T), (X,), lambda x: x[::-1]),
    Case("shift", axes.ShiftFrames(T, T, 1, 9.0), (X,), lambda x: shifted(x, 1, len(x), 9)),
    Case("shift back", axes.ShiftFrames(T, T, -1, 9.0), (X,), lambda x: shifted(x, -1, len(x), 9)),
    Case("shift longer", axes.ShiftFrames(T, T + 2, 1, 9.0), (X,), lambda x: shifted(x, 1, len(x) + 2, 9)),
    Case("expand", axes.Expand((F2,)), (X,), lambda x: np.stack([x, x], -1)),
    Case("delay", recurrence.Delay(T), (X, floats(B, F)), lambda x, i: np.concatenate([i[None], x])[: len(x)]),
    Case("cumsum", recurrence.Recurrence(recurrence.CumsumStep(), T), (X, floats(B, F)), cumulated),
    Case(
        "cumsum back",
        recurrence.Recurrence(recurrence.CumsumStep(), T, True),
        (X, floats(B, F)),
        lambda x, i: cumulated(x[::-1], i)[::-1],
    ),
    Case(
        "lstm",
        recurrence.Recurrence(recurrent_cells.LstmStep(LSTM), T),
        LSTM_OPERANDS,
        lambda *x: lstm(*x, 1.0, "ijfo"),
    ),
    Case("lstm back", recurrence.Recurrence(recurrent_cells.LstmStep(LSTM), T, True), LSTM_OPERANDS, reversed_lstm),
    Case(
        "gru",
        recurrence.Recurrence(recurrent_cells.GruStep(recurrent_cells.GruCell(H, R, GATES2)), T),
        GRU_OPERANDS,
        gru,
    ),
    Case(
        "gru reset after",
        recurrence.Recurrence(
            recurrent_cells.ResetAfterGruStep(recurrent_cells.ResetAfterGruCell(H, R, GATES3, "urc")), T
        ),
        GRU_AFTER_OPERANDS,
        reset_after_gru,
    ),
    Case(
        "gru reset after back",
        recurrence.Recurrence(
            recurrent_cells.ResetAfterGruStep(recurrent_cells.ResetAfterGruCell(H, R, GATES3, "urc")), T, True
        ),
        GRU_AFTER_OPERANDS,
        lambda z, *rest: reset_after_gru(z[::-1], *rest)[::-1],
    ),
    Case(
        "rnn back",
        recurrence.Recurrence(recurrent_cells.SimpleRnnStep(recurrent_cells.SimpleRnnCell(H, R)), T, True),
        (floats(B, T, H), floats(R, H), floats(B, H)),
        lambda z, w, h: rnn(z[::-1], w, h)[::-1],
    ),
    Case("cross entropy", losses.SparseCrossEntropy(V), (floats(B, T, V), ints(5, B, T)), cross_entropy),
    Case("sigmoid cross entropy", losses.SigmoidCrossEntropy(2.0), (X, X), sigmoid_cross_entropy),
    Case("ctc", losses.Ctc(T, V, S, 4), CTC_OPERANDS, ctc),
    Case("ctc unmerged", losses.Ctc(T, V, S, 4, merge_repeated=False), CTC_OPERANDS, ctc_by_paths(sum, merge=False)),
    Case("ctc best path", losses.Ctc(T, V, S, 4, best_path=True), CTC_OPERANDS, ctc_by_paths(max, merge=True)),
    Case(
        "ctc best path unmerged",
        losses.Ctc(T, V, S, 4, merge_repeated=False, best_path=True),
        CTC_OPERANDS,
        ctc_by_paths(max, merge=False),
    ),
    Case("ctc greedy", losses.CtcGreedyDecode(T, V, 1, LATER), (floats(B, T, V),), greedy),
    Case("ctc beam", losses.CtcBeamDecode(T, V, 1, LATER, 1000), (floats(B, T, V),), most_probable),
    Case(
        "edit distance row", edit_distances.EditDistanceStep(S, ROW), (ints(3, B), ints(3, B, S), BEFORE), row_after()
    ),
    Case(
        "edit distance row, blank",
        edit_distances.EditDistanceStep(S, ROW, 1),
        (ints(3, B), ints(3, B, S), BEFORE),
        row_after(1),
    ),
    Case(
        "edit distance table",
        recurrence.Recurrence(edit_distances.EditDistanceStep(S, ROW), T),
        (ints(3, B, T), ints(3, B, S), BEFORE),
        rows_after(),
    ),
    Case(
        "edit distance table, blank",
        recurrence.Recurrence(edit_distances.EditDistanceStep(S, ROW, 2), T),
        (ints(3, B, T), ints(3, B, S), BEFORE),
        rows_after(2),
    ),
    Case(
        "edit distance table, a reference a step",
        recurrence.Recurrence(edit_distances.EditDistanceStep(S, ROW), T),
        (ints(3, B, T), ints(3, B, T, S), BEFORE),
        rows_after(),
    ),
    Case("optimal completions", losses.OptimalCompletions(S, ROW, V), (BEFORE, ints(5, B, S)), completions()),
    Case(
        "optimal completions, blank",
        losses.OptimalCompletions(S, ROW, V, 4),
        (BEFORE, ints(5, B, S)),
        completions(4),
    ),
    Case("edit distance", losses.EditDistance(T, S), (ints(3, B, T), ints(3, B, S)), levenshtein),
]
