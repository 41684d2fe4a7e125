"""Layers over the batch in a loop: at each step of those sequences that have one, under masks of those at which it is
true. Optimised or not, searching or not, and as NumPy says for the batch of each step without the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.compiler import ModeName, build, optimized
from returnn_lite.config.diagnostics import ConfigError
from tests.loop.probing import (
    PLACES,
    SIZE,
    Layers,
    add,
    assert_per_step,
    assert_same,
    assert_same_in_tensorflow,
    assert_same_search,
    check,
    copy,
    decoder,
    feed_of,
    linear,
    refused,
)
from tests.properties.running import assert_equal, run


def of_x(name: str, **options: Any) -> dict[str, Any]:
    return {"class": name, "from": "x", **options}


PROBES: dict[str, Layers] = {
    **{
        f"reduce {mode}": {"y": of_x("reduce", mode=mode, axis="B"), "probe": add("x", "y")}
        for mode in ("sum", "mean", "max", "min", "prod", "logsumexp")
    },
    "reduce over batch and features": {"y": of_x("reduce", mode="mean", axes=["B", "F"]), "probe": add("x", "y")},
    "argmax": {
        "y": of_x("reduce", mode="argmax", axis="B"),
        "z": {"class": "gather", "axis": "B", "position": "y", "from": "x"},
        "probe": add("x", "z"),
    },
    "any": {
        "y": of_x("compare", kind="greater", value=0.3),
        "z": {"class": "reduce", "mode": "any", "axis": "B", "from": "y"},
        "zf": {"class": "cast", "dtype": "float32", "from": "z"},
        "probe": add("x", "zf"),
    },
    "norm": {"probe": of_x("norm", axis="B", param_shape="F")},
    "norm over batch and features": {"probe": of_x("norm", axis=["B", "F"], param_shape="F")},
    "softmax": {"probe": of_x("softmax_over_spatial", axis="B")},
    "log softmax": {"probe": of_x("softmax_over_spatial", axis="B", log_space=True)},
    "top_k": {
        "v": of_x("top_k", axis="B", k=2),
        "y": {"class": "eval", "eval": "tf.maximum(source(0), -1.0)", "from": "v"},
        "z": {"class": "reduce", "mode": "mean", "axis": "dim:2", "from": "y"},
        "probe": add("x", "z"),
    },
    "dot": {
        "y": linear("x", n_out=3),
        "z": {"class": "dot", "reduce": "B", "from": ["y", "x"]},
        "probe": {"class": "dot", "reduce": "dim:3", "from": ["y", "z"]},
    },
    "cumsum": {"probe": of_x("cumsum", axis="B")},
    "cumsum from the end": {"probe": of_x("cumsum", axis="B", reverse=True)},
    "gather": {"y": of_x("gather", axis="B", position=1), "probe": add("x", "y")},
    "shift": {"probe": of_x("shift_axis", axis="B", amount=1, adjust_size_info=False)},
    "window": {
        "y": of_x("window", axis="B", window_size=3),
        "z": {"class": "reduce", "mode": "max", "axis": "dim:3", "from": "y"},
        "probe": add("x", "z"),
    },
    "eval": {"probe": of_x("eval", eval="tf.nn.softmax(source(0), axis=0)")},
    "variance in eval": {"probe": of_x("eval", eval="source(0) - tf.reduce_mean(source(0), axis=0, keepdims=True)")},
    "pool": {"probe": of_x("pool", in_spatial_dims=["B"], mode="max", pool_size=[2], strides=1, padding="same")},
    "conv": {"probe": of_x("conv", in_spatial_dims=["B"], filter_size=[3], n_out=4, padding="same")},
}


EVERYWHERE = ("reduce mean", "argmax", "norm", "top_k", "dot", "cumsum")
CASES = [
    (name, place) for name in PROBES for place in PLACES if name in EVERYWHERE or place in ("labels", "masked cycle")
]


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("name", "place"), CASES)
def test_over_the_batch(name: str, place: str) -> None:
    check(PROBES[name], place)


INNER: dict[str, Layers] = {
    "norm over batch and frames": {"probe": of_x("norm", axis=["B", "T"], param_shape="F")},
    "norm of each frame": {"probe": of_x("norm", axis="B", param_shape="F")},
    "mean over batch and frames": {"y": of_x("reduce", mode="mean", axes=["B", "T"]), "probe": add("x", "y")},
    "cumsum of each frame": {"probe": of_x("cumsum", axis="B")},
    "dot over both": {
        "y": {"class": "dot", "reduce": ["B", "T"], "from": ["x", "x2"]},
        "x2": {"class": "reinterpret_data", "from": "x0", "set_axes": {}},
        "x0": linear("x", n_out=3),
        "probe": {"class": "dot", "reduce": "dim:3", "from": ["x2", "y"]},
    },
}


@pytest.mark.parametrize("place", ["frames", "cycle", "masked"])
@pytest.mark.parametrize("name", INNER)
def test_of_inner_frames(name: str, place: str) -> None:
    """Of values with frames of their own only real ones take part, those of a batch without the others."""
    check(INNER[name], place, inner=True)


@pytest.mark.parametrize("place", ["labels", "cycle", "masked"])
@pytest.mark.parametrize(
    ("layer", "made"),
    [
        (of_x("slice", axis="B", slice_start=1), "slice along B gives B-1"),
        (of_x("pad", axes="B", padding=1), "pad along B gives"),
        (of_x("pool", in_spatial_dims=["B"], mode="max", pool_size=[2]), "pool along B gives"),
    ],
)
def test_a_batch_of_another_size_is_refused(layer: dict[str, Any], made: str, place: str) -> None:
    """How many take part differs from step to step: what is made of them has no dim of the graph."""
    refused({"y": layer, "probe": linear("x")} | {"z": copy("y"), "probe": add("x", "z")}, place, made)


@pytest.mark.parametrize("place", ["frames", "labels", "cycle"])
def test_over_what_is_merged_with_the_batch(place: str) -> None:
    """Of a merged batch, too, those take part whose sequence has not ended."""
    split = of_x("split_dims", axis="F", dims=(2, 2))
    merged = {"class": "merge_dims", "axes": ["B", "stag:split0"], "from": "pairs"}
    mean = {"class": "reduce", "mode": "mean", "axis": "B", "from": "merged"}
    wide = {"class": "tile", "multiples": {"F": 2}, "from": "mean"}
    probe = {"pairs": split, "merged": merged, "mean": mean, "wide": wide, "probe": add("x", "wide")}
    config = decoder(probe, place)
    modes: tuple[ModeName, ...] = ("eval", "search")
    for mode in modes:
        built = build(config, mode, targets=mode != "search")
        feed = feed_of(config, built)
        graphs = [optimized(built, True), optimized(built, False), *([built.graph] if mode == "eval" else [])]
        found = [run(built, graph, *feed) for graph in graphs]
        for one in found:  # where it is real no longer shows in its dims
            one.pop("layer:output/merged", None)
        for one in found[:-1]:
            assert_equal(one, found[-1])


def test_what_is_merged_with_the_batch_is_refused_under_a_mask() -> None:
    """There each sequence is at a step of its own."""
    merged = {"class": "merge_dims", "axes": ["B", "F"], "from": "x"}
    mean = {"class": "reduce", "mode": "mean", "axis": "B", "from": "merged"}
    refused({"merged": merged, "mean": mean, "probe": add("x", "mean")}, "masked", "is not known: compute")


@pytest.mark.parametrize("place", ["labels", "cycle"])
def test_frames_merged_with_the_batch_are_refused(place: str) -> None:
    """How many they are is a matter of the longest of all sequences."""
    merged = {"class": "merge_dims", "axes": ["B", "T"], "from": "x"}
    mean = {"class": "reduce", "mode": "mean", "axis": "B", "from": "merged"}
    refused({"merged": merged, "mean": mean, "probe": add("x", "mean")}, place, "is not known: compute", inner=True)


def test_padding_merged_with_the_batch_takes_no_part() -> None:
    """Over pairs of vectors of each frame, by hand."""
    network = {
        "pairs": {"class": "split_dims", "axis": "F", "dims": (2, 2), "from": "data"},
        "merged": {"class": "merge_dims", "axes": ["B", "stag:split0"], "from": "pairs"},
        "mean": {"class": "reduce", "mode": "mean", "axis": "B", "from": "merged", "is_output_layer": True},
        "output": copy("data"),
    }
    x = np.random.default_rng(1).normal(size=(2, 3, SIZE)).astype("float32")
    net = rl.compile(network, {"data": {"dim": SIZE}}, mode="forward", behavior_version=21)
    found = net.run({"data": x}, {"data": [3, 1]}).layers["mean"].value
    expected = [
        np.concatenate([x[b, t].reshape(2, 2) for b, n in enumerate((3, 1)) if t < n]).mean(0) for t in range(3)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


NESTED = {"norm": of_x("norm", axis="B", param_shape="F"), "sum": of_x("cumsum", axis="B")}


def nested(layer: dict[str, Any], masked: bool) -> dict[str, Any]:
    """A layer over the batch in a loop over the frames of `memory`, in each step of a loop over the labels."""
    inner = {"x": linear("data:source", "prev:output"), "y": layer, "output": add("x", "y")}
    loop = {"class": "rec", "from": "data" if masked else "read", "unit": inner}
    unit = {
        "step": linear("data:source", "prev:mean"),
        "read": {**add("base:memory", "step"), "allow_broadcast_all_sources": True},
        "mask": {"class": "compare", "kind": "greater", "value": 0, "from": "label"},
        "label": copy("data:classes"),
        "inner": {"class": "masked_computation", "mask": "mask", "from": "read", "unit": loop} if masked else loop,
        "mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "inner"},
        "output": copy("mean"),
    }
    return {
        "behavior_version": 21,
        "extern_data": {"data": {"dim": 4}, "classes": {"dim": 5, "sparse": True}},
        "network": {
            "memory": linear("data"),
            "embed": {"class": "linear", "n_out": 4, "from": "data:classes"},
            "output": {"class": "rec", "from": "embed", "unit": unit},
        },
    }


@pytest.mark.parametrize("name", NESTED)
def test_in_a_loop_in_a_loop(name: str) -> None:
    """Of the sequences that have a step of both."""
    assert_per_step(nested(NESTED[name], masked=False))


def test_in_a_loop_under_a_mask() -> None:
    """There sequences are at different steps of the loop around: the layer is told to leave."""
    with pytest.raises(ConfigError, match="each sequence is at a step of its own"):
        build(nested(NESTED["norm"], masked=True), "eval")


def behind(layer: dict[str, Any], place: str = "labels", **choice: Any) -> dict[str, Any]:
    """A decoder that shows a layer over the batch, of its labels' vectors, which no search needs."""
    config = decoder({"probe": copy("x")}, place)
    unit = config["network"]["output"]["unit"]
    shown = {"shown": {**layer, "from": "embed", "is_output_layer": True}}
    unit |= {**shown, "after": {**add("shown", "embed"), "is_output_layer": True}}
    unit["embed"]["is_output_layer"] = True
    unit["output"] |= choice
    return config


SHOWN: dict[str, dict[str, Any]] = {
    "mean": {"class": "reduce", "mode": "mean", "axis": "B"},
    "first": {"class": "gather", "axis": "B", "position": 0},
    "norm": {"class": "norm", "axis": "B", "param_shape": "F"},
    "cumsum": {"class": "cumsum", "axis": "B"},
}


@pytest.mark.parametrize("name", SHOWN)
def test_hypotheses_meet_in_their_step(name: str) -> None:
    """Those of the same rank, also where the search needs nothing of what they make."""
    assert_same_search(behind(SHOWN[name]))
    assert_same_in_tensorflow(behind(SHOWN[name]), ["search"])


@pytest.mark.parametrize("name", SHOWN)
def test_hypotheses_meet_in_training(name: str) -> None:
    """Minimum-risk training."""
    risk = {"class": "edit_distance"}
    expected = {"class": "copy", "from": "output", "loss": "expected_loss"}
    config = behind(SHOWN[name], search=True)
    config["network"]["risk"] = {**expected, "loss_opts": {"loss": risk, "loss_kind": "error"}}
    config["network"]["output"]["unit"]["after"] |= {"loss": "as_is"}
    assert_same(config, ["train"])


@pytest.mark.parametrize("optimize", [True, False])
def test_one_hypothesis_a_sequence(optimize: bool) -> None:
    """A greedy search: the mean over the sequences that are at the step, by hand."""
    config = behind(SHOWN["mean"], "frames", beam_size=1)
    built = build(config, "search", targets=False)
    found = run(built, optimized(built, optimize), *feed_of(config, built))
    embed, mean = (found[f"layer:output/{name}"] for name in ("embed", "shown"))
    dims = tuple(next(dim for dim in embed.dims if word in dim.name) for word in ("B", "time", "beam", "feature"))
    vectors = embed.over(dims)
    there = (vectors != 0).any((2, 3))
    assert there.any() and not there.all(), "some end before others"
    wanted = np.where(there[..., None, None], vectors, 0).sum(0) / np.maximum(there.sum(0), 1)[:, None, None]
    for sequence in range(len(vectors)):
        result = mean.over(dims)[sequence]
        np.testing.assert_allclose(result[there[sequence]], wanted[there[sequence]], rtol=1e-7)


@pytest.mark.parametrize("layer", [SHOWN["mean"], SHOWN["cumsum"]], ids=["mean", "cumsum"])
def test_lengths_that_differ_along_a_static_dim(layer: dict[str, Any]) -> None:
    """As many frames as two numbers of each sequence say, over the sequences that have them, by hand."""
    counts = np.array([[1, 3], [2, 2], [4, 0]], "int32")
    network = {
        "range": {"class": "range_from_length", "from": "data", "dtype": "float32"},
        "more": {"class": "eval", "eval": "source(0) + tf.cast(source(1), tf.float32)", "from": ["range", "data"]},
        "output": {**layer, "from": "more"},
    }
    frames = np.arange(4)
    there = frames < counts[:, :, None]
    vectors = np.where(there, frames + counts[:, :, None], 0)
    expected = np.where(there, vectors.cumsum(0), 0)
    if layer["class"] == "reduce":
        expected = vectors.sum(0) / np.maximum(there.sum(0), 1)
    for optimize in (True, False):
        extern = {"data": {"shape": (2,), "dim": 2, "dtype": "int32", "time_dim_axis": None}}
        net = rl.compile(network, extern, "forward", behavior_version=21, optimize=optimize)
        output = net.run({"data": counts}, {}).layers["output"]
        np.testing.assert_allclose(np.swapaxes(output.value, -1, -2), expected, rtol=1e-6)


def test_right_values() -> None:
    """The mean over the batch of each step, by hand."""
    unit = {"y": {"class": "reduce", "mode": "mean", "axis": "B", "from": "data:source"}, "output": copy("y")}
    network = {"output": {"class": "rec", "from": "data", "unit": unit}}
    data, lengths = np.random.default_rng(0).normal(size=(3, 4, 2)), [4, 1, 3]
    there = np.arange(4) < np.array(lengths)[:, None]
    wanted = np.where(there[..., None], data, 0).sum(0) / there.sum(0)[:, None]
    for optimize in (True, False):
        net = rl.compile(network, {"data": {"dim": 2}}, "forward", behavior_version=21, optimize=optimize)
        output = net.run({"data": data.astype("float32")}, {"data": lengths}).layers["output"]
        assert "B" not in output.dims
        np.testing.assert_allclose(output.value, wanted, atol=1e-6)


@pytest.mark.parametrize("mode", ["max", "min", "logsumexp"])
def test_where_nobody_takes_part(mode: str) -> None:
    """At a step at which a mask is true for no sequence there is no largest one, and gradients are numbers all the
    same: nobody reads it."""
    over = {"class": "reduce", "mode": mode, "axis": "B", "from": "data"}
    inside = {"over": over, "output": linear("over", "data", n_out=2)}
    unit = {
        "above": {"class": "compare", "from": "data:source", "kind": "greater", "value": 0.0},
        "mask": {"class": "reduce", "mode": "any", "axis": "F", "from": "above"},
        "masked": {
            "class": "masked_computation",
            "mask": "mask",
            "from": "data:source",
            "unit": {"class": "subnetwork", "from": "data", "subnetwork": inside},
        },
        "output": add("masked", "prev:output"),
    }
    network = {"output": {"class": "rec", "from": "data", "unit": unit, "loss": "as_is"}}
    data = np.array([[1, -1, 2, 1], [3, -2, -1, 0]], "float32")[..., None] * np.ones(2, "float32")
    found = []
    for optimize in (True, False):
        net = rl.compile(network, {"data": {"dim": 2}}, "train", behavior_version=21, optimize=optimize)
        for variable in net.params.values():
            variable.assign(np.linspace(-1, 1, variable.numpy().size).reshape(variable.shape))
        found.append(net.gradients({"data": data}, {"data": [4, 3]}))
    assert found[0]
    for name, gradient in found[0].items():
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, name
        np.testing.assert_allclose(gradient, found[1][name], rtol=1e-5, err_msg=name)
