"""dot, and attention by weights."""

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerError
from returnn_lite.layers.contraction import Dot, DotAttention, GenericAttention
from tests.layers.harness import LENGTHS, Bench, assert_frames_equal, draw

X, Y = draw(2, 3, 4), draw(2, 3, 5, seed=1)
QUERY = draw(2, 4, seed=2)
IN_SEQUENCE = np.arange(3) < np.array(LENGTHS)[:, None]
REAL = X * IN_SEQUENCE[..., None]


def frames(bench: Bench, name: str = "x", size: int = 4) -> View:
    return bench.input(name, bench.batch, bench.time, bench.feature(size, name.upper()))


def query(bench: Bench) -> View:
    return bench.input("q", bench.batch, bench.feature(4, "Q"))


@pytest.mark.parametrize(
    "layer",
    [
        Dot(reduce="F"),
        Dot(red1="F", red2="F"),
        Dot(red1="F", red2="F", var1="T", var2=None),
        Dot(red1="F", red2="F", var1="auto", var2="auto"),
    ],
)
def test_over_features(layer: Dot) -> None:
    bench = Bench()
    y = bench.build(layer, frames(bench), query(bench))
    assert str(y.type) == "[B, T]"
    assert_frames_equal(bench.run(y, {"x": X, "q": QUERY}).value, np.einsum("btf,bf->bt", X, QUERY))


def test_without_var2_older_versions_add_a_feature_of_size_one() -> None:
    bench = Bench(behavior_version=0)
    x, q = frames(bench), query(bench)
    y = bench.build(Dot(red1="F", red2="F", var1="T", var2=None), x, q)
    assert str(y.type) == "[B, T, probe:dummy(1)]"
    assert y.type.feature is y.type.dims[-1]
    y = bench.build(Dot(red1="F", red2="F", var1="T", var2="T?", add_var2_if_empty=False), x, q)
    assert str(y.type) == "[B, T]"


def test_over_time_only_real_frames_count() -> None:
    bench = Bench()
    y = bench.build(Dot(red1="T", red2="T", var1="F", var2="F"), frames(bench), frames(bench, "y", 5))
    assert str(y.type) == "[B, X(4), Y(5)]"
    assert str(y.type.feature) == "Y(5)"
    np.testing.assert_allclose(bench.run(y, {"x": X, "y": Y}).value, np.einsum("btf,btg->bfg", REAL, Y), rtol=1e-4)


def test_a_dim_of_both_gets_a_second_name() -> None:
    bench = Bench()
    x = frames(bench)
    y = bench.build(Dot(red1="F", red2="F", var1="T", var2="T"), x, x)
    assert str(y.type) == "[B, T, T']"
    got = bench.run(y, {"x": X}).value
    assert_frames_equal(got[0, :3, :3], X[0] @ X[0].T, [3, 3, 3])
    np.testing.assert_allclose(got[1, :2, :2], X[1, :2] @ X[1, :2].T, rtol=1e-4, atol=1e-5)


def test_older_default_axes_are_the_last_two() -> None:
    bench = Bench(behavior_version=0)
    rows, inner = bench.spatial("rows", 2), bench.feature(4, "inner")
    a = bench.input("a", bench.batch, rows, inner)
    b = bench.input("b", bench.batch, bench.spatial("inner2", 4), bench.feature(3, "columns"))
    y = bench.build(Dot(), a, b)
    assert str(y.type) == "[B, rows(2), columns(3)]"
    left, right = draw(2, 2, 4, seed=3), draw(2, 4, 3, seed=4)
    np.testing.assert_allclose(bench.run(y, {"a": left, "b": right}).value, left @ right, rtol=1e-4, atol=1e-5)


def test_over_the_classes_of_sparse_data_picks_entries() -> None:
    bench = Bench()
    classes = bench.feature(4, "classes")
    labels = bench.input("labels", bench.batch, bench.time, dtype="int32", sparse=classes)
    table = bench.input("table", classes, bench.feature(3))
    y = bench.build(Dot(reduce=classes), labels, table)
    given, rows = np.array([[0, 3, 1], [2, 2, 0]], "int32"), draw(4, 3, seed=5)
    assert_frames_equal(bench.run(y, {"labels": given, "table": rows}).value, rows[given])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Dot(), "dot of 'x'"),
        (Dot(reduce="F", red1="F"), "stands for both"),
        (Dot(red1="F", red2=["T", "F"]), "of the second"),
        (Dot(reduce="F", var1="F"), "can't be kept"),
    ],
)
def test_mistakes(layer: Dot, message: str) -> None:
    bench = Bench()
    with pytest.raises(LayerError, match=message):
        bench.build(layer, frames(bench), frames(bench, "y"))


WEIGHTS = np.abs(draw(2, 3, 2, seed=6)) * IN_SEQUENCE[..., None]


def test_attention_with_one_head() -> None:
    bench = Bench()
    frames(bench)
    bench.input("w", bench.batch, bench.time, bench.feature(1, "one"))
    squeezed = bench.build(GenericAttention(weights="w", base="x"))
    kept = bench.build(GenericAttention(weights="w", base="x", auto_squeeze=False))
    assert str(squeezed.type) == "[B, X(4)]"
    assert str(kept.type) == "[B, one(1), X(4)]"
    weights = WEIGHTS[..., :1]
    results = bench.run({"squeezed": squeezed, "kept": kept}, {"x": X, "w": weights})
    expected = (X * weights).sum(1)
    np.testing.assert_allclose(results["squeezed"].value, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(results["kept"].value[:, 0], expected, rtol=1e-4, atol=1e-6)


def test_attention_heads_meet_those_of_the_base() -> None:
    bench = Bench()
    bench.input("base", bench.batch, bench.time, bench.spatial("heads", 2), bench.feature(3))
    bench.input("w", bench.batch, bench.time, bench.feature(2, "H"))
    y = bench.build(GenericAttention(weights="w", base="base"))
    assert str(y.type) == "[B, heads(2), F(3)]"
    base = draw(2, 3, 2, 3, seed=7)
    got = bench.run(y, {"base": base, "w": WEIGHTS}).value
    np.testing.assert_allclose(got, np.einsum("bth,bthd->bhd", WEIGHTS, base), rtol=1e-4, atol=1e-5)


def test_attention_over_another_time_of_the_same_length() -> None:
    bench = Bench()
    frames(bench)
    bench.input("w", bench.batch, bench.spatial("T2"))
    assert str(bench.build(GenericAttention(weights="w", base="x")).type) == "[B, X(4)]"


def test_weights_need_the_time_of_the_base() -> None:
    bench = Bench()
    frames(bench)
    bench.input("w", bench.batch)
    with pytest.raises(LayerError, match="the weights lack T"):
        bench.build(GenericAttention(weights="w", base="x"))


def test_dot_attention() -> None:
    bench = Bench()
    frames(bench, "keys")
    frames(bench, "values", 5)
    y = bench.build(DotAttention(base="values", base_ctx="keys", energy_factor=0.5), query(bench))
    got = bench.run(y, {"keys": X, "values": Y, "q": QUERY}).value
    energies = np.exp(0.5 * np.einsum("btf,bf->bt", X, QUERY)) * IN_SEQUENCE
    weights = energies / energies.sum(1, keepdims=True)
    np.testing.assert_allclose(got, np.einsum("bt,btg->bg", weights, Y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("own", ["T", ["T", "static:0"], ["static:0", "T"]], ids=str)
def test_the_feature_of_a_dot_is_its_last_static_dim(swapped: bool, own: Any) -> None:
    """Never the frames, in whatever order the operands come: a linear layer behind it has weights of that size."""
    frames = {"class": "split_dims", "axis": "F", "dims": [3, 2], "from": "lin"}
    whole = {"class": "reduce", "mode": "max", "axis": "T" if own == "T" else ["T", "static:0"], "from": "s"}
    var = ("var1", "var2") if swapped else ("var2", "var1")
    network = {
        "lin": {"class": "linear", "n_out": 6, "from": "data"},
        "s": frames,
        "q": whole,
        "e": {"class": "dot", "reduce": "F", var[0]: own, var[1]: None, "from": ["s", "q"] if swapped else ["q", "s"]},
        "output": {"class": "linear", "n_out": 2, "from": "e"},
    }
    net = rl.compile(network, {"data": {"dim": 4}}, "forward", behavior_version=21)
    assert net.params["output/W"].shape == (3, 2)
    out = net.run({"data": np.ones((2, 5, 4))}, {"data": [5, 3]}).layers["output"]
    assert sorted(out.value.shape) == [2, 2, 5]


def test_a_dot_without_static_dims_has_no_feature() -> None:
    network = {
        "e": {"class": "dot", "reduce": "F", "var1": "T", "var2": "T", "from": ["data", "data"]},
        "output": {"class": "activation", "activation": "softmax", "from": "e"},
    }
    with pytest.raises(rl.ConfigError, match="Use softmax_over_spatial with an axis"):
        rl.check({"network": network, "extern_data": {"data": {"dim": 4}}, "behavior_version": 21}, "forward")
