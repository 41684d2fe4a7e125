"""Reductions, softmax over an axis, running sums, lengths, the k largest."""

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.dims import DimError
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerError
from returnn_lite.layers.reduction import (
    AccumulateMean,
    CumsumLayer,
    Length,
    Reduce,
    ReduceOut,
    SoftmaxOverSpatial,
    TopKLayer,
)
from tests.layers.harness import LENGTHS, Bench, assert_frames_equal, draw, real_frames

X = draw(2, 3, 4)
FEED = {"x": X}


def frames(bench: Bench) -> View:
    return bench.input("x", bench.batch, bench.time, bench.feature(4))


MODES = {
    "sum": np.sum,
    "max": np.max,
    "min": np.min,
    "mean": np.mean,
    "avg": np.mean,
    "prod": np.prod,
    "logsumexp": lambda x, axis: np.log(np.exp(x).sum(axis)),
    "argmax": np.argmax,
    "argmin": np.argmin,
}


def test_reduce_over_time_leaves_padding_out() -> None:
    bench = Bench()
    x = frames(bench)
    results = bench.run({mode: bench.build(Reduce(mode=mode, axis="T"), x) for mode in MODES}, FEED)
    for mode, function in MODES.items():
        expected = np.stack([function(row, axis=0) for row in real_frames(X)])
        np.testing.assert_allclose(results[mode].value, expected, rtol=1e-5, err_msg=mode)


def test_reduce_over_features_and_over_several_axes() -> None:
    bench = Bench()
    x = frames(bench)
    over_f = bench.build(Reduce(mode="mean", axis="F"), x)
    over_bt = bench.build(Reduce(mode="mean", axes="bt"), x)
    index = bench.build(Reduce(mode="argmax", axis="F"), x)
    results = bench.run({"f": over_f, "bt": over_bt, "index": index}, FEED)
    assert_frames_equal(results["f"].value, X.mean(-1))
    np.testing.assert_allclose(results["bt"].value, np.concatenate(real_frames(X)).mean(0), rtol=1e-5)
    assert_frames_equal(results["index"].value, X.argmax(-1))
    assert (index.type.dtype, index.type.sparse) == ("int32", x.type.feature)


def test_reduce_any_and_all() -> None:
    bench = Bench()
    x = bench.input("m", bench.batch, bench.time, dtype="bool")
    given = np.array([[1, 0, 1], [1, 1, 0]], bool)
    both = {mode: bench.build(Reduce(mode=mode, axis="T"), x) for mode in ("any", "all")}
    results = bench.run(both, {"m": given})
    assert results["any"].value.tolist() == [True, True]
    assert results["all"].value.tolist() == [False, True]


def test_keep_dims_keeps_the_markers() -> None:
    bench = Bench()
    x = frames(bench)
    over_f = bench.build(Reduce(mode="max", axis="F", keep_dims=True), x)
    assert over_f.type.feature is not None and over_f.type.feature.size == 1
    over_t = bench.build(Reduce(mode="max", axis="T", keep_dims=True), x)
    assert over_t.type.time is not None and over_t.type.time.size == 1
    assert over_t.type.feature is x.type.feature
    with pytest.raises(LayerError, match="batch"):
        bench.build(Reduce(mode="max", axis="B", keep_dims=True), x)


def test_the_last_static_dim_becomes_the_feature_dim() -> None:
    bench = Bench()
    heads = bench.spatial("heads", 2)
    x = bench.input("x", bench.batch, bench.time, heads, bench.feature(4))
    assert bench.build(Reduce(mode="mean", axis="F"), x).type.feature is heads


def test_reduce_mistakes() -> None:
    bench = Bench()
    x = frames(bench)
    with pytest.raises(LayerError, match="one of 'axis' and 'axes'"):
        bench.build(Reduce(mode="sum"), x)
    with pytest.raises(LayerError, match="one axis"):
        bench.build(Reduce(mode="argmax", axis="TF"), x)
    with pytest.raises(DimError):
        bench.build(Reduce(mode="sum", axis="stag:nowhere"), x)


def test_reduce_out_is_maxout_of_neighbours() -> None:
    bench = Bench()
    y = bench.build(ReduceOut(mode="max", num_pieces=2), frames(bench), n_out=2)
    assert_frames_equal(bench.run(y, FEED).value, X.reshape(2, 3, 2, 2).max(-1))
    with pytest.raises(LayerError, match="groups of 3"):
        bench.build(ReduceOut(mode="max", num_pieces=3), bench.layers["x"].value)


def softmax(x: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """softmax over axis 1 of [B, T, F] where `inside` [B, T] holds."""
    exp = np.exp(x) * inside[..., None]
    return exp / exp.sum(1, keepdims=True)


IN_SEQUENCE = np.arange(3) < np.array(LENGTHS)[:, None]


def test_softmax_over_time() -> None:
    bench = Bench()
    x = frames(bench)
    plain = bench.build(SoftmaxOverSpatial(energy_factor=0.3), x)
    log = bench.build(SoftmaxOverSpatial(axis="T", log_space=True), x)
    results = bench.run({"plain": plain, "log": log}, FEED)
    np.testing.assert_allclose(results["plain"].value, softmax(0.3 * X, IN_SEQUENCE), rtol=1e-5)
    assert_frames_equal(np.exp(results["log"].value), softmax(X, IN_SEQUENCE))


def test_softmax_in_a_window() -> None:
    bench = Bench()
    x = frames(bench)
    bench.input("start", bench.batch, dtype="int32")
    bench.input("first", bench.batch, bench.feature(1, "one"), dtype="int32")
    start = np.array([1, 0], "int32")
    from_start = bench.build(SoftmaxOverSpatial(start="start"), x)
    window = bench.build(SoftmaxOverSpatial(window_start="first", window_size=1), x)
    results = bench.run({"start": from_start, "window": window}, {**FEED, "start": start, "first": start[:, None]})
    frame = np.arange(3)
    np.testing.assert_allclose(results["start"].value, softmax(X, IN_SEQUENCE & (frame >= start[:, None])), rtol=1e-5)
    np.testing.assert_allclose(results["window"].value, softmax(X, frame == start[:, None]), rtol=1e-5)


def test_a_window_has_start_and_size() -> None:
    bench = Bench()
    with pytest.raises(LayerError, match="belong together"):
        bench.build(SoftmaxOverSpatial(window_size=3), frames(bench))


def test_cumsum() -> None:
    bench = Bench()
    x = frames(bench)
    layers = {
        "plain": CumsumLayer(),
        "reverse": CumsumLayer(reverse=True),
        "summand": CumsumLayer(additional_left_summand_per_element=2),
        "feature": CumsumLayer(axis="F"),
    }
    results = bench.run({name: bench.build(layer, x) for name, layer in layers.items()}, FEED)
    assert_frames_equal(results["plain"].value, X.cumsum(1))
    assert_frames_equal(results["summand"].value, (X + 2).cumsum(1))
    assert_frames_equal(results["feature"].value, X.cumsum(2))
    for row, expected in zip(real_frames(results["reverse"].value), real_frames(X), strict=True):
        np.testing.assert_allclose(row, expected[::-1].cumsum(0)[::-1], rtol=1e-5, atol=1e-5)


def test_cumsum_over_the_steps_of_a_loop() -> None:
    bench = Bench()
    x = frames(bench)
    with bench.loop() as stacks:
        stacks["y"] = bench.build(CumsumLayer(), bench.builder.element(x))
    assert_frames_equal(bench.run(stacks["y"], FEED).value, X.cumsum(1))


def test_a_reversed_sum_is_no_step() -> None:
    bench = Bench()
    x = frames(bench)
    bench.builder.open_loop(bench.time)
    with pytest.raises(LayerError, match="frames to come"):
        bench.build(CumsumLayer(reverse=True), bench.builder.element(x))


def test_length() -> None:
    bench = Bench()
    x = frames(bench)
    layers = {
        "T": Length(),
        "F": Length(axis="F"),
        "float": Length(dtype="float32"),
        "axis": Length(add_time_axis=True),
    }
    results = bench.run({name: bench.build(layer, x) for name, layer in layers.items()}, FEED)
    assert results["T"].value.tolist() == list(LENGTHS)
    assert results["F"].value == 4
    assert results["float"].value.dtype == np.float32
    assert results["axis"].value.tolist() == [[length] for length in LENGTHS]


def test_accumulate_mean() -> None:
    start = {"probe/mean_1": np.full(4, 0.5, "float32")}
    mean = np.concatenate(real_frames(X)).mean(0)
    for train, after in ((True, 0.9 * 0.5 + 0.1 * mean), (False, np.full(4, 0.5))):
        bench = Bench(train=train)
        y = bench.build(AccumulateMean(exp_average=0.1), frames(bench))
        np.testing.assert_allclose(bench.run(y, FEED, parameters=start).value, start["probe/mean_1"], rtol=1e-5)
        np.testing.assert_allclose(bench.variables["probe/mean_1"], after, rtol=1e-5)


def test_accumulate_mean_of_a_distribution_starts_uniform() -> None:
    bench = Bench()
    y = bench.build(AccumulateMean(exp_average=0.1, is_prob_distribution=True), frames(bench))
    assert bench.run(y, FEED).value.tolist() == [0.25] * 4


def test_top_k() -> None:
    bench = Bench()
    outputs = bench.outputs(TopKLayer(axis="F", k=2), frames(bench))
    results = bench.run({"values": outputs.value, "indices": outputs.parts["indices"]}, FEED)
    order = np.argsort(-X, -1)[..., :2]
    assert_frames_equal(results["indices"].value, order)
    assert_frames_equal(results["values"].value, np.take_along_axis(X, order, -1))


def test_top_k_over_two_axes() -> None:
    bench = Bench()
    x = bench.input("x", bench.batch, bench.spatial("S", 3), bench.feature(4))
    outputs = bench.outputs(TopKLayer(axis=["stag:S", "F"], k=2), x)
    results = bench.run({"values": outputs.value, **outputs.parts}, FEED)
    order = np.argsort(-X.reshape(2, 12), -1)[:, :2]
    assert results["indices0"].value.tolist() == (order // 4).tolist()
    assert results["indices1"].value.tolist() == (order % 4).tolist()


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("in_loop", [False, True])
def test_top_k_as_many_as_a_layer_says(in_loop: bool, optimize: bool) -> None:
    """Each sequence has its own number; what the axis does not have is below all numbers."""
    top = {"class": "top_k", "axis": "F", "k": "base:many" if in_loop else "many"}
    network = {
        "many": {"class": "length", "axis": "T", "from": "counts"},
        "counts": {"class": "copy", "from": "data:counts"},
        "top": {**top, "from": "data:source" if in_loop else "data"},
        "at": {"class": "copy", "from": "top/indices", "is_output_layer": True},
        "output": {"class": "copy", "from": "top"},
    }
    if in_loop:
        around = {name: network.pop(name) for name in ("many", "counts")}
        network = {**around, "output": {"class": "rec", "from": "data", "unit": network}}
    extern_data = {"data": {"dim": 4}, "counts": {"dim": 1}}
    net = rl.compile(network, extern_data, mode="forward", behavior_version=21, optimize=optimize)
    lengths = {"data": [3, 2], "counts": [2, 5]}
    result = net.run({"data": X, "counts": np.zeros((2, 5, 1))}, lengths).layers
    found = {}
    for name in ("output", "output/at" if in_loop else "at"):
        time = next(i for i, dim in enumerate(result[name].dims) if dim.startswith("data:time"))
        found[name.rpartition("/")[2]] = np.moveaxis(result[name].value, time, 1)
    for row, (count, length) in enumerate(zip([2, 5], [3, 2], strict=True)):
        ordered = np.argsort(-X[row, :length], axis=-1)[:, :count]
        wanted = np.take_along_axis(X[row, :length], ordered, -1)
        kept = min(count, 4)
        np.testing.assert_allclose(found["output"][row, :length, :kept], wanted, rtol=1e-6)
        np.testing.assert_array_equal(found["at"][row, :length, :kept], ordered)
        assert (found["output"][row, :length, kept:count] == -np.inf).all()


@pytest.mark.parametrize(
    ("more", "message"),
    [({"axis": "T"}, "the axis must be static"), ({"k": "data"}, "k is a number of entries"), ({"k_dim": 2}, "k_dim")],
)
def test_top_k_with_a_layer_that_cannot_say_it(more: dict, message: str) -> None:
    network = {
        "many": {"class": "constant", "value": 2, "from": []},
        "output": {"class": "top_k", "axis": "F", "k": "many", "from": "data", **more},
    }
    with pytest.raises(rl.ConfigError, match=message):
        rl.compile(network, {"data": {"dim": 4}}, mode="forward", behavior_version=21)
