"""What TensorFlow's kernels do not take is reshaped around them, or refused before anything runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.compiled import Compiled
from returnn_lite.compiler import build, optimized

SHAPE = (None, 2, 1, 2, 1, 2, 3)
X = np.random.default_rng(0).normal(size=(2, 3, *SHAPE[1:])).astype("float32")
LENGTHS = [3, 2]


def run(layer: dict[str, Any], *, check_gradients: bool = True, **more: Any) -> rl.RunResult:
    """The layer's result for data of eight axes; its gradients are numbers."""
    data = {"data": {"shape": SHAPE}}
    loss = {"class": "cast", "dtype": "float32", "from": "output", "loss": "as_is"}
    network = {**more, "output": {"from": "data", "is_output_layer": True, **layer}, "loss": loss}
    net = rl.compile(network, data, "train", behavior_version=21)
    if check_gradients:
        assert all(np.isfinite(g).all() for g in net.gradients({"data": X}, {"data": LENGTHS}).values())
    return net.run({"data": X}, {"data": LENGTHS})


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ({"class": "activation", "activation": "softmax"}, lambda x: softmax(x, -1)),
        ({"class": "activation", "activation": "log_softmax"}, lambda x: np.log(softmax(x, -1))),
        ({"class": "softmax_over_spatial", "axis": "static:0"}, lambda x: softmax(x, 1)),
        ({"class": "softmax_over_spatial", "axis": "T"}, lambda x: softmax(x, 0)),
        ({"class": "reduce", "mode": "argmax", "axis": "static:0"}, lambda x: x.argmax(1)),
        ({"class": "reduce", "mode": "argmin", "axis": "T"}, lambda x: x.argmin(0)),
        ({"class": "reduce", "mode": "max", "axis": ["static:0", "F"]}, lambda x: x.max((1, 6))),
        ({"class": "cumsum", "axis": "T"}, lambda x: x.cumsum(0)),
        ({"class": "pad", "axes": ["T", "static:0"], "padding": 1, "mode": "reflect"}, lambda x: np.pad(
            x, [(1, 1), (1, 1)] + [(0, 0)] * 5, mode="reflect")),
        ({"class": "slice", "axis": "static:0", "slice_step": -1}, lambda x: x[:, ::-1]),
    ],
    ids=lambda value: str(value.get("activation") or value["class"]) if isinstance(value, dict) else "",
)  # fmt: skip
def test_eight_axes(layer: dict[str, Any], expected: Any) -> None:
    out = run(layer).layers["output"]
    for row, length in enumerate(LENGTHS):
        found = out.value[row]
        for axis, dim in enumerate(out.dims[1:]):
            if dim in out.seq_lens:
                found = np.take(found, range(out.seq_lens[dim][row]), axis)
        np.testing.assert_allclose(found, expected(X[row, :length]), rtol=1e-4, atol=1e-5)


def test_softmax_of_eight_axes_in_a_loop() -> None:
    """The state of a step has seven axes, and its gradient as many."""
    unit = {
        "output": {
            "class": "eval",
            "eval": "source(0) + tf.nn.softmax(source(1))",
            "from": ["data:source", "prev:output"],
        }
    }
    out = run({"class": "rec", "unit": unit}).layers["output"]
    steps = np.moveaxis(out.value, out.dims.index("data:time"), 1)
    np.testing.assert_allclose(steps[0, 1], X[0, 1] + softmax(X[0, 0] + 1 / 3, -1), rtol=1e-4)


@pytest.mark.parametrize(
    "layer",
    [
        {"class": "window", "window_size": 3},
        {"class": "self_attention", "num_heads": 1, "total_key_dim": 2, "n_out": 2},
        {"class": "expand_dims", "axis": "spatial", "dim": 2},
    ],
    ids=lambda layer: str(layer["class"]),
)
def test_nine_axes_are_refused_with_the_layer(layer: dict[str, Any]) -> None:
    with pytest.raises(
        rl.ConfigError, match=r"network.output: this needs (9|10) dims at once, but tensors have 8 at most"
    ):
        run(layer)


@pytest.mark.parametrize(
    "layer",
    [
        {"class": "copy"},
        {"class": "reduce", "mode": "max", "axis": "except_batch"},
        {"class": "merge_dims", "axes": ["T", "F"]},
    ],
    ids=lambda layer: str(layer["class"]),
)
def test_data_of_nine_axes_is_refused(layer: dict[str, Any]) -> None:
    network = {"output": {"from": "data", "is_output_layer": True, **layer}}
    config = {"network": network, "extern_data": {"data": {"shape": (*SHAPE, 2)}}, "behavior_version": 21}
    with pytest.raises(rl.ConfigError, match="this needs 9 dims at once"):
        rl.check(config, "forward")


@pytest.mark.parametrize("missing", [["T", "static:1", "static:3"], ["B", "static:0", "static:2"], ["T", "static:2"]])
def test_every_other_axis_is_broadcast(missing: list[str]) -> None:
    """TensorFlow takes five axes at most that alternate between what has them and what lacks them."""
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 3, 4, 5, 2, 3)).astype("float32")
    network = {
        "mean": {"class": "reduce", "mode": "mean", "axis": missing, "from": "data"},
        "chosen": {"class": "eval", "eval": "tf.where(source(0) > source(1), source(0), source(1))",
                   "from": ["data", "mean"]},
        "output": {"class": "combine", "kind": "sub", "from": ["chosen", "mean"], "loss": "as_is"},
    }  # fmt: skip
    net = rl.compile(network, {"data": {"shape": (None, *x.shape[2:])}}, "train", behavior_version=21)
    found = net.run({"data": x}, {"data": [3, 3]}).losses["output"].sum
    axes = tuple({"B": 0, "T": 1, **{f"static:{i}": 2 + i for i in range(5)}}[axis] for axis in missing)
    mean = x.mean(axes, keepdims=True)
    np.testing.assert_allclose(found, (np.maximum(x, mean) - mean).sum(), rtol=1e-4)


AXES = ["T", "static:0", "static:2", "static:4"]
FILTERS = {
    "conv": {"filter_size": [2, 2, 2, 2], "padding": "same", "n_out": 2},
    "pool": {"mode": "max", "pool_size": [2, 2, 2, 2]},
    "transposed_conv": {"filter_size": [2, 2, 2, 2], "n_out": 2},
}


@pytest.mark.parametrize("kind", FILTERS)
def test_filters_over_four_dims_are_refused(kind: str) -> None:
    with pytest.raises(rl.ConfigError, match="there are 4 spatial dims, but filters go over three at most"):
        run({"class": kind, "in_spatial_dims": AXES, **FILTERS[kind]})


@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("sizes", "strides"), [([1], 2), ([2], 3), ([1, 2], (3, 4)), ([3, 1], (2, 2))], ids=str)
def test_strides_larger_than_the_window(mode: str, padding: str, sizes: list[int], strides: Any) -> None:
    """Frames between the windows are left out, as with a convolution of the same sizes that sums."""
    axes = ["T", "static:0"][: len(sizes)]
    x = np.random.default_rng(1).normal(size=(2, 7, 5, 2)).astype("float32")
    where = {"from": "data", "in_spatial_dims": axes, "padding": padding, "strides": strides, "is_output_layer": True}
    network = {
        "conv": {"class": "conv", "filter_size": sizes, "groups": 2, "n_out": 2, "with_bias": False, **where},
        "sum": {"class": "pool", "mode": mode, "pool_size": sizes, **where},
        "output": {"class": "cast", "dtype": "float32", "from": "sum", "loss": "as_is"},
        "trained": {"class": "cast", "dtype": "float32", "from": "conv", "loss": "as_is"},
    }
    built = build(
        {"network": network, "extern_data": {"data": {"shape": (None, 5, 2)}}, "behavior_version": 21}, "train"
    )
    net = Compiled(built, optimized(built))
    net.executable.params["conv/W"].assign(np.ones(net.executable.params["conv/W"].shape))
    batch = net.checked_batch({"data": x}, {"data": [7, 3]})
    found, gradients = net.executable.run_with_gradients(batch.arrays, batch.lengths, of="objective")
    pooled, conv = found["layer:sum"], found["layer:conv"]
    assert pooled.value.shape == conv.value.shape
    assert [v.tolist() for v in pooled.lengths.values()] == [v.tolist() for v in conv.lengths.values()]
    if mode == "avg" and padding == "valid":  # no window reaches beyond the frames: the mean is the sum by the size
        np.testing.assert_allclose(pooled.value * np.prod(sizes), conv.value, rtol=1e-4, atol=1e-5)
    assert all(np.isfinite(g).all() for g in gradients.values())
