"""Affine maps and normalisation."""

import numpy as np
import pytest

from returnn_lite.layers.affine import BatchNorm, LayerNorm, Linear, Norm, Softmax
from returnn_lite.layers.base import LayerError
from tests.layers.harness import Bench, assert_frames_equal, draw, real_frames

X = draw(2, 3, 4)
W, BIAS = draw(4, 5, seed=1), draw(5, seed=2)


def frames(bench: Bench, size: int = 4):
    return bench.input("x", bench.batch, bench.time, bench.feature(size))


def test_linear() -> None:
    bench = Bench()
    y = bench.build(Linear(activation="tanh"), frames(bench), n_out=5)
    assert str(y.type) == "[B, T, probe:feature(5)]"
    assert bench.parameter_shapes() == {"probe/W": (4, 5), "probe/b": (5,)}
    got = bench.run(y, {"x": X}, parameters={"probe/W": W, "probe/b": BIAS})
    assert_frames_equal(got.value, np.tanh(X @ W + BIAS))


def test_linear_of_class_indices_selects_rows() -> None:
    bench = Bench()
    classes = bench.feature(4, "classes")
    x = bench.input("x", bench.batch, bench.time, dtype="int32", sparse=classes)
    y = bench.build(Linear(), x, n_out=5)
    labels = np.array([[0, 3, 1], [2, 2, 0]], "int32")
    assert y.type.sparse is None
    got = bench.run(y, {"x": labels}, parameters={"probe/W": W, "probe/b": BIAS})
    assert_frames_equal(got.value, W[labels] + BIAS)


def test_linear_transposed_without_bias() -> None:
    bench = Bench()
    y = bench.build(Linear(use_transposed_weights=True, with_bias=False), frames(bench), n_out=5)
    assert bench.parameter_shapes() == {"probe/W": (5, 4)}
    assert_frames_equal(bench.run(y, {"x": X}, parameters={"probe/W": W.T}).value, X @ W)


def test_linear_joins_sources() -> None:
    bench = Bench()
    other = bench.input("y", bench.batch, bench.time, bench.feature(2, "G"))
    y = bench.build(Linear(with_bias=False), frames(bench), other, n_out=5)
    second, weights = draw(2, 3, 2, seed=3), draw(6, 5, seed=4)
    got = bench.run(y, {"x": X, "y": second}, parameters={"probe/W": weights})
    assert_frames_equal(got.value, np.concatenate([X, second], -1) @ weights)


def test_linear_to_the_dim_of_its_source() -> None:
    bench = Bench()
    feature = bench.feature(4)
    y = bench.build(Linear(with_bias=False), bench.input("x", bench.batch, feature), n_out=feature)
    assert y.type.feature is feature
    weights = draw(4, 4, seed=5)
    np.testing.assert_allclose(
        bench.run(y, {"x": X[:, 0]}, parameters={"probe/W": weights}).value, X[:, 0] @ weights, rtol=1e-5, atol=1e-6
    )


def test_linear_is_the_same_in_a_loop() -> None:
    outside, inside = Bench(), Bench()
    y = outside.build(Linear(activation="relu"), frames(outside), n_out=5)
    x = frames(inside)
    with inside.loop() as stacks:
        stacks["y"] = inside.build(Linear(activation="relu"), inside.builder.element(x), n_out=5)
    given = {"probe/W": W, "probe/b": BIAS}
    expected = outside.run(y, {"x": X}, parameters=given).value
    got = inside.run(stacks["y"], {"x": X}, parameters=given)
    assert got.dims == (inside.batch, inside.time, stacks["y"].type.feature)
    assert_frames_equal(got.value, expected)


def test_linear_needs_features_and_a_size() -> None:
    bench = Bench()
    with pytest.raises(LayerError, match="no feature dim"):
        bench.build(Linear(), bench.input("t", bench.batch, bench.time), n_out=5)
    with pytest.raises(LayerError, match="the size of the output is not known"):
        bench.build(Linear(), frames(bench))


def test_softmax() -> None:
    bench = Bench()
    y = bench.build(Softmax(), frames(bench), n_out=5)
    got = bench.run(y, {"x": X}, parameters={"probe/W": W, "probe/b": BIAS}).value
    logits = np.exp(X @ W + BIAS)
    assert_frames_equal(got, logits / logits.sum(-1, keepdims=True))


def test_layer_norm() -> None:
    bench = Bench()
    y = bench.build(LayerNorm(epsilon=0.1), frames(bench))
    scale, bias = draw(4, seed=6), draw(4, seed=7)
    got = bench.run(y, {"x": X}, parameters={"probe/scale": scale, "probe/bias": bias}).value
    normal = (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + 0.1)
    assert_frames_equal(got, normal * scale + bias)


def test_norm_over_time_counts_real_frames_only() -> None:
    bench = Bench()
    y = bench.build(Norm(axis="T", scale=False, bias=False), frames(bench))
    got = bench.run(y, {"x": X}).value
    for row, frames_ in zip(real_frames(got), real_frames(X), strict=True):
        np.testing.assert_allclose(row, (frames_ - frames_.mean(0)) / np.sqrt(frames_.var(0) + 1e-6), rtol=1e-4)


def test_norm_needs_an_axis() -> None:
    with pytest.raises(LayerError, match="one of 'axis' and 'axes'"):
        bench = Bench()
        bench.build(Norm(), frames(bench))


# Batch norm: the expected numbers are SEMANTICS 8.1's rule running += (batch - running) * momentum.

REAL = np.concatenate(real_frames(X))
MEAN, VARIANCE = REAL.mean(0), REAL.var(0)
RUNNING = {"mean": draw(4, seed=8), "variance": np.abs(draw(4, seed=9)) + 0.5}


def normalized(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return (X - mean) / np.sqrt(variance + 1e-3)


def run_batch_norm(bench: Bench, layer: BatchNorm) -> np.ndarray:
    y = bench.build(layer, frames(bench))
    given = {f"probe/batch_norm/v2_{key}": value for key, value in RUNNING.items()}
    return bench.run(y, {"x": X}, parameters=given).value


def mixed(share: float, new: float) -> tuple[np.ndarray, np.ndarray]:
    return share * RUNNING["mean"] + new * MEAN, share * RUNNING["variance"] + new * VARIANCE


def test_batch_norm_in_training() -> None:
    bench = Bench(train=True)
    assert_frames_equal(run_batch_norm(bench, BatchNorm()), normalized(MEAN, VARIANCE))
    mean, variance = mixed(0.9, 0.1)
    np.testing.assert_allclose(bench.variables["probe/batch_norm/v2_mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(bench.variables["probe/batch_norm/v2_variance"], variance, rtol=1e-5)


def test_batch_norm_in_evaluation() -> None:
    bench = Bench()
    assert_frames_equal(run_batch_norm(bench, BatchNorm()), normalized(**RUNNING))
    np.testing.assert_array_equal(bench.variables["probe/batch_norm/v2_mean"], RUNNING["mean"])


def test_batch_norm_options() -> None:
    half = run_batch_norm(Bench(train=True), BatchNorm(use_sample=0.5))
    assert_frames_equal(half, normalized(*mixed(0.5, 0.5)))
    forced = run_batch_norm(Bench(), BatchNorm(force_sample=True))
    assert_frames_equal(forced, normalized(MEAN, VARIANCE))
    undelayed = BatchNorm(use_sample=1.0, delay_sample_update=False, momentum=0.3)
    assert_frames_equal(run_batch_norm(Bench(train=True), undelayed), normalized(*mixed(0.7, 0.3)))
    plain = Bench()
    plain.build(BatchNorm(use_std=False, use_shift=False), frames(plain))
    assert set(plain.parameter_shapes()) == {"probe/batch_norm/v2_mean", "probe/batch_norm/v2_variance"}


def test_batch_norm_before_behavior_version_12_updates_in_evaluation() -> None:
    got = run_batch_norm(Bench(behavior_version=11), BatchNorm(param_version=2))
    assert_frames_equal(got, normalized(*mixed(0.01, 0.99)))


@pytest.mark.parametrize(
    ("version", "name"), [(0, "probe/batch_norm/probe_probe_output_mean"), (1, "probe/batch_norm/mean")]
)
def test_batch_norm_older_parameters(version: int, name: str) -> None:
    bench = Bench(train=True)
    y = bench.build(BatchNorm(param_version=version), frames(bench))
    assert bench.parameter_shapes()[name] == (1, 1, 4)
    assert_frames_equal(bench.run(y, {"x": X}).value, normalized(MEAN, VARIANCE))
    np.testing.assert_allclose(bench.variables[name], 0.1 * MEAN[None, None], rtol=1e-4, atol=1e-6)


def test_batch_norm_has_the_same_parameters_in_a_loop() -> None:
    bench = Bench()
    x = frames(bench)
    with bench.loop() as stacks:
        stacks["y"] = bench.build(BatchNorm(param_version=1), bench.builder.element(x))
    assert set(bench.parameter_shapes().values()) == {(1, 1, 4)}


def test_batch_norm_mistakes() -> None:
    bench = Bench()
    with pytest.raises(LayerError, match="0, 1 or 2"):
        bench.build(BatchNorm(param_version=3), frames(bench))
    with pytest.raises(LayerError, match="feature dim only"):
        bench.build(BatchNorm(axes=["T"]), frames(bench))
