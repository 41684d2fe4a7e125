"""Running graphs: feeds and lengths, layouts of results, parameters, random numbers, run-time errors."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from returnn_lite.dims import DimKind, MarkedType, Symbol, TensorType
from returnn_lite.ir import Origin, Value
from returnn_lite.ir.batches import BatchError
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.axes import Expand, MaskFrames, Relabel, Squeeze
from returnn_lite.ir.ops.elementwise import (
    CheckFinite,
    HostCall,
    PrintValue,
    ScaleGradient,
    StraightThroughClip,
)
from returnn_lite.ir.ops.losses import FrameCount
from returnn_lite.ir.ops.recurrence import Recurrence
from returnn_lite.ir.ops.recurrent_cells import LstmCell, LstmStep
from returnn_lite.ir.ops.reduction import Moments, Reduce
from returnn_lite.ir.ops.sources import AssignParameter, ConstantArray, Initializer, Iota, Length, Parameter, RandomDraw
from returnn_lite.tf.executable import Executable
from tests.tf.network import B, F, S, T, apply, array, dot, feature, parameter

GENERATOR = np.random.default_rng(5)


ONE = feature("one", 1)
F2 = feature("F2", 3)


def small_network() -> tuple[Builder, dict[str, Value]]:
    b = Builder()
    hidden, recurrent, gates = feature("hidden", 4), feature("recurrent", 4), feature("gates", 16)
    x = b.input("x", MarkedType((B, T, F), feature=F))
    zeros = b.constant(0.0, "float32", (B, hidden))
    z = dot(b, x, parameter(b, "w", F, gates), F)
    h, _ = b.emit(
        Recurrence(LstmStep(LstmCell(hidden, recurrent, gates)), T),
        z,
        parameter(b, "w_re", recurrent, gates),
        zeros,
        zeros,
    )
    b.open_loop(T)
    state = b.delay("state", zeros.type, zeros)
    state.next = apply(b, "tanh", apply(b, "add", b.element(h), state.now))
    outputs = b.close_loop([("state", state.next)])
    outputs["state"] = b.as_features(outputs["state"], hidden)
    outputs["loss"] = b.apply(Reduce("sum", (B, T, hidden)), outputs["state"])
    return b, outputs


def test_one_trace_whatever_the_lengths() -> None:
    b, outputs = small_network()
    executable = Executable(b.graph(outputs), B)
    calls = []
    original = executable.call
    executable.call = lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs)  # type: ignore[method-assign]
    for _ in range(30):
        batch, frames = GENERATOR.integers(1, 5), GENERATOR.integers(0, 7)
        lengths = GENERATOR.integers(0, frames + 1, batch)
        feed = {"x": GENERATOR.standard_normal((batch, frames, 3))}
        found = executable.run(feed, {T: lengths})
        assert found["state"].value.shape == (batch, max(lengths), 4)
        executable.run_with_gradients(feed, {T: lengths}, of="loss")[1]
    assert len(calls) == 2 == executable.trace_count()


def test_padding_of_feeds_has_no_influence() -> None:
    b, outputs = small_network()
    executable = Executable(b.graph(outputs), B, "float64")
    x = GENERATOR.standard_normal((3, 5, 3))
    spoilt = x.copy()
    lengths = [5, 0, 2]
    for sequence, length in enumerate(lengths):
        spoilt[sequence, length:] = np.nan
    longer = np.concatenate([spoilt, np.full((3, 2, 3), np.inf)], 1)
    for feed in (spoilt, longer):
        for name, output in executable.run({"x": feed}, {T: lengths}).items():
            np.testing.assert_array_equal(output.value, executable.run({"x": x}, {T: lengths})[name].value)
        gradients = executable.run_with_gradients({"x": feed}, {T: lengths}, of="loss")[1]
        for name, gradient in executable.run_with_gradients({"x": x}, {T: lengths}, of="loss")[1].items():
            np.testing.assert_array_equal(gradients[name], gradient)


def test_results_are_batch_first_feature_last() -> None:
    b = Builder()
    beam = Symbol("beam", DimKind.BEAM, 2)
    x = b.input("x", MarkedType((T, F, B), feature=F))
    outputs = {"x": x, "beams": b.apply(Expand((beam,)), x)}
    executable = Executable(b.graph(outputs), B)
    assert executable.feed_signature()["x"].shape.as_list() == [None, None, 3]
    found = executable.run({"x": np.ones((2, 4, 3))})
    assert found["x"].dims == (B, T, F)
    assert found["beams"].dims == (B, beam, T, F)
    assert found["beams"].value.shape == (2, 2, 4, 3)
    assert found["x"].lengths[T].tolist() == [4, 4]


def test_float64_is_everywhere() -> None:
    b, outputs = small_network()
    executable = Executable(b.graph(outputs), B, "float64")
    assert {v.dtype.name for v in executable.params.values()} == {"float64"}
    found = executable.run({"x": np.ones((1, 2, 3))})
    assert found["state"].value.dtype == np.float64
    with pytest.raises(ValueError, match="float64"):
        Executable(b.graph(outputs), B, "float32", parameters=executable.parameters)


def test_a_missing_or_short_feed() -> None:
    b, outputs = small_network()
    executable = Executable(b.graph(outputs), B)
    with pytest.raises(KeyError):
        executable.run({})
    with pytest.raises(BatchError, match="x: the array is shorter along T"):
        executable.run({"x": np.ones((1, 2, 3))}, {T: [4]})


def test_compilations_share_parameters() -> None:
    graphs = []
    for _ in range(2):
        b, outputs = small_network()
        graphs.append(b.graph(outputs))
    first = Executable(graphs[0], B)
    second = Executable(graphs[1], B, parameters=first.parameters)
    assert first.params["w"] is second.params["w"]
    b = Builder()
    with pytest.raises(ValueError, match="parameter w has shape"):
        Executable(b.graph({"w": parameter(b, "w", F, feature("other", 2))}), B, parameters=first.parameters)


def test_parameters_start_the_same_whatever_else_there_is() -> None:
    b = Builder()
    value = parameter(b, "a", F, feature("G", 5))
    alone = Executable(b.graph({"a": value}), B, seed=7)
    b = Builder()
    other = parameter(b, "b", F, F2)
    both = Executable(b.graph({"b": other, "a": parameter(b, "a", F, feature("G", 5))}), B, seed=7)
    np.testing.assert_array_equal(alone.params["a"], both.params["a"])
    assert not np.array_equal(both.params["b"].numpy()[:, :3], both.params["a"].numpy()[:, :3])
    assert np.abs(alone.params["a"]).max() <= np.sqrt(6 / (3 + 5))


@pytest.mark.parametrize(
    ("rule", "arguments", "mean", "deviation"),
    [
        ("constant", {"value": 3.0}, 3.0, 0.0),
        ("normal", {"mean": 1.0, "stddev": 2.0}, 1.0, 2.0),
        ("truncated_normal", {"stddev": 2.0}, 0.0, 2 * 0.88),
        ("uniform", {"minval": 0.0, "maxval": 6.0}, 3.0, 6 / np.sqrt(12)),
        ("variance_scaling", {"scale": 2.0, "mode": "fan_in"}, 0.0, np.sqrt(2 / 60)),
        ("variance_scaling", {"mode": "fan_out", "distribution": "uniform"}, 0.0, np.sqrt(1 / 80)),
        ("variance_scaling", {"mode": "fan_avg", "distribution": "untruncated_normal"}, 0.0, np.sqrt(1 / 70)),
    ],
)
def test_initializers(rule: str, arguments: dict[str, float | str], mean: float, deviation: float) -> None:
    b = Builder()
    rows, columns = feature("rows", 60), feature("columns", 80)
    initializer = Initializer(rule, tuple(arguments.items()), (rows,), (columns,))
    executable = Executable(b.graph({"w": b.apply(Parameter("w", (rows, columns), initializer))}), B)
    found = executable.params["w"].numpy()
    np.testing.assert_allclose(found.mean(), mean, atol=0.1 * deviation + 1e-6)
    np.testing.assert_allclose(found.std(), deviation, rtol=0.05)


def test_orthogonal_and_identity() -> None:
    b = Builder()
    rows, columns = feature("rows", 3), feature("columns", 5)
    outputs = {
        name: b.apply(Parameter(name, (rows, columns), Initializer(rule, (("gain", 2.0),))))
        for name, rule in (("o", "orthogonal"), ("i", "identity"))
    }
    params = Executable(b.graph(outputs), B, "float64").params
    np.testing.assert_allclose(params["o"].numpy() @ params["o"].numpy().T, 4 * np.eye(3), atol=1e-12)
    np.testing.assert_allclose(params["i"].numpy(), 2 * np.eye(3, 5))


def test_unknown_initializers_are_refused() -> None:
    for initializer, message in (
        (Initializer("magic"), "no initialiser 'magic'"),
        (Initializer("variance_scaling", (("mode", "fan_x"),)), "fan_in, fan_out, fan_avg"),
        (Initializer("variance_scaling", (("distribution", "x"),)), "no distribution"),
    ):
        b = Builder()
        graph = b.graph({"w": b.apply(Parameter("w", (F, F2), initializer))})
        with pytest.raises(ValueError, match=message):
            Executable(graph, B)


def test_assignment_happens_when_the_step_ends() -> None:
    b = Builder()
    mean = b.apply(Parameter("mean", (F,), Initializer("constant"), trainable=False))
    x = b.input("x", MarkedType((B, T, F), feature=F))
    average, variance = b.emit(Moments((F,)), x)
    b.require_computed(b.apply(AssignParameter("mean", (F,)), average))
    graph = b.graph({"mean": mean, "average": average, "variance": variance, "frames": b.apply(FrameCount(), x)})
    executable = Executable(graph, B, "float64")
    x = GENERATOR.standard_normal((2, 3, 3))
    found = executable.run({"x": x}, {T: [3, 1]})
    real = np.concatenate([x[0], x[1, :1]])
    assert not found["mean"].value.any()
    np.testing.assert_allclose(found["average"].value, real.mean(0))
    np.testing.assert_allclose(found["variance"].value, real.var(0))
    np.testing.assert_allclose(executable.params["mean"], real.mean(0))
    assert found["frames"].value == 12
    np.testing.assert_allclose(executable.run({"x": x}, {T: [3, 1]})["mean"].value, real.mean(0))
    assert executable.params["mean"].trainable is False


def test_random_numbers() -> None:
    def outputs_of(fresh: bool) -> Executable:
        b = Builder()
        x = b.input("x", MarkedType((B, T, F), feature=F))
        first = b.apply(RandomDraw("normal", 1.0, 2.0, (B, T, F), "a"))
        same = b.apply(RandomDraw("normal", 1.0, 2.0, (B, T, F), "a"))
        other = b.apply(RandomDraw("uniform", 2, 7, (B, T, F), "b", "int32"))
        b.open_loop(T)
        b.element(x)
        drawn = b.apply(RandomDraw("uniform", 0.0, 1.0, (B,), "c", fresh=fresh))
        outputs = b.close_loop([("drawn", apply(b, "add", drawn, b.constant(0.0)))])
        return Executable(b.graph(outputs | {"first": first, "same": same, "other": other}), B)

    feed = {"x": np.zeros((50, 8, 3))}
    executable = outputs_of(fresh=True)
    one, two = executable.run(feed), executable.run(feed)
    np.testing.assert_array_equal(one["first"].value, one["same"].value)
    assert not np.array_equal(one["first"].value, two["first"].value)
    np.testing.assert_allclose(one["first"].value.mean(), 1, atol=0.3)
    np.testing.assert_allclose(one["first"].value.std(), 2, atol=0.3)
    assert set(np.unique(one["other"].value)) == {2, 3, 4, 5, 6}
    assert len(np.unique(array(one["drawn"], (B, T))[0])) == 8
    np.testing.assert_array_equal(
        executable.run(feed, seed=3)["first"].value, executable.run(feed, seed=3)["first"].value
    )
    shared = outputs_of(fresh=False).run(feed)
    assert len(np.unique(array(shared["drawn"], (B, T))[0])) == 1


def test_lengths_and_numbers_of_frames() -> None:
    b = Builder()
    x = b.input("x", MarkedType((B, T, F), feature=F))
    outputs = {
        "length": b.apply(Length(T)),
        "longer": b.apply(Length(T + 2)),
        "static": b.apply(Length(F)),
        "batch": b.apply(Length(B)),
        "numbers": b.apply(Iota(T)),
        "squeezed": b.apply(Squeeze(ONE), b.input("y", TensorType((B, ONE)))),
        "table": b.apply(ConstantArray((1.0, 2.0, 3.0), (F,))),
        "summed": b.apply(Reduce("sum", (F,)), b.apply(MaskFrames(T, 5.0), x)),
    }
    found = Executable(b.graph(outputs), B).run({"x": np.ones((2, 3, 3)), "y": [[7.0], [8.0]]}, {T: [3, 1]})
    assert found["squeezed"].value.tolist() == [7, 8]
    assert found["length"].value.tolist() == [3, 1]
    assert found["longer"].value.tolist() == [5, 3]
    assert (int(found["static"].value), int(found["batch"].value)) == (3, 2)
    assert found["numbers"].value.tolist() == [0, 1, 2]
    assert found["table"].value.tolist() == [1, 2, 3]
    assert found["summed"].value.tolist() == [[3, 3, 3], [3, 0, 0]]


def test_relabel_compares_lengths() -> None:
    b = Builder()
    with b.within(Origin("output")):
        x, y = b.input("x", TensorType((B, T))), b.input("y", TensorType((B, S)))
        total = apply(b, "add", b.apply(Relabel(S, T, "output and data are one"), y), x)
    executable = Executable(b.graph({"total": total}), B)
    feed = {"x": np.ones((2, 3)), "y": np.ones((2, 3))}
    assert executable.run(feed, {T: [3, 1], S: [3, 1]})["total"].value.tolist() == [[2, 2, 2], [2, 0, 0]]
    with pytest.raises(BatchError, match="output: output and data are one: lengths of S and T"):
        executable.run(feed, {T: [3, 1], S: [3, 2]})


def test_relabel_defines_what_is_not_known() -> None:
    b = Builder()
    new = Symbol("new", varies_over=(B,))
    y = b.apply(Relabel(T, new), b.input("x", TensorType((B, T))))
    found = Executable(b.graph({"sum": b.apply(Reduce("sum", (new,)), y), "y": y}), B).run(
        {"x": np.ones((2, 3))}, {T: [3, 1]}
    )
    assert found["sum"].value.tolist() == [3, 1]
    assert found["y"].lengths[new].tolist() == [3, 1]


def test_host_calls_checks_and_markers(capfd: pytest.CaptureFixture[str]) -> None:
    b = Builder()
    x = b.input("x", MarkedType((T, B, F), feature=F))
    scale = b.apply(Parameter("scale", (), Initializer("constant", (("value", 2.0),))))
    scaled = apply(b, "mul", x, scale)
    called = b.apply(HostCall(lambda y: tf.cumsum(y, axis=1), "cumsum", x.type), scaled)
    with b.within(Origin("net/check")):
        checked = b.apply(CheckFinite("a number is missing"), called)
    checked = b.apply(PrintValue("the values:"), checked)
    loss = b.apply(Reduce("sum", (B, T, F)), b.apply(ScaleGradient(-3.0), checked))
    executable = Executable(b.graph({"loss": loss, "value": checked}), B)
    feed = {"x": np.ones((1, 2, 3))}
    assert executable.run(feed)["value"].value.tolist() == [[[2, 2, 2], [4, 4, 4]]]
    assert "the values: [[[" in capfd.readouterr().err
    assert executable.run_with_gradients(feed, of="loss")[1]["scale"] == -3 * (3 + 6)
    with pytest.raises(BatchError, match="net/check: a number is missing"):
        executable.run({"x": np.full((1, 2, 3), np.nan)})
    with pytest.raises(ValueError, match="need a scalar"):
        executable.run_with_gradients(feed, of="value")[1]


def test_a_clip_has_the_gradient_of_the_identity() -> None:
    b = Builder()
    x = b.input("x", TensorType((B,)))
    scale = b.apply(Parameter("scale", (), Initializer("constant", (("value", 2.0),))))
    clipped = b.apply(StraightThroughClip(-1.0, 3.0), apply(b, "mul", x, scale))
    executable = Executable(b.graph({"loss": b.apply(Reduce("sum", (B,)), clipped), "value": clipped}), B)
    feed = {"x": np.array([-2.0, 0.0, 1.0, 4.0])}
    assert executable.run(feed)["value"].value.tolist() == [-1, 0, 2, 3]
    assert executable.run_with_gradients(feed, of="loss")[1]["scale"] == -2 + 0 + 1 + 4


def test_a_host_call_of_the_wrong_shape_is_refused() -> None:
    b = Builder()
    x = b.input("x", MarkedType((B, F), feature=F))
    executable = Executable(b.graph({"y": b.apply(HostCall(lambda y: y[:, :2], "cut", x.type), x)}), B)
    with pytest.raises(ValueError, match="cut returned shape"):
        executable.run({"x": np.ones((1, 3))})
