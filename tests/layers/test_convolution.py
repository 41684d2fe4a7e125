"""Convolution, transposed convolution and pooling, each sequence compared with itself alone."""

import numpy as np
import pytest

from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerError
from returnn_lite.layers.convolution import Conv, Pool, TransposedConv
from tests.layers.harness import Bench, draw

LENGTHS = (7, 4)
X = draw(2, 7, 4)


def frames(bench: Bench) -> View:
    return bench.input("x", bench.batch, bench.time, bench.feature(4))


def padding(length: int, size: int, stride: int, dilation: int, kind: str | int) -> tuple[int, int]:
    if kind == "valid":
        return 0, 0
    if isinstance(kind, int):
        return kind, kind
    if kind == "same_static":
        total = (size - 1) * dilation
        return (total + 1 - stride) // 2, total - (total + 1 - stride) // 2
    total = max((-(-length // stride) - 1) * stride + (size - 1) * dilation + 1 - length, 0)
    return total // 2, total - total // 2


def windows(row: np.ndarray, size: int, stride: int, dilation: int, kind: str | int, fill: float) -> list[np.ndarray]:
    """The frames [size, F] under the filter at each output frame of one sequence [T, F]."""
    left, right = padding(len(row), size, stride, dilation, kind)
    padded = np.pad(row, [(left, right), (0, 0)], constant_values=fill)
    reach = (size - 1) * dilation + 1
    return [padded[t : t + reach : dilation] for t in range(0, len(padded) - reach + 1, stride)]


def compare(bench: Bench, layer: Layer, expected: list[np.ndarray], parameters: dict, n_out: int | None) -> None:
    y = bench.build(layer, frames(bench), n_out=n_out)
    got = bench.run(y, {"x": X}, parameters=parameters, lengths=LENGTHS)
    assert [len(rows) for rows in expected] == list(next(iter(got.lengths.values())))
    for row, wanted in zip(got.value, expected, strict=True):
        np.testing.assert_allclose(row[: len(wanted)], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["same", "valid", "same_static", 1])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_conv(kind: str | int, stride: int, dilation: int) -> None:
    weights, bias = draw(3, 4, 5, seed=1), draw(5, seed=2)
    expected = [
        np.array([np.tensordot(w, weights, 2) + bias for w in windows(row[:n], 3, stride, dilation, kind, 0.0)])
        for row, n in zip(X, LENGTHS, strict=True)
    ]
    expected = [rows.reshape(-1, 5) for rows in expected]
    layer = Conv(filter_size=(3,), padding=kind, strides=stride, dilation_rate=dilation)
    compare(Bench(), layer, expected, {"probe/W": weights, "probe/bias": bias}, 5)


@pytest.mark.parametrize(("size", "stride", "dilation"), [(3, 1, 1), (4, 1, 1), (4, 2, 1), (3, 1, 2)])
@pytest.mark.parametrize("over_frames", [False, True])
def test_conv_over_a_dim_of_one_size(size: int, stride: int, dilation: int, over_frames: bool) -> None:
    """Whose padding TensorFlow knows itself; each frame of a sequence by itself, too."""
    bench, weights, x = Bench(), draw(size, 4, 5, seed=1), draw(2, 7, 6, 4) if over_frames else draw(2, 6, 4)
    dims = (bench.batch, *((bench.time,) if over_frames else ()), bench.spatial("bands", 6), bench.feature(4))
    options = {"strides": stride, "dilation_rate": dilation, "in_spatial_dims": ("stag:bands",)}
    layer = Conv(filter_size=(size,), padding="same", with_bias=False, **options)
    y = bench.build(layer, bench.input("x", *dims), n_out=5)
    lengths = (7, 7) if over_frames else ()
    got = bench.run(y, {"x": x}, parameters={"probe/W": weights}, lengths=lengths).value
    rows = [windows(row, size, stride, dilation, "same", 0.0) for row in x.reshape(-1, 6, 4)]
    expected = np.array([[np.tensordot(w, weights, 2) for w in row] for row in rows])
    np.testing.assert_allclose(got, expected.reshape(got.shape), rtol=1e-4, atol=1e-5)


def test_depthwise() -> None:
    weights = draw(3, 1, 4, seed=3)
    expected = [
        np.array([(w * weights[:, 0]).sum(0) for w in windows(row[:n], 3, 1, 1, "same", 0.0)])
        for row, n in zip(X, LENGTHS, strict=True)
    ]
    layer = Conv(filter_size=(3,), padding="SAME", groups=4, with_bias=False)
    compare(Bench(), layer, expected, {"probe/W": weights}, 4)


def test_bias_depends_on_the_behavior_version() -> None:
    for version, names in ((9, {"probe/W"}), (10, {"probe/W", "probe/bias"})):
        bench = Bench(behavior_version=version)
        bench.build(Conv(filter_size=(3,), padding="same"), frames(bench), n_out=5)
        assert set(bench.parameter_shapes()) == names


@pytest.mark.parametrize(
    ("options", "type_", "shape"),
    [
        ({"input_expand_dims": 1}, "[B, T, probe:expanded0(1), probe:feature(5)]", (3, 2, 4, 5)),
        ({"input_add_feature_dim": True}, "[B, T, F(4), probe:feature(5)]", (3, 2, 1, 5)),
        ({"input_split_feature_dim": 2}, "[B, T, probe:split(2), probe:feature(5)]", (3, 2, 2, 5)),
    ],
)
def test_added_dims(options: dict, type_: str, shape: tuple[int, ...]) -> None:
    bench = Bench()
    y = bench.build(Conv(filter_size=(3, 2), padding="same", **options), frames(bench), n_out=5)
    assert str(y.type) == type_
    assert bench.parameter_shapes()["probe/W"] == shape


def test_two_spatial_dims() -> None:
    bench = Bench()
    x = bench.input("x", bench.batch, bench.time, bench.spatial("bands", 6), bench.feature(2))
    y = bench.build(Conv(filter_size=(1, 2), padding="valid", strides=(1, 2)), x, n_out=3)
    given, weights = draw(2, 7, 6, 2, seed=4), draw(1, 2, 2, 3, seed=5)
    got = bench.run(y, {"x": given}, parameters={"probe/W": weights}, lengths=LENGTHS).value
    expected = np.einsum("btkwf,wfo->btko", given.reshape(2, 7, 3, 2, 2), weights[0])
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got[1, :4], expected[1, :4], rtol=1e-4, atol=1e-5)


def test_other_dims_are_batch_dims_if_the_axes_are_named() -> None:
    bench = Bench()
    x = bench.input("x", bench.batch, bench.time, bench.spatial("bands", 6), bench.feature(2))
    y = bench.build(Conv(filter_size=(3,), padding="same", in_spatial_dims=("T",)), x, n_out=3)
    assert str(y.type) == "[B, T, bands(6), probe:feature(3)]"


def test_layers_as_filter_and_bias() -> None:
    bench = Bench()
    weights, bias = draw(3, 4, 5, seed=1), draw(5, seed=2)
    bench.input("w", bench.spatial("w0", 3), bench.spatial("w1", 4), bench.feature(5, "w2"))
    bench.input("b", bench.feature(5, "b0"))
    y = bench.build(Conv(filter_size=(3,), padding="same", filter="w", bias="b"), frames(bench), n_out=5)
    assert bench.parameter_shapes() == {}
    got = bench.run(y, {"x": X, "w": weights, "b": bias}, lengths=LENGTHS).value
    expected = [np.tensordot(w, weights, 2) + bias for w in windows(X[0], 3, 1, 1, "same", 0.0)]
    np.testing.assert_allclose(got[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("mode", "function"), [("max", np.max), ("avg", np.mean)])
@pytest.mark.parametrize(("kind", "stride"), [("same", None), ("valid", None), ("same", 1)])
def test_pool_looks_at_real_frames_only(mode: str, function: np.ufunc, kind: str, stride: int | None) -> None:
    nothing = np.nan
    reducer = {np.max: np.nanmax, np.mean: np.nanmean}[function]
    expected = [
        np.array([reducer(w, 0) for w in windows(row[:n], 3, stride or 3, 1, kind, nothing)])
        for row, n in zip(X, LENGTHS, strict=True)
    ]
    layer = Pool(mode=mode, pool_size=(3,), padding=kind, strides=stride)
    compare(Bench(), layer, expected, {}, None)


def test_pool_of_one_is_the_source() -> None:
    bench = Bench()
    x = frames(bench)
    assert bench.build(Pool(mode="max", pool_size=(1,)), x) is x


def transposed(row: np.ndarray, weights: np.ndarray, stride: int) -> np.ndarray:
    """Transposed convolution of [T, F] with [size, out, F], nothing cut off."""
    size = len(weights)
    out = np.zeros((len(row) * stride + max(size - stride, 0), weights.shape[1]))
    for t, frame in enumerate(row):
        out[t * stride : t * stride + size] += weights @ frame
    return out


@pytest.mark.parametrize(
    ("size", "stride", "kind", "removed"),
    [(3, 3, "same", 0), (3, 2, "same", 0), (4, 2, "same", 0), (3, 2, "valid", 0), (3, 2, "same", 1), (2, 3, "same", 0)],
)
def test_transposed_conv(size: int, stride: int, kind: str, removed: int) -> None:
    weights = draw(size, 1, 5, 4, seed=6)
    overlap = max(size - stride, 0) if kind == "same" else 0
    left, right = overlap // 2 + removed, overlap - overlap // 2 + removed
    expected = []
    for row, n in zip(X, LENGTHS, strict=True):
        whole = transposed(row[:n], weights[:, 0], stride)
        expected.append(whole[left : len(whole) - right])
    layer = TransposedConv(
        filter_size=(size,), strides=(stride,), padding=kind, remove_padding=removed, with_bias=False
    )
    compare(Bench(), layer, expected, {"probe/W_native_transposed_conv": weights}, 5)


@pytest.mark.parametrize(
    ("size", "stride", "kind", "more", "removed"),
    [
        *[(3, 3, "same", more, 0) for more in (0, 1, 2)],
        *[(3, 2, "same", more, 1) for more in (0, 1)],
        *[(4, 3, "same", more, 0) for more in (1, 2, 3)],
        *[(1, 3, "same", more, 0) for more in (0, 1, 2)],
        *[(3, 2, "valid", more, 0) for more in (0, 1)],
        *[(2, 3, "valid", more, 1) for more in (0, 1, 2)],
    ],
)
def test_output_padding(size: int, stride: int, kind: str, more: int, removed: int) -> None:
    """It is the gradient of the convolution from that length to the input's, sequence by sequence."""
    weights = draw(size, 1, 5, 4, seed=6)
    expected = []
    for row, n in zip(X, LENGTHS, strict=True):
        length = (n - 1) * stride + size - 2 * (size // 2 if kind == "same" else 0) + more
        left, right = padding(length, size, stride, 1, kind)
        out = np.zeros((left + length + right, 5))
        for t in range(n):
            out[t * stride : t * stride + size] += weights[:, 0] @ row[t]
        expected.append(out[left + removed : left + length - removed])
    layer = TransposedConv(
        filter_size=(size,),
        strides=(stride,),
        padding=kind,
        output_padding=more,
        remove_padding=removed,
        with_bias=False,
    )
    compare(Bench(), layer, expected, {"probe/W_native_transposed_conv": weights}, 5)


@pytest.mark.parametrize("perm", [{"dim:5": "dim:3", "dim:3": "dim:5"}, {0: "dim:3", 2: "dim:5"}, {0: "dim:3"}])
def test_filter_perm(perm: dict[str | int, str]) -> None:
    weights = draw(5, 4, 3, seed=1)  # out, in, filter; W is filter, in, out
    order = (2, 0, 1) if len(perm) == 1 else (2, 1, 0)
    plain = weights.transpose(order)
    bench = Bench()
    bench.input("w", bench.feature(5, "w2"), bench.spatial("w1", 4), bench.spatial("w0", 3))
    if len(perm) == 1:
        layer, n_out = TransposedConv(filter_size=(3,), filter="w", filter_perm=perm, with_bias=False), 5
        expected = transposed(X[0], plain, 3)
    else:
        layer, n_out = Conv(filter_size=(3,), padding="same", filter="w", filter_perm=perm, with_bias=False), 5
        expected = np.array([np.tensordot(w, plain, 2) for w in windows(X[0], 3, 1, 1, "same", 0.0)])
    y = bench.build(layer, frames(bench), n_out=n_out)
    got = bench.run(y, {"x": X, "w": weights}, lengths=LENGTHS).value
    np.testing.assert_allclose(got[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Conv(filter_size=(3, 3), padding="same"), "2 filter sizes, but 1 spatial dims"),
        (Conv(filter_size=(3,), padding="sane"), "padding is same"),
        (Conv(filter_size=(3,), padding="same", groups=3), "3 groups"),
        (Conv(filter_size=(3,), padding="same", strides=(1, 2)), "expected 1 numbers"),
        (Conv(filter_size=(3,), padding="same", input_split_feature_dim=3), "parts of 3"),
        (TransposedConv(filter_size=(3,), padding="full"), "same or valid"),
        (TransposedConv(filter_size=(3,), strides=2, output_padding=2), "output_padding is 2, not 0 to 1"),
        (TransposedConv(filter_size=(4,), strides=2, output_padding=0), "output_padding is 0, not 1 to 2"),
        (TransposedConv(filter_size=(3,), output_padding=(0, 1)), "expected 1 numbers"),
        (Pool(mode="max", pool_size=(2, 2)), "2 filter sizes"),
    ],
)
def test_mistakes(layer: Layer, message: str) -> None:
    bench = Bench()
    with pytest.raises(LayerError, match=message):
        bench.build(layer, frames(bench), n_out=5)
