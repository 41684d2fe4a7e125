"""Dims that options give to what layers make: the name is the option's, the lengths the layer's; sizes are checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

X = np.arange(1, 13, dtype="float32").reshape(2, 3, 2)
LENGTHS = [3, 2]


def dynamic() -> rl.Dim:
    return rl.Dim("N", rl.DimKind.SPATIAL, None)


def static(size: int, kind: rl.DimKind = rl.DimKind.SPATIAL) -> rl.Dim:
    return rl.Dim("N", kind, size)


def compiled(layer: dict[str, Any], **more: dict[str, Any]) -> Any:
    network = {**more, "output": {"from": "data", **layer}}
    return rl.compile(network, extern_data={"data": {"dim": 2}}, mode="forward", behavior_version=21)


MASK = {"class": "compare", "kind": "not_equal", "value": 5.0, "from": "first"}
FIRST = {"class": "reduce", "mode": "min", "axis": "F", "from": "data"}
BEGIN = {"class": "constant", "value": 0, "with_batch_dim": True}


@pytest.mark.parametrize(
    ("layer", "option", "lengths"),
    [
        ({"class": "slice", "axis": "T", "slice_start": 1}, "out_dim", [2, 1]),
        ({"class": "slice", "axis": "T", "slice_end": 2}, "out_dim", [2, 2]),
        ({"class": "slice", "axis": "T", "slice_end": 3, "slice_step": 2}, "out_dim", [2, 1]),
        ({"class": "slice", "axis": "T", "slice_step": -2}, "out_dim", [2, 1]),
        ({"class": "prefix_in_time", "prefix": 1}, "out_dim", [4, 3]),
        ({"class": "prefix_in_time", "prefix": 1, "size_base": "data"}, "out_dim", [3, 2]),
        ({"class": "postfix_in_time", "postfix": 1}, "out_dim", [4, 3]),
        ({"class": "merge_dims", "axes": ["T", "F"]}, "out_dim", [6, 4]),
        ({"class": "pad", "axes": "T", "padding": [1, 2]}, "out_dims", [6, 5]),
        ({"class": "pad", "axes": "T", "padding": 0}, "out_dims", [3, 2]),
        ({"class": "window", "window_size": 2, "padding": "valid"}, "out_spatial_dim", [2, 1]),
        ({"class": "window", "window_size": 2, "stride": 2}, "out_spatial_dim", [2, 1]),
        ({"class": "boolean_mask", "mask": "mask", "dims": "T"}, "out_dim", [2, 2]),
        ({"class": "masked_computation", "mask": "mask", "unit": {"class": "copy"}}, "out_spatial_dim", [2, 2]),
        ({"class": "slice_nd", "start": "begin", "size": None}, "out_spatial_dim", [3, 2]),
        ({"class": "conv", "filter_size": [2], "padding": "valid", "n_out": 2}, "out_spatial_dims", [2, 1]),
        ({"class": "range_from_length", "from": "length"}, "out_spatial_dim", [3, 2]),
    ],
)
def test_the_dim_of_an_option_has_the_lengths_of_the_layer(
    layer: dict[str, Any], option: str, lengths: list[int]
) -> None:
    length = {"class": "length", "from": "data"}
    more = {"first": FIRST, "mask": MASK, "begin": BEGIN, "length": length}
    several = option in ("out_dims", "out_spatial_dims")
    plain = compiled(layer, **more).run({"data": X}, {"data": LENGTHS}).layers["output"]
    named = compiled({**layer, option: [dynamic()] if several else dynamic()}, **more)
    out = named.run({"data": X}, {"data": LENGTHS}).layers["output"]
    assert out.seq_lens["N"].tolist() == lengths
    (old,) = [dim for dim in plain.dims if dim in plain.seq_lens]
    assert [dim if dim != "N" else old for dim in out.dims] == list(plain.dims)
    if layer["class"] != "conv":  # whose weights are random
        np.testing.assert_array_equal(out.value, plain.value)
    with pytest.raises(rl.ConfigError, match=option):
        compiled({**layer, option: [7] if several else 7}, **more)


@pytest.mark.parametrize(
    ("layer", "option", "right", "wrong"),
    [
        ({"class": "slice", "axis": "F", "slice_start": 1}, "out_dim", 1, 2),
        ({"class": "postfix_in_time", "axis": "F", "repeat": 2}, "out_dim", 4, 3),
        ({"class": "pad", "axes": "F", "padding": [1, 0]}, "out_dims", 3, 2),
        ({"class": "merge_dims", "axes": "F"}, "out_dim", 2, 3),
        ({"class": "window", "axis": "F", "window_size": 2}, "out_spatial_dim", 2, 3),
        ({"class": "window", "axis": "T", "window_size": 2}, "window_dim", 2, 3),
        ({"class": "expand_dims", "axis": "spatial"}, "dim", 3, "three"),
    ],
)
def test_a_size_is_checked(layer: dict[str, Any], option: str, right: int, wrong: object) -> None:
    value = compiled({**layer, option: right}).run({"data": X}, {"data": LENGTHS}).layers["output"].value
    named = compiled({**layer, option: static(right)}).run({"data": X}, {"data": LENGTHS}).layers["output"]
    assert "N" in named.dims
    np.testing.assert_array_equal(named.value, value)
    with pytest.raises(rl.ConfigError, match=rf"output\.{option}|expected a size"):
        compiled({**layer, option: wrong})


def test_split_dims_keeps_given_dims() -> None:
    half = rl.Dim("half", rl.DimKind.SPATIAL, None)
    layer = {"class": "split_dims", "axis": "T", "dims": [half, static(2)]}
    out = compiled(layer).run({"data": X}, {"data": LENGTHS}).layers["output"]
    assert out.seq_lens["half"].tolist() == [2, 1]
    assert "N" in out.dims
    with pytest.raises(rl.ConfigError, match="always filled up"):
        compiled({"class": "split_dims", "axis": "T", "dims": [-1, 2], "pad_to_multiples": False})


def test_unmask_of_a_dim_by_another_name() -> None:
    """The frames of the mask are put back where the mask is true, held elsewhere."""
    masked = {"class": "masked_computation", "mask": "mask", "unit": {"class": "copy"}, "from": "data"}
    more = {"first": FIRST, "mask": MASK, "masked": {**masked, "out_spatial_dim": dynamic()}}
    out = compiled({"class": "unmask", "mask": "mask", "from": "masked"}, **more)
    value = np.asarray(out.run({"data": X}, {"data": LENGTHS}).layers["output"].value)
    np.testing.assert_array_equal(value[0, :3], X[0, [0, 1, 1]])
    np.testing.assert_array_equal(value[1, :2], X[1, :2])


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("in_loop", [False, True])
def test_batch_of_another_layer(in_loop: bool, optimize: bool) -> None:
    """Two merged batches are two dims, unless a layer says that they are one; then they meet, frame by frame."""
    merge = {"class": "merge_dims", "axes": ["B", "dim:2"]}
    declare = {"class": "reinterpret_data", "batch_dim_base": "a", "from": "b"}
    source = "data:source" if in_loop else "data"
    network = {
        "pairs": {"class": "split_dims", "axis": "F", "dims": (2, 3), "from": source},
        "a": {**merge, "from": "pairs"},
        "negative": {"class": "eval", "eval": "-2 * source(0)", "from": source},
        "others": {"class": "split_dims", "axis": "F", "dims": (2, 3), "from": "negative"},
        "b": {**merge, "from": "others"},
        "c": {**declare, "is_output_layer": True},
        "sum": {"class": "combine", "kind": "add", "from": ["a", "c"]},
        "output": {"class": "reduce", "mode": "sum", "axis": "F", "from": source},
        "mean": {"class": "reduce", "mode": "mean", "axis": "B", "from": "sum", "is_output_layer": True},
    }
    if in_loop:
        network = {"output": {"class": "rec", "from": "data", "unit": network}}
    extern_data = {"data": {"dim": 6}}
    net = rl.compile(network, extern_data, mode="forward", behavior_version=21, optimize=optimize)
    x = np.random.default_rng(0).normal(size=(2, 3, 6)).astype("float32")
    layers = net.run({"data": x}, {"data": [3, 3]}).layers
    found, declared = (layers[f"output/{name}" if in_loop else name] for name in ("mean", "c"))
    assert declared.dims[0].startswith("B*") and declared.dims[0].endswith("pairs:split0")
    time = next(i for i, dim in enumerate(found.dims) if dim.startswith("data:time"))
    expected = -x.reshape(2, 3, 2, 3).mean((0, 2))
    np.testing.assert_allclose(np.moveaxis(found.value, time, 0), expected, rtol=1e-4, atol=1e-5)


def test_batch_of_a_layer_without_one() -> None:
    network = {
        "number": {"class": "constant", "value": 1.0, "from": []},
        "output": {"class": "reinterpret_data", "batch_dim_base": "number", "from": "data"},
    }
    with pytest.raises(rl.ConfigError, match="has no batch"):
        rl.compile(network, {"data": {"dim": 6}}, mode="forward", behavior_version=21)
