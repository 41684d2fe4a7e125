"""Layers that work on each element, and constants and variables."""

from functools import reduce

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerError, Outputs
from returnn_lite.layers.constants import Constant, Variable
from returnn_lite.layers.pointwise import (
    ActivationLayer,
    Cast,
    Combine,
    Compare,
    Copy,
    Gating,
    Print,
    Switch,
)
from tests.layers.harness import Bench, assert_frames_equal, draw

X, Y = draw(2, 3, 4), draw(2, 3, 4, seed=1)
FEED = {"x": X, "y": Y}


def pair(bench: Bench) -> tuple[View, View]:
    """Two sources whose feature dims are two."""
    return tuple(bench.input(name, bench.batch, bench.time, bench.feature(4, name.upper())) for name in "xy")


COMBINE = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "squared_difference": lambda a, b: (a - b) ** 2,
    "logaddexp": np.logaddexp,
    "floordiv": np.floor_divide,
    "mod": np.mod,
    "tf.math.multiply": np.multiply,
}


def test_combine_kinds() -> None:
    bench = Bench()
    sources = (*pair(bench), bench.layers["x"].value)
    results = bench.run({kind: bench.build(Combine(kind=kind), *sources) for kind in COMBINE}, FEED)
    for kind, function in COMBINE.items():
        assert_frames_equal(results[kind].value, reduce(function, [X, Y, X]).astype("float32"))


def test_combine_average_of_three_and_bias() -> None:
    bench = Bench()
    x, y = pair(bench)
    average = bench.build(Combine(kind="average"), x, y, x, name="average")
    biased = bench.build(Combine(kind="add", with_bias=True, activation="relu"), x, y)
    results = bench.run({"average": average, "biased": biased}, FEED, parameters={"probe/b": np.arange(4.0)})
    assert_frames_equal(results["average"].value, (2 * X + Y) / 3)
    assert_frames_equal(results["biased"].value, np.maximum(X + Y + np.arange(4), 0))


def test_combine_broadcasts_a_single_feature() -> None:
    bench = Bench()
    x, _ = pair(bench)
    one = bench.input("one", bench.batch, bench.time, bench.feature(1, "one"))
    y = bench.build(Combine(kind="mul"), x, one)
    assert str(y.type) == "[B, T, X(4)]"


def test_combine_logical() -> None:
    bench = Bench()
    a, b = (bench.input(name, bench.batch, bench.time, dtype="bool") for name in "ab")
    y = bench.build(Combine(kind="logical_and"), a, b)
    given = {name: np.array([[1, 0, 1], [1, 1, 0]], bool) for name in "ab"}
    assert_frames_equal(bench.run(y, given).value, given["a"])


def test_combine_divides_ints_as_floats() -> None:
    bench = Bench()
    a, b = (bench.input(name, bench.batch, dtype="int32") for name in "ab")
    y = bench.build(Combine(kind="truediv"), a, b)
    np.testing.assert_allclose(bench.run(y, {"a": np.array([1, 3]), "b": np.array([2, 2])}).value, [0.5, 1.5])


def test_broadcasting_all_sources_depends_on_the_behavior_version() -> None:
    def build(bench: Bench, **options: bool) -> View:
        a = bench.input("a", bench.batch, bench.time)
        b = bench.input("b", bench.batch, bench.feature(4))
        return bench.build(Combine(kind="add"), a, b, **options)

    assert str(build(Bench(behavior_version=3)).type) == "[B, T, F(4)]"
    assert str(build(Bench(), out_shape=True).type) == "[B, T, F(4)]"
    with pytest.raises(LayerError, match="no source has all dims"):
        build(Bench())


@pytest.mark.parametrize(
    ("layer", "message", "hint"),
    [
        (Combine(kind="ad"), "no kind 'ad'", "'add'"),
        (Combine(kind="eval"), "needs the option 'eval'", ""),
        (Compare(kind="eq", value=1), "no kind 'eq'", "equal"),
        (Cast(dtype="flot32"), "no dtype 'flot32'", "'float32'"),
        (Compare(), "something to compare it to", "'value'"),
    ],
)
def test_mistakes(layer: Combine | Compare | Cast, message: str, hint: str) -> None:
    bench = Bench()
    with pytest.raises(LayerError) as caught:
        bench.build(layer, pair(bench)[0])
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("equal", np.equal),
        ("!=", np.not_equal),
        ("<", np.less),
        ("less_equal", np.less_equal),
        (">=", np.greater_equal),
    ],
)
def test_compare_two_sources(kind: str, function: np.ufunc) -> None:
    bench = Bench()
    y = bench.build(Compare(kind=kind), *pair(bench))
    assert y.type.dtype == "bool"
    assert_frames_equal(bench.run(y, FEED).value, function(X, Y))


def test_compare_is_a_chain() -> None:
    bench = Bench()
    y = bench.build(Compare(kind="less", value=0.5), *pair(bench))
    assert_frames_equal(bench.run(y, FEED).value, (X < Y) & (Y < 0.5))


def test_compare_class_indices_with_a_number() -> None:
    bench = Bench()
    x = bench.input("x", bench.batch, dtype="int32", sparse=bench.feature(5))
    whole, half = bench.build(Compare(value=2), x), bench.build(Compare(kind="greater", value=1.5), x)
    results = bench.run({"whole": whole, "half": half}, {"x": np.array([2, 1])})
    assert whole.type.sparse is None
    assert results["whole"].value.tolist() == results["half"].value.tolist() == [True, False]


def test_switch() -> None:
    bench = Bench()
    pair(bench)
    bench.input("mask", bench.batch, bench.time, dtype="bool")
    mask = np.array([[1, 0, 1], [0, 1, 0]], bool)
    layers = bench.build(Switch(condition="mask", true_from="x", false_from="y"))
    number = bench.build(Switch(condition="mask", true_from=float("-inf"), false_from="x"))
    fixed = bench.build(Switch(condition=False, true_from="x", false_from="y"))
    results = bench.run({"layers": layers, "number": number, "fixed": fixed}, {**FEED, "mask": mask})
    assert_frames_equal(results["layers"].value, np.where(mask[..., None], X, Y))
    assert_frames_equal(results["number"].value, np.where(mask[..., None], -np.inf, X))
    assert_frames_equal(results["fixed"].value, Y)


def test_switch_keeps_classes() -> None:
    bench = Bench()
    classes = bench.feature(5)
    bench.input("labels", bench.batch, dtype="int32", sparse=classes)
    bench.input("mask", bench.batch, dtype="bool")
    y = bench.build(Switch(condition="mask", true_from="labels", false_from=0))
    assert y.type.sparse is classes


def test_switch_needs_a_bool() -> None:
    bench = Bench()
    pair(bench)
    with pytest.raises(LayerError, match="not bool"):
        bench.build(Switch(condition="x", true_from=1, false_from=0))


def test_copy_joins_and_keeps() -> None:
    bench = Bench()
    x, y = pair(bench)
    assert bench.build(Copy(), x) is x
    joined = bench.build(Copy(extra_deps=("y",)), x, y)
    assert_frames_equal(bench.run(joined, FEED).value, np.concatenate([X, Y], -1))
    with pytest.raises(LayerError, match="no layer 'z'"):
        bench.build(Copy(extra_deps=("z",)), x)


def test_activation_layer_passes_options() -> None:
    bench = Bench()
    x, _ = pair(bench)
    y = bench.build(ActivationLayer(activation="leaky_relu", opts={"alpha": 0.5}), x)
    assert_frames_equal(bench.run(y, FEED).value, np.where(X > 0, X, X / 2))


def test_gating() -> None:
    bench = Bench()
    x, _ = pair(bench)
    y = bench.build(Gating(activation="tanh"), x, n_out=2)
    assert str(y.type) == "[B, T, probe:feature(2)]"
    assert_frames_equal(bench.run(y, FEED).value, np.tanh(X[..., :2]) / (1 + np.exp(-X[..., 2:])))
    with pytest.raises(LayerError, match="half"):
        bench.build(Gating(activation="tanh"), x, n_out=3)
    with pytest.raises(LayerError, match="odd"):
        bench.build(Gating(activation="tanh"), bench.input("odd", bench.batch, bench.feature(3)))


def test_cast_cuts_off() -> None:
    bench = Bench()
    x, _ = pair(bench)
    assert_frames_equal(bench.run(bench.build(Cast(dtype="int32"), x), FEED).value, np.trunc(X).astype(int))


def test_print_is_computed_even_if_unused(capfd: pytest.CaptureFixture[str]) -> None:
    bench = Bench()
    x, y = pair(bench)
    bench.build(Print(extra_print_args=("seen",)), x)
    bench.run(y, FEED)
    captured = capfd.readouterr()
    assert "probe seen" in captured.out + captured.err


def test_constant() -> None:
    bench = Bench()
    number = bench.build(Constant(value=2, with_batch_dim=True))
    filled = bench.build(Constant(value=0.5, shape=(3,)))
    array = bench.build(Constant(value=[[1, 2, 3], [4, 5, 6]]))
    sparse = bench.build(Constant(value=1, sparse_dim=5))
    bench.layers["x"] = Outputs(bench.input("x", bench.batch))
    results = bench.run({"number": number, "filled": filled, "array": array}, {"x": np.zeros(2)})
    assert (number.type.dtype, filled.type.dtype, array.type.dtype) == ("int32", "float32", "int32")
    assert sparse.type.sparse is not None and sparse.type.sparse.size == 5
    assert results["number"].value.tolist() == [2, 2]
    assert results["filled"].value.tolist() == [0.5] * 3
    assert results["array"].value.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Constant(value="a"), "expected a number"),
        (Constant(value=[[1], [2, 3]]), "differ in length"),
        (Constant(value=[1, 2], shape=(3,)), "'shape' says"),
        (Constant(value=1, shape=(-3,)), "a size or a Dim"),
        (Variable(shape=("a",)), "a size or a Dim"),
    ],
)
def test_constant_mistakes(layer: Constant | Variable, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        Bench().build(layer)


def test_variable() -> None:
    bench = Bench()
    x = bench.input("x", bench.batch)
    plain = bench.build(Variable(shape=(2, 3)))
    named = bench.build(Variable(shape=(3,), param_name="w", init=0.5, add_batch_axis=True, add_time_axis=True))
    assert bench.parameter_shapes() == {"probe/probe": (2, 3), "probe/w": (3,)}
    assert str(named.type) == "[probe:time(1), B, probe:static:0(3)]"
    results = bench.run({"plain": plain, "named": named, "x": x}, {"x": np.zeros(2)})
    assert results["plain"].value.tolist() == [[0] * 3] * 2
    assert results["named"].value.tolist() == [[[0.5] * 3]] * 2


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("in_loop", [False, True])
def test_variable_that_begins_as_a_layer(in_loop: bool, optimize: bool) -> None:
    """The layer is computed once; neither what it is computed from nor training changes the variable by that."""
    network = {
        "numbers": {"class": "constant", "value": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], "from": []},
        "other": {"class": "variable", "shape": (2, 3), "init": 0.5, "from": []},
        "scaled": {"class": "eval", "eval": "source(0) * 2", "from": "other"},
        "w": {"class": "variable", "shape": (2, 3), "init_by_layer": "base:scaled" if in_loop else "scaled"},
        "output": {
            "class": "dot",
            "from": ["data:source" if in_loop else "data", "w"],
            "red1": "F",
            "red2": "dim:2",
            "var1": None,
            "var2": "dim:3",
        },
    }
    around = {name: network.pop(name) for name in ("numbers", "other", "scaled")} if in_loop else {}
    if in_loop:
        network = {**around, "output": {"class": "rec", "from": "data", "unit": network}}
    net = rl.compile(network, {"data": {"dim": 2}}, mode="forward", behavior_version=21, optimize=optimize)
    name = "output/rec/w/w" if in_loop else "w/w"
    np.testing.assert_allclose(net.params[name].numpy(), np.full((2, 3), 1.0))
    assert net.params["other/other"].shape == (2, 3)
    net.params["other/other"].assign(np.zeros((2, 3)))
    x = draw(1, 3, 2)
    np.testing.assert_allclose(
        net.run({"data": x}, {"data": [3]}).layers["output"].value, x @ np.ones((2, 3)), rtol=1e-5
    )


def test_variable_that_begins_as_ints() -> None:
    network = {
        "numbers": {"class": "constant", "value": [[1, 2, 3], [4, 5, 6]], "from": []},
        "w": {"class": "variable", "shape": (2, 3), "init_by_layer": "numbers", "from": []},
        "output": {"class": "dot", "from": ["data", "w"], "red1": "F", "red2": "dim:2", "var1": None, "var2": "dim:3"},
    }
    net = rl.compile(network, {"data": {"dim": 2}}, mode="forward", behavior_version=21)
    assert net.params["w/w"].numpy().tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"init_by_layer": "mean"}, "depends on data"),
        ({"init_by_layer": "numbers", "shape": (2, 4)}, r"not \[w:static:0\(2\), w:static:1\(4\)\]"),
        ({"init_by_layer": "numbers", "init": 0.5}, "exclude each other"),
    ],
)
def test_variable_that_cannot_begin_as_a_layer(more: dict, message: str) -> None:
    network = {
        "numbers": {"class": "constant", "value": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], "from": []},
        "mean": {"class": "reduce", "mode": "mean", "axis": "BT", "from": "data"},
        "output": {"class": "dot", "from": ["data", "w"], "red1": "F", "red2": "dim:2", "var1": None, "var2": "dim:3"},
    }
    network["w"] = {"class": "variable", "shape": (2,) if "mean" in more.values() else (2, 3), **more}
    with pytest.raises(rl.ConfigError, match=message):
        rl.compile(network, {"data": {"dim": 2}}, mode="forward", behavior_version=21)


@pytest.mark.parametrize("kind", ["add", "sub", "mul", "truediv", "maximum", "average"])
@pytest.mark.parametrize("place", [0, 1])
def test_numbers_of_classes_are_none_to_compute_with(kind: str, place: int) -> None:
    """The one mistake is told at the sparse source."""
    sources = ["lin"]
    sources.insert(place, "data:labels")
    network = {
        "lin": {"class": "linear", "n_out": 4, "from": "data"},
        "output": {"class": "combine", "kind": kind, "from": sources},
    }
    labels = {"dim": 4, "sparse": True, "same_dim_tags_as": {"t": "data"}}
    with pytest.raises(rl.ConfigError) as caught:
        rl.check({"network": network, "extern_data": {"data": {"dim": 3}, "labels": labels}})
    (found,) = caught.value.diagnostics
    assert found.path == ("network", "output", "from", place)
    assert "'data:labels'" in found.message
