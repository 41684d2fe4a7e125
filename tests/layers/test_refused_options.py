"""Options that contradict each other, or that a layer can't honour: an error at the option, never silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

X = np.arange(1, 13, dtype="float32").reshape(2, 3, 2)
SPARSE = {"class": "reinterpret_data", "set_sparse": True, "set_sparse_dim": 9, "from": "ints"}
INTS = {"class": "cast", "dtype": "int32", "from": "first"}
FIRST = {"class": "reduce", "mode": "min", "axis": "F", "from": "data"}
SHARED = {"first": FIRST, "ints": INTS, "sparse": SPARSE}


def compiled(layer: dict[str, Any]) -> Any:
    network = {**SHARED, "output": {"from": "data", **layer}}
    return rl.compile(network, extern_data={"data": {"dim": 2}}, mode="forward", behavior_version=21)


@pytest.mark.parametrize(
    ("layer", "option"),
    [
        ({"class": "combine", "kind": "add", "from": ["data", "data"], "eval": "source(0)"}, "eval"),
        ({"class": "combine", "kind": "add", "from": ["data", "data"], "eval_locals": {}}, "eval_locals"),
        ({"class": "combine", "kind": "ad", "from": ["data", "data"]}, "kind"),
        ({"class": "constant", "value": 1, "sparse_dim": 3, "feature_dim": 3, "from": []}, "feature_dim"),
        ({"class": "copy", "in_dim": 3}, "in_dim"),
        ({"class": "copy", "in_dim": rl.Dim("other", rl.DimKind.FEATURE, 2)}, "in_dim"),
        ({"class": "cum_concat", "out_spatial_dim": 3}, "out_spatial_dim"),
        ({"class": "length", "sparse": True, "dtype": "float32"}, "dtype"),
        ({"class": "range", "limit": 3, "sparse": True, "dtype": "float32", "from": []}, "dtype"),
        ({"class": "range_in_axis", "axis": "T", "keepdims": True}, "keepdims"),
        ({"class": "rec", "unit": {"output": {"class": "copy", "from": "data:source"}}, "direction": -1}, "direction"),
        ({"class": "range_in_axis", "axis": "T", "dtype": "int23"}, "dtype"),
        ({"class": "range_in_axis", "axis": "T", "dtype": "bool"}, "dtype"),
        ({"class": "range_from_length", "from": "ints", "dtype": "int23"}, "dtype"),
        ({"class": "range_from_length", "from": "ints", "out_spatial_dim": 3}, "out_spatial_dim"),
        ({"class": "reinterpret_data", "switch_axes": "bt"}, "switch_axes"),
        ({"class": "reinterpret_data", "set_sparse": False, "set_sparse_dim": 3, "from": "sparse"}, "set_sparse_dim"),
        ({"class": "reinterpret_data", "increase_sparse_dim": 1}, "increase_sparse_dim"),
        ({"class": "pad", "axes": "T", "padding": [1, -1]}, "padding"),
        ({"class": "pad", "axes": "T", "padding": 1, "mode": "zero"}, "mode"),
        (
            {"class": "shift_axis", "axis": "T", "amount": 1, "pad": False, "adjust_size_info": False},
            "adjust_size_info",
        ),
        ({"class": "slice_nd", "size": 2, "min_size": 3}, "min_size"),
        ({"class": "slice_nd", "size": 2, "out_spatial_dim": 3}, "out_spatial_dim"),
        ({"class": "split", "num_splits": 3, "size_splits": [1, 1]}, "num_splits"),
        ({"class": "window", "window_size": 2, "stride": 0}, "stride"),
        ({"class": "activation", "activation": "rellu"}, "activation"),
        ({"class": "gating", "activation": "tanh", "gate_activation": "sigmod"}, "activation"),
        ({"class": "cast", "dtype": "flaot32"}, "dtype"),
        ({"class": "pool", "mode": "mean", "pool_size": [2]}, "mode"),
        ({"class": "conv", "filter_size": [2], "padding": "sam", "n_out": 2}, "padding"),
        ({"class": "reduce", "mode": "average", "axis": "T"}, "mode"),
        ({"class": "copy", "initial_output": "ones", "param_dropout": 1.5, "batch_norm": True}, "param_dropout"),
        ({"class": "constant", "value": [[1, 2], [3, [4]]], "from": []}, "value"),
        ({"class": "constant", "value": [[1, 2], [3], [4, 5, 6]], "from": []}, "value"),
        ({"class": "reinterpret_data", "switch_axes": [""]}, "switch_axes"),
        ({"class": "reinterpret_data", "set_sparse_dim": "many"}, "set_sparse_dim"),
        ({"class": "pad", "axes": ["T", "F"], "padding": [[1, 2], 3.5]}, "padding"),
        ({"class": "top_k", "axis": [], "k": 1}, "axis"),
        ({"class": "split_dims", "axis": "F", "dims": []}, "dims"),
        ({"class": "self_attention", "num_heads": 0, "total_key_dim": 4, "n_out": 4}, "num_heads"),
        ({"class": "self_attention", "num_heads": 2, "total_key_dim": 0, "n_out": 4}, "total_key_dim"),
        (
            {"class": "self_attention", "num_heads": 2, "total_key_dim": 4, "n_out": 4, "attention_dropout": 1.0},
            "attention_dropout",
        ),
        ({"class": "relative_positional_encoding", "n_out": 4, "clipping": -1}, "clipping"),
        ({"class": "conv", "filter_size": [2], "padding": "same", "n_out": 2, "groups": 0}, "groups"),
        ({"class": "scaled_grad", "scale": 2, "scale_shift_by_sum_over_axis": "F"}, "scale_shift_by_sum_over_axis"),
        (
            {"class": "conv", "filter_size": [2], "padding": "same", "n_out": 2, "filter_perm": {"T": "F"}},
            "filter_perm",
        ),
        ({"class": "transposed_conv", "filter_size": [2], "n_out": 2, "filter_perm": {"T": "F"}}, "filter_perm"),
        ({"class": "eval", "eval": "source(0, True)"}, "eval"),
        ({"class": "eval", "eval": "source()"}, "eval"),
        ({"class": "eval", "eval": "source(0) * ~3"}, "eval"),
        ({"class": "eval", "eval": "tf.add_n(source(0))"}, "eval"),
        ({"class": "eval", "eval": "source(0) + tf.add_n([])"}, "eval"),
    ],
)
def test_refused(layer: dict[str, Any], option: str) -> None:
    with pytest.raises(rl.ConfigError, match=rf"network\.output\.{option}:"):
        compiled(layer)


def test_lengths_as_classes() -> None:
    """One class more than the axis has frames: a one-hot of them has a place for each length."""
    network = {
        "length": {"class": "length", "axis": "F", "sparse": True, "from": "data"},
        "output": {"class": "linear", "n_out": 2, "with_bias": False, "from": "length"},
    }
    net = rl.compile(network, extern_data={"data": {"dim": 2}}, mode="forward", behavior_version=21)
    weights = net.params["output/W"].numpy()
    assert weights.shape == (3, 2)
    np.testing.assert_allclose(net.run({"data": X}, {"data": [3, 2]}).layers["output"].value, weights[2], rtol=1e-6)


@pytest.mark.parametrize("optimize", [True, False])
def test_axis_of_the_loop_by_name(optimize: bool) -> None:
    """In a loop "T" is its steps for what counts frames, where the source has no time of its own."""
    unit = {
        "position": {"class": "positional_encoding", "axis": "T", "add_to_input": True, "from": "data:source"},
        "window": {"class": "window", "axis": "T", "window_size": 2, "window_right": 0, "from": "position"},
        "output": {"class": "reduce", "mode": "sum", "axis": "static:0", "from": "window"},
    }
    extern_data = {"data": {"dim": 2}}
    net = rl.compile(
        {"output": {"class": "rec", "from": "data", "unit": unit}},
        extern_data=extern_data,
        mode="forward",
        behavior_version=21,
        optimize=optimize,
    )
    out = net.run({"data": X}, {"data": [3, 2]}).layers["output"]
    value = np.moveaxis(np.asarray(out.value), out.dims.index("B"), 0)
    frames = np.arange(3)[:, None]
    x = X[0] + np.concatenate([np.sin(frames), np.cos(frames)], axis=-1)
    np.testing.assert_allclose(value[0], x + np.concatenate([np.zeros((1, 2)), x[:2]]), rtol=1e-5)
