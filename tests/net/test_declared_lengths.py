"""Dims that a config declares have lengths: of the data, by key, name or object, or of the layer that makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

X = np.random.default_rng(0).normal(size=(3, 4, 2)).astype("float32")
LENGTHS = [4, 0, 3]
SUM = {"class": "reduce", "mode": "sum", "from": "data"}
B = rl.Dim("mine", rl.DimKind.BATCH)
T = rl.Dim("t")
F = rl.Dim("f", rl.DimKind.FEATURE, 2)
DECLARED: Mapping[str, dict[str, Any]] = {
    "same_dim_tags_as": {"dim": 2, "same_dim_tags_as": {"t": T}},
    "shape": {"shape": (T, 2)},
    "dim_tags": {"dim_tags": [B, T, F]},
    "dim_tags that say what it varies over": {"dim_tags": [B, rl.Dim("t", varies_over=(B,)), F]},
}


def compiled(layer: Mapping[str, Any], data: Mapping[str, Any], mode: Any = "eval", **more: Any) -> rl.Network:
    return rl.compile({"output": layer, **more}, {"data": data}, mode, behavior_version=21)


@pytest.mark.parametrize("entry", DECLARED.values(), ids=DECLARED.keys())
@pytest.mark.parametrize("optimize", [True, False])
def test_a_declared_time_has_the_lengths_of_its_sequences(entry: dict[str, Any], optimize: bool) -> None:
    expected = [X[i, :length].sum(0) for i, length in enumerate(LENGTHS)]
    net = rl.compile({"output": {**SUM, "axes": "T"}}, {"data": entry}, "eval", behavior_version=21, optimize=optimize)
    for lengths in ({"data": LENGTHS}, {"t": LENGTHS}, {"data": {"T": LENGTHS}}):
        out = net.run({"data": X}, lengths).layers["output"]
        np.testing.assert_allclose(out.value, expected, rtol=1e-5)


def test_the_dim_itself_names_the_axis_in_options_and_lengths() -> None:
    """Each network has dims of its own: the same objects do for several."""
    for _ in range(2):
        net = compiled({**SUM, "axes": T}, DECLARED["same_dim_tags_as"])
        out = net.run({"data": X}, {T: LENGTHS}).layers["output"]
        np.testing.assert_allclose(out.value[2], X[2, :3].sum(0), rtol=1e-5)
    assert T.over == ()


def test_the_batch_that_a_config_declares_is_the_networks() -> None:
    net = compiled({**SUM, "axes": B}, DECLARED["dim_tags"])
    out = net.run({"data": X}, {"data": LENGTHS}).layers["output"]
    np.testing.assert_allclose(out.value[3], X[0, 3], rtol=1e-5)


def test_two_keys_with_one_dim() -> None:
    data = {"data": {"shape": (T, 2)}, "more": {"shape": (T,), "dtype": "int32", "available_for_inference": True}}
    network = {"output": {"class": "combine", "kind": "add", "from": ["data", "data:more"]}}
    net = rl.compile(network, data, "forward", behavior_version=21)
    feed = {"data": X, "more": np.ones((3, 4))}
    out = net.run(feed, {"more": LENGTHS}).layers["output"]
    np.testing.assert_allclose(out.value[2], np.append(X[2, :3] + 1, np.zeros((1, 2)), axis=0), rtol=1e-5)
    with pytest.raises(
        ValueError, match=r"'data' and 'more' share the dim t, .*: sequence 1 has 0 frames of 'data' and 1 of 'more'"
    ):
        net.run(feed, {"data": LENGTHS, "more": [4, 1, 3]})


def test_lengths_over_the_frames_of_another_dim() -> None:
    """Words of characters: a word of each sequence has as many as it has."""
    words = rl.Dim("words")
    characters = rl.Dim("characters", varies_over=(B, words))
    data = {"dim_tags": [B, words, characters], "dtype": "float32"}
    x = np.random.default_rng(1).normal(size=(2, 3, 4)).astype("float32")
    counts = np.array([[4, 0, 2], [1, 3, 0]])
    net = compiled({"class": "reduce", "mode": "sum", "axes": characters, "from": "data"}, data)
    out = net.run({"data": x}, {words: [3, 2], characters: counts}).layers["output"]
    expected = [[x[i, j, : counts[i, j]].sum() if j < (3, 2)[i] else 0 for j in range(3)] for i in range(2)]
    np.testing.assert_allclose(out.value, expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"has shape \[2\], but needs \[2, 3\], for they vary over B, words"):
        net.run({"data": x}, {words: [3, 2], characters: [4, 4]})


PLANE = {"dim": 1, "shape": [None, None, 1]}
ROWS = np.random.default_rng(2).normal(size=(2, 3, 4, 1)).astype("float32")


@pytest.mark.parametrize(
    "lengths",
    [
        {"data": {"T": [3, 2], "spatial:1": [2, 4]}},
        {"data": {"time": [3, 2], "time1": [2, 4]}},
        {"data": [3, 2], "data:time1": [2, 4]},
        {"data:time": [3, 2], "data:time1": [2, 4]},
    ],
    ids=str,
)
def test_lengths_of_a_second_dynamic_axis(lengths: Mapping[Any, Any]) -> None:
    net = compiled(
        {**SUM, "axes": ["T", "spatial:1"]}, PLANE, length={"class": "length", "axis": "spatial:1", "from": "data"}
    )
    out = net.run({"data": ROWS}, lengths).layers
    np.testing.assert_allclose(
        out["output"].value, [ROWS[0, :3, :2].sum((0, 1)), ROWS[1, :2, :4].sum((0, 1))], rtol=1e-5
    )
    whole = compiled({"class": "copy", "from": "data"}, PLANE).run({"data": ROWS}, lengths).layers["output"]
    again = net.run({"data": ROWS}, whole.seq_lens).layers["output"].value  # results call the lengths as inputs do
    np.testing.assert_array_equal(again, out["output"].value)


def test_without_lengths_of_a_second_axis_all_are_as_long_as_the_array() -> None:
    net = compiled({"class": "length", "axis": "spatial:1", "from": "data"}, PLANE)
    assert net.run({"data": ROWS}, {"data": [3, 2]}).layers["output"].value.tolist() == [4, 4]


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ({}, "seq_lens has no 'data'"),
        (
            {"data": {"T": [3, 2], "spatial:3": [2, 1]}},
            "'data': axis 'spatial:3' of .*'spatial' is data:time and data:time1",
        ),
        ({"data": [3, 2], "data:tim1": [2, 1]}, "no dynamic dim of that name. Did you mean 'data:time1'?"),
        ({"data": {"T": [3, 2], "static:0": [1, 1]}}, "the length of data:feature does not vary in"),
        ({"data": [3, 4]}, "'data' do not fit its array of 3 frames: sequence 1 has 4 frames"),
        ({"data": [3, -1]}, "sequence 1 has -1 frames, which cannot be"),
        (
            {"data": {"T": [3, 2], "spatial:1": [4, 5]}},
            "'data, spatial:1' .* array of 4 frames: sequence 1 has 5 frames",
        ),
        ({"data": [3, 2], "data:time1": [4, 5]}, "'data' has 4 frames along data:time1: sequence 1 has 5 frames"),
        ({"data": [3, 2, 2]}, r"'data' has shape \[3\], but the batch has 2 sequences"),
        ({"data": [2.5, 2]}, "'data' are float64, but must be whole numbers"),
    ],
)
def test_lengths_that_do_not_fit(lengths: Mapping[Any, Any], message: str) -> None:
    net = compiled({**SUM, "axes": "T"}, PLANE)
    with pytest.raises(ValueError, match=message):
        net.run({"data": ROWS}, lengths)


MAKERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "reinterpret_data": ("set_dim_tags", {}),
    "slice": ("out_dim", {"axis": "T", "slice_start": 1}),
    "slice_nd": ("out_spatial_dim", {"start": "begin", "size": None}),
    "pad": ("out_dims", {"axes": "T", "padding": [1, 0]}),
    "window": ("out_spatial_dim", {"window_size": 2, "padding": "valid"}),
    "boolean_mask": ("out_dim", {"mask": "mask", "dims": "T"}),
    "masked_computation": ("out_spatial_dim", {"mask": "mask", "unit": {"class": "copy"}}),
    "range_from_length": ("out_spatial_dim", {"from": "length"}),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("reader", ["length", "reduce", "softmax", "rec", "length of the dim plus one"])
def test_a_dim_that_a_layer_makes_has_its_lengths(kind: str, reader: str) -> None:
    option, options = MAKERS[kind]
    dim = rl.Dim("N")
    made = {"class": kind, "from": "data", **options}
    named = {**made, option: {"T": dim} if option == "set_dim_tags" else [dim] if option == "out_dims" else dim}
    begin = {"class": "constant", "value": 1, "with_batch_dim": True}
    summed = {"class": "reduce", "mode": "sum", "axis": "F", "from": "data"}
    mask = {"class": "compare", "kind": "greater", "value": 0, "from": "summed"}
    readers: Mapping[str, Any] = {
        "length": {"class": "length", "axis": dim},
        "reduce": {"class": "reduce", "mode": "mean", "axes": dim},
        "softmax": {"class": "softmax_over_spatial", "axis": dim},
        "rec": {"class": "rec", "axis": dim, "unit": {"output": {"class": "copy", "from": "data:source"}}},
        "length of the dim plus one": {"class": "pad", "axes": dim, "padding": [0, 1], "out_dims": dim + 1},
    }
    found = []
    for layer, axis in ((named, dim), (made, "T")):
        option_of_axis = {key: axis for key, value in readers[reader].items() if value is dim}
        last = {**readers[reader], **option_of_axis, "from": "cast"}
        if axis == "T":
            last.pop("out_dims", None)
        network = {
            "begin": begin, "summed": summed, "mask": mask, "length": {"class": "length", "from": "data"},
            "made": layer, "cast": {"class": "cast", "dtype": "float32", "from": "made"}, "output": last,
        }  # fmt: skip
        net = rl.compile(network, {"data": {"dim": 2}}, "forward", behavior_version=21)
        found.append(net.run({"data": X}, {"data": [4, 1, 3]}).layers["output"])
    np.testing.assert_allclose(found[0].value, found[1].value, rtol=1e-5)
    assert [v.tolist() for v in found[0].seq_lens.values()] == [v.tolist() for v in found[1].seq_lens.values()]


def test_the_dim_of_a_loop_names_the_whole_sequence_from_around_it() -> None:
    """`base:x` is seen whole in the loop, also by the axis that the loop runs over; `rec_unstack` takes a frame."""
    x = {"class": "reinterpret_data", "from": "data", "set_dim_tags": {"T": (time := rl.Dim("time"))}}
    unit = {
        "frame": {"class": "rec_unstack", "from": "base:x", "axis": time},
        "mean": {"class": "reduce", "mode": "mean", "axes": time, "from": "base:x"},
        "output": {"class": "combine", "kind": "sub", "from": ["frame", "mean"]},
    }
    net = compiled({"class": "rec", "from": [], "axis": time, "unit": unit}, {"dim": 2}, x=x)
    out = net.run({"data": X}, {"data": [4, 1, 3]}).layers["output"].value
    np.testing.assert_allclose(out[2, :3], X[2, :3] - X[2, :3].mean(0), atol=1e-6)


@pytest.mark.parametrize("mode", ["train", "search"])
def test_a_search_over_a_declared_time(mode: Any) -> None:
    time = rl.Dim("time")
    unit = {
        "p": {"class": "softmax", "from": "data:source", "target": "classes", "loss": "ce"},
        "output": {"class": "choice", "from": "p", "target": "classes", "beam_size": 2, "initial_output": 0},
    }
    network = {
        "x": {"class": "reinterpret_data", "from": "data", "set_dim_tags": {"T": time}},
        "output": {"class": "rec", "from": "x", "axis": time, "unit": unit},
        "best": {"class": "decide", "from": "output", "is_output_layer": True},
    }
    classes = {"dim": 3, "sparse": True, "available_for_inference": False}
    found = []
    for axis in (time, "T"):
        network["output"]["axis"] = axis
        net = rl.compile(network, {"data": {"dim": 2}, "classes": classes}, mode, behavior_version=21)
        targets = {} if mode == "search" else {"classes": np.ones((3, 4), int)}
        lengths = {key: [4, 1, 3] for key in ("data", *targets)}
        found.append(net.run({"data": X, **targets}, lengths))
    if mode == "search":
        first, second = (run.layers["best"] for run in found)
        np.testing.assert_array_equal(first.value, second.value)
        assert [v.tolist() for v in first.seq_lens.values()] == [[4, 1, 3]]
    else:
        assert found[0].losses["output/p"].count == 8
        assert found[0].losses["output/p"].sum == pytest.approx(found[1].losses["output/p"].sum)


@pytest.mark.parametrize(
    "layer",
    [
        {"class": "constant", "value": 1.0, "shape": [rl.Dim("D")]},
        {"class": "expand_dims", "axis": "spatial", "dim": rl.Dim("D"), "from": "data"},
        {"class": "random", "distribution": "normal", "shape": [rl.Dim("D")]},
        {"class": "rec", "from": [], "axis": rl.Dim("D"), "unit": {"output": {"class": "constant", "value": 1.0}}},
    ],
    ids=lambda layer: str(layer["class"]),
)
def test_a_dim_that_nothing_makes_is_refused(layer: dict[str, Any]) -> None:
    with pytest.raises(rl.ConfigError, match=r"network.output: nothing before it says how long D is"):
        rl.check({"network": {"output": layer}, "extern_data": {"data": {"dim": 2}}, "behavior_version": 21}, "forward")


def test_lengths_of_two_dims_of_one_name() -> None:
    """The second has a number, in dims and lengths."""
    network = {
        "a": {"class": "reinterpret_data", "from": "data", "set_dim_tags": {"T": rl.Dim("n")}},
        "b": {"class": "pad", "axes": "T", "padding": 1, "from": "data", "out_dims": rl.Dim("n")},
        "output": {"class": "dot", "reduce": "F", "from": ["a", "b"]},
    }
    net = rl.compile(network, {"data": {"dim": 2}}, "forward", behavior_version=21)
    out = net.run({"data": X}, {"data": LENGTHS}).layers["output"]
    assert out.dims == ("B", "n", "n#2")
    assert {name: lengths.tolist() for name, lengths in out.seq_lens.items()} == {"n": [4, 0, 3], "n#2": [6, 2, 5]}
