"""Loops: states, elements, stacks of growing values, finals, loops in loops, and where gradients come from."""

from __future__ import annotations

import numpy as np
import pytest

from returnn_lite.dims import DimKind, MarkedType, Symbol, TensorType
from returnn_lite.ir import Ending, Graph, Search
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.among import Among
from returnn_lite.ir.ops.histories import CumConcat, CumConcatStep, EmptyHistory
from returnn_lite.ir.ops.recurrence import Recurrence
from returnn_lite.ir.ops.recurrent_cells import (
    GruCell,
    GruStep,
    LstmCell,
    LstmStep,
    ResetAfterGruCell,
    ResetAfterGruStep,
    SimpleRnnCell,
    SimpleRnnStep,
)
from returnn_lite.ir.ops.reduction import Last, Reduce, Softmax
from returnn_lite.ir.ops.sources import StepIndex
from returnn_lite.tf import gradients
from returnn_lite.tf.executable import Executable
from tests.tf.network import B, F, S, T, apply, array, dot, feature, parameter

LENGTHS = [4, 2, 0]
GENERATOR = np.random.default_rng(3)
X = GENERATOR.standard_normal((3, 4, 3))


def history_attention() -> Graph:
    """A running sum attends over all inputs so far."""
    b = Builder()
    history = Symbol("history", varies_over=(T,))
    x = b.input("x", MarkedType((B, T, F), feature=F))
    b.open_loop(T)
    now = b.element(x)
    with b.at_outer():
        zeros = b.constant(0.0, "float32", (B, F))
        empty, none = b.apply(EmptyHistory(history), zeros), b.constant(0, "int32")
    total, seen = b.delay("sum", zeros.type, zeros), b.delay("seen", empty.type, empty)
    count = b.delay("count", none.type, none)
    total.next = apply(b, "add", now, total.now)
    seen.next, count.next = b.emit(CumConcatStep(history), now, seen.now, count.now)
    weights = b.apply(Softmax(history), dot(b, seen.next, total.next, F))
    context = dot(b, weights, seen.next, history)
    stacks = {"sum": total.next, "weights": weights, "context": context, "seen": seen.next}
    stacks |= {"index": b.apply(StepIndex()), "count": count.next}
    outputs = b.close_loop(list(stacks.items()), [("final", total.next), ("last", context)])
    return b.graph(outputs)


def test_a_state_is_no_number_in_the_padding() -> None:
    """It is -inf there, in the next step too, where 0 times it is no summand."""
    b = Builder()
    x = b.input("x", TensorType((B, T), "float64"))
    z, weights = b.input("z", TensorType((B, S, F), "float64")), b.input("weights", TensorType((B, S), "float64"))
    b.open_loop(T)
    state = b.delay("state", z.type, z)
    state.next = b.apply(Softmax(S, log=True), z)
    y = apply(b, "add", dot(b, state.now, weights, S), b.element(x))
    graph = b.graph(b.close_loop([("y", y)]))
    lengths = [3, 1, 2]
    feed = {"x": X[..., 0], "z": X[:, :3], "weights": X[:, :3, 1]}
    found = array(Executable(graph, B, "float64").run(feed, {T: LENGTHS, S: lengths})["y"], (B, T, F))
    for sequence in (0, 1):
        real = X[sequence, : lengths[sequence]]
        log_p = real - np.log(np.exp(real).sum(0))
        expected = real[:, 1] @ log_p + X[sequence, 1, 0]
        np.testing.assert_allclose(found[sequence, 1], expected)


def test_what_is_absent_gets_nothing_of_the_others() -> None:
    """As `Among` says: it is 0, wherever it stands, and no one else's."""
    b = Builder()
    x, absent = b.input("x", TensorType((B,), "float64")), b.input("absent", TensorType((B,), "bool"))
    graph = b.graph({"y": b.apply(Among(Softmax(B), B), absent, x)})
    feed = {"x": np.arange(4.0), "absent": np.array([True, False, True, False])}
    found = Executable(graph, B, "float64").run(feed, {})["y"].value
    np.testing.assert_allclose(found, [0, 1 / (1 + np.exp(2)), 0, 1 / (1 + np.exp(-2))])


def test_a_step_for_other_sequences_reorders_no_hypotheses() -> None:
    """Whatever the pointers say in the third step, which the second sequence had ended before."""
    b = Builder()
    beam = Symbol("beam", DimKind.BEAM, 2)
    x = b.input("x", TensorType((B, T, beam), "int32"))
    pointers = b.input("pointers", TensorType((B, T, beam), "int32", sparse=beam))
    ended = b.input("ended", TensorType((B, T, beam), "bool"))
    b.open_loop(T)
    found = b.close_loop([("x", b.element(x))], search=Search(b.element(pointers), b.element(ended)))
    over = [[[False, False]] * 3, [[False, False], [True, False], [True, True]]]
    back = np.array([[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 0], [1, 0]]], "int32")
    frames = np.arange(12).reshape(2, 3, 2)
    feed = {"x": frames, "pointers": back, "ended": np.array(over)}
    feed = {name: given.swapaxes(1, 2) for name, given in feed.items()}
    traced = array(Executable(b.graph(found), B).run(feed, {T: [3, 3]})["x"], (B, T, beam))
    # Backwards: both go back to 1, that to 0; the second sequence's two keep their places in the last step.
    assert traced[0].tolist() == [[0, 0], [3, 3], [4, 5]]
    assert traced[1].tolist() == [[7, 6], [8, 9], [10, 11]]


def test_states_histories_and_finals() -> None:
    graph = history_attention()
    outputs = Executable(graph, B, "float64").run({"x": X}, {T: LENGTHS})
    history = next(dim for dim in graph.outputs["weights"].type.dims if dim.name == "history")
    weights = array(outputs["weights"], (B, T, history))
    assert outputs["weights"].lengths[history].tolist() == [1, 2, 3, 4]
    for sequence, length in enumerate(LENGTHS):
        for t in range(length):
            seen, total = X[sequence, : t + 1], X[sequence, : t + 1].sum(0)
            expected = np.exp(seen @ total) / np.exp(seen @ total).sum()
            np.testing.assert_allclose(weights[sequence, t, : t + 1], expected)
            np.testing.assert_allclose(array(outputs["sum"], (B, T, F))[sequence, t], total)
            np.testing.assert_allclose(array(outputs["context"], (B, T, F))[sequence, t], expected @ seen)
            found = array(outputs["seen"], (B, T, history, F))[sequence, t]
            np.testing.assert_allclose(found[: t + 1], seen)
            assert not found[t + 1 :].any() and not weights[sequence, t, t + 1 :].any()
    assert outputs["index"].value.tolist() == [0, 1, 2, 3]
    assert outputs["count"].value.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(outputs["final"].value[0], X[0].sum(0))
    np.testing.assert_allclose(outputs["last"].value[0], array(outputs["context"], (B, T, F))[0, 3])


def test_no_step_at_all() -> None:
    outputs = Executable(history_attention(), B, "float64").run({"x": X[:, :0]}, {T: [0, 0, 0]})
    assert {
        name: output.value.size for name, output in outputs.items() if name not in ("final", "last")
    } == dict.fromkeys(("sum", "weights", "context", "seen", "index", "count"), 0)
    assert outputs["final"].value.tolist() == np.zeros((3, 3)).tolist()


def test_masked_history_appends_where_it_says() -> None:
    b = Builder()
    history = Symbol("history", varies_over=(T, B))
    x = b.input("x", MarkedType((B, T, F), feature=F))
    mask = b.input("mask", TensorType((B, T), "bool"))
    b.open_loop(T)
    with b.at_outer():
        empty = b.apply(EmptyHistory(history), b.constant(0.0, "float32", (B, F)))
        none = b.constant(0, "int32", (B,))
    seen, count = b.delay("seen", empty.type, empty), b.delay("count", none.type, none)
    seen.next, count.next = b.emit(CumConcatStep(history), b.element(x), seen.now, count.now, b.element(mask))
    total = b.apply(Reduce("sum", (history,)), seen.next)
    outputs = b.close_loop([("seen", seen.next), ("sum", total)])
    flags = np.array([[True, False, True, True], [False, True, False, False], [True, True, True, True]])
    found = Executable(b.graph(outputs), B, "float64").run({"x": X, "mask": flags}, {T: LENGTHS})
    stacked = array(found["seen"], (B, T, history, F))
    for sequence, length in enumerate(LENGTHS):
        for t in range(length):
            chosen = X[sequence, : t + 1][flags[sequence, : t + 1]]
            np.testing.assert_allclose(stacked[sequence, t, : len(chosen)], chosen)
            np.testing.assert_allclose(array(found["sum"], (B, T, F))[sequence, t], chosen.sum(0))


def test_whole_history_is_what_the_steps_have() -> None:
    b = Builder()
    history = Symbol("history", varies_over=(T,))
    x = b.input("x", MarkedType((B, T, F), feature=F))
    empty = b.apply(EmptyHistory(history), b.constant(0.0, "float32", (B, F)))
    seen, count = b.emit(CumConcat(T, history), x, empty, b.constant(0, "int32"))
    weights = b.apply(Softmax(history), dot(b, seen, apply(b, "tanh", x), F))
    b.open_loop(T)
    doubled = apply(b, "mul", b.element(weights), b.constant(2.0))  # a length that differs from step to step
    outputs = b.close_loop([("doubled", b.apply(Reduce("sum", (history,)), doubled))])
    graph = b.graph(outputs | {"count": count, "weights": weights})
    found = Executable(graph, B, "float64").run({"x": X}, {T: LENGTHS})
    assert found["count"].value.tolist() == [1, 2, 3, 4]
    for sequence, length in enumerate(LENGTHS):
        for t in range(length):
            scores = X[sequence, : t + 1] @ np.tanh(X[sequence, t])
            expected = np.exp(scores) / np.exp(scores).sum()
            np.testing.assert_allclose(array(found["weights"], (B, T, history))[sequence, t, : t + 1], expected)
            np.testing.assert_allclose(array(found["doubled"], (B, T))[sequence, t], 2.0)


def test_loop_in_loop() -> None:
    """For each frame of T a sum over S, whose final value the next frame continues."""
    b = Builder()
    x = b.input("x", MarkedType((B, T, F), feature=F))
    y = b.input("y", MarkedType((B, S, F), feature=F))
    weight = parameter(b, "w", F, feature("G", 3))
    b.open_loop(T)
    now = b.element(x)
    with b.at_outer():
        zeros = b.constant(0.0, "float32", (B, F))
    outer = b.delay("outer", zeros.type, zeros)
    b.open_loop(S)
    inner = b.delay("inner", zeros.type, outer.now)
    inner.next = apply(b, "tanh", apply(b, "add", apply(b, "mul", b.element(y), now), inner.now))
    found = b.close_loop([("inner", inner.next)])
    outer.next = b.apply(Last(S), found["inner"], outer.now)
    projected = dot(b, outer.next, weight, F)
    outputs = b.close_loop([("outer", outer.next), ("inner", found["inner"]), ("projected", projected)])
    outputs["loss"] = b.apply(Reduce("sum", outputs["projected"].type.dims), outputs["projected"])
    executable = Executable(b.graph(outputs), B, "float64")
    ys, lengths = GENERATOR.standard_normal((3, 5, 3)), {T: LENGTHS, S: [3, 5, 1]}
    results = executable.run({"x": X, "y": ys}, lengths)
    for sequence, length in enumerate(LENGTHS):
        state = np.zeros(3)
        for t in range(length):
            for s in range(lengths[S][sequence]):
                state = np.tanh(ys[sequence, s] * X[sequence, t] + state)
                np.testing.assert_allclose(array(results["inner"], (B, T, S, F))[sequence, t, s], state)
            np.testing.assert_allclose(array(results["outer"], (B, T, F))[sequence, t], state)
    gradient = executable.run_with_gradients({"x": X, "y": ys}, lengths, of="loss")[1]["w"]
    real = [array(results["outer"], (B, T, F))[i, :length].sum(0) for i, length in enumerate(LENGTHS)]
    np.testing.assert_allclose(gradient, np.repeat(sum(real)[:, None], 3, 1))


def decoder(kind: str) -> Graph:
    """Attention over S, a recurrence over T that is fed back its context."""
    b = Builder()
    hidden, recurrent = feature("hidden", 4), feature("recurrent", 4)
    gates = feature("gates", {"lstm": 16, "gru": 8, "gru after": 12, "rnn": 4}[kind])
    x = b.input("x", MarkedType((B, T, F), feature=F))
    encoder = b.input("encoder", MarkedType((B, S, F), feature=F))
    w_in, w_re = parameter(b, "w_in", F, gates), parameter(b, "w_re", recurrent, gates)
    query = parameter(b, "query", hidden, F)
    h0, context0 = b.constant(0.0, "float32", (B, hidden)), b.constant(0.0, "float32", (B, F))
    b.open_loop(T)
    h, context = b.delay("h", h0.type, h0), b.delay("context", context0.type, context0)
    z = dot(b, apply(b, "add", b.element(x), context.now), w_in, F)
    if kind == "lstm":
        c = b.delay("c", h0.type, h0)
        h.next, c.next = b.emit(LstmStep(LstmCell(hidden, recurrent, gates)), z, w_re, h.now, c.now)
    elif kind == "gru":
        w_c, w_zc = parameter(b, "w_c", recurrent, hidden), parameter(b, "w_zc", F, hidden)
        zc = dot(b, apply(b, "add", b.element(x), context.now), w_zc, F)
        h.next = b.apply(GruStep(GruCell(hidden, recurrent, gates)), z, zc, w_re, w_c, h.now)
    elif kind == "gru after":
        bias = parameter(b, "b_re", gates)
        h.next = b.apply(ResetAfterGruStep(ResetAfterGruCell(hidden, recurrent, gates)), z, w_re, bias, h.now)
    else:
        w_s = parameter(b, "w_s", recurrent, hidden)
        zs = dot(b, apply(b, "add", b.element(x), context.now), parameter(b, "w_zs", F, hidden), F)
        h.next = b.apply(SimpleRnnStep(SimpleRnnCell(hidden, recurrent, "relu")), zs, w_s, h.now)
    energies = dot(b, encoder, dot(b, h.next, query, hidden), F)
    context.next = dot(b, b.apply(Softmax(S), energies), encoder, S)
    outputs = b.close_loop([("h", h.next), ("context", context.next)])
    squares = apply(b, "square", outputs["context"])
    outputs["loss"] = b.apply(Reduce("sum", squares.type.dims), squares)
    return b.graph(outputs)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kind", ["lstm", "gru", "gru after", "rnn"])
def test_gradients_leave_the_loop(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the product after the backward loop gradients are the same, and those of finite differences."""
    feeds = {"x": X, "encoder": GENERATOR.standard_normal((3, 5, 3))}
    lengths = {T: LENGTHS, S: [3, 5, 2]}
    found = []
    for least in (0, 10**9):
        monkeypatch.setattr(gradients, "WORTHWHILE", least)
        executable = Executable(decoder(kind), B, "float64")
        found.append(executable.run_with_gradients(feeds, lengths, of="loss")[1])
    for name, gradient in found[0].items():
        np.testing.assert_allclose(gradient, found[1][name], rtol=1e-9, atol=1e-12, err_msg=name)
        if not gradient.any():
            continue
        variable = executable.params[name]
        value, losses = variable.numpy(), []
        for step in (-1e-5, 1e-5):
            changed = value.copy()
            changed.flat[0] += step
            variable.assign(changed)
            losses.append(float(executable.run(feeds, lengths)["loss"].value))
        variable.assign(value)
        np.testing.assert_allclose(gradient.flat[0], (losses[1] - losses[0]) / 2e-5, rtol=1e-4, atol=1e-7)


def test_recurrence_inside_a_loop_has_a_gradient() -> None:
    """A whole-sequence LSTM over S in each frame of T: its own backward loop runs in that of the loop over T."""
    b = Builder()
    hidden, recurrent, gates = feature("hidden", 2), feature("recurrent", 2), feature("gates", 8)
    x = b.input("x", MarkedType((B, T, F), feature=F))
    y = b.input("y", MarkedType((B, S, F), feature=F))
    w_in, w_re = parameter(b, "w_in", F, gates), parameter(b, "w_re", recurrent, gates)
    zeros = b.constant(0.0, "float32", (B, hidden))
    b.open_loop(T)
    state = b.delay("state", zeros.type, zeros)
    z = dot(b, apply(b, "mul", y, b.element(x)), w_in, F)
    h, _ = b.emit(Recurrence(LstmStep(LstmCell(hidden, recurrent, gates)), S), z, w_re, state.now, zeros)
    state.next = b.apply(Last(S), h, state.now)
    outputs = b.close_loop([("state", state.next)])
    outputs["loss"] = b.apply(Reduce("sum", outputs["state"].type.dims), outputs["state"])
    executable = Executable(b.graph(outputs), B, "float64")
    feeds, lengths = {"x": X, "y": GENERATOR.standard_normal((3, 4, 3))}, {T: LENGTHS, S: [2, 4, 1]}
    gradient = executable.run_with_gradients(feeds, lengths, of="loss")[1]
    for name in ("w_in", "w_re"):
        variable = executable.params[name]
        value, losses = variable.numpy(), []
        for step in (-1e-5, 1e-5):
            changed = value.copy()
            changed.flat[3] += step
            variable.assign(changed)
            losses.append(float(executable.run(feeds, lengths)["loss"].value))
        variable.assign(value)
        np.testing.assert_allclose(gradient[name].flat[3], (losses[1] - losses[0]) / 2e-5, rtol=1e-4)


def test_a_loop_that_ends_itself() -> None:
    """Counts up to a number that each sequence has; lengths with and without the step that ended it."""
    for include_end in (False, True):
        b = Builder()
        limit = b.input("limit", TensorType((B,), "int32"))
        steps = Symbol("steps", varies_over=(B,))
        zero, bound = b.constant(0, "int32", (B,)), b.constant(6, "int32")
        b.open_loop(steps)
        count = b.delay("count", zero.type, zero)
        count.next = apply(b, "add", count.now, b.constant(1, "int32"))
        ended = apply(b, "greater_equal", count.next, limit)
        outputs = b.close_loop([("count", count.next)], ending=Ending(ended, bound, include_end))
        found = Executable(b.graph(outputs), B).run({"limit": [3, 1, 9]})["count"]
        expected = [3, 1, 6] if include_end else [2, 0, 6]
        assert found.lengths[steps].tolist() == expected
        assert found.value.shape == (3, 6)
        assert found.value[0, : expected[0]].tolist() == [1, 2, 3][: expected[0]]
