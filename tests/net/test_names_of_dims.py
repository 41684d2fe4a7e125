"""`stag:` finds dims by their own names, those of what they are computed from, and the layers that have made them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

X = np.arange(1.0, 15.0).reshape(1, 7, 2)
MAKERS: dict[str, dict[str, Any]] = {
    "pad": {"axes": "T", "padding": [1, 1]},
    "pool": {"mode": "max", "pool_size": [2], "padding": "same"},
    "conv": {"filter_size": [3], "n_out": 2, "padding": "valid", "strides": 2},
    "slice": {"axis": "T", "slice_start": 2},
    "window": {"window_size": 3, "padding": "valid"},
    "postfix_in_time": {"postfix": 0.0},
    "repeat": {"axis": "T", "repetitions": 2},
    "transposed_conv": {"filter_size": [3], "strides": [2], "n_out": 2},
    "split_dims": {"axis": "T", "dims": [-1, 3]},
    "merge_dims": {"axes": ["T", "F"]},
}


def summed(axis: str, *layers: dict[str, Any], name: str = "lstm0_maker") -> np.ndarray:
    """The sum over an axis of the last of a chain of layers."""
    network: dict[str, Any] = {}
    for i, layer in enumerate(layers):
        network[f"{name}{i}"] = {"from": f"{name}{i - 1}" if i else "data", **layer}
    network["output"] = {"class": "reduce", "mode": "sum", "axis": axis, "from": f"{name}{len(layers) - 1}"}
    net = rl.compile(network, {"data": {"dim": 2}}, "forward", behavior_version=21)
    return net.run({"data": X}, {"data": [7]}).layers["output"].value


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    "axis", ["stag:extern_data:data", "stag:data:time", "stag:lstm0", "stag:lstm0_maker0", "tag:lstm0-maker"]
)
def test_a_dim_computed_from_the_time(kind: str, axis: str) -> None:
    layer = {"class": kind, **MAKERS[kind]}
    if "lstm" in axis and (kind in ("split_dims", "window") or (axis.startswith("tag") and "conv" in kind)):
        pytest.skip("its static axis has the layer's name, too")
    assert summed(axis, layer).shape == summed("T", layer).shape


def test_a_dim_computed_in_several_steps() -> None:
    layers = [{"class": kind, **MAKERS[kind]} for kind in ("pool", "pad", "conv", "slice", "repeat")]
    for axis in ("stag:extern_data:data", "stag:maker4"):
        assert summed(axis, *layers).shape == (1, 2)
    with pytest.raises(rl.ConfigError, match=r"axis 'stag:maker3' .* is none of them"):
        summed("stag:maker3", *layers)


def test_a_name_of_its_own_comes_first() -> None:
    """Of the time and what is computed from it, it is the time."""
    network = {
        "padded": {"class": "pad", "axes": "T", "padding": [1, 1], "from": "data"},
        "both": {"class": "dot", "from": ["data", "padded"], "reduce": "F"},
        "output": {"class": "reduce", "mode": "sum", "axis": "stag:extern_data:data", "from": "both"},
    }
    net = rl.compile(network, {"data": {"dim": 2}}, "forward", behavior_version=21)
    assert net.run({"data": X}, {"data": [7]}).layers["output"].dims == ("B", "data:time+2")


def test_the_axis_of_a_loop_by_the_layer_that_made_it() -> None:
    pool = {"class": "pool", "mode": "max", "pool_size": [2], "padding": "same", "from": "data"}
    unit = {"output": {"class": "copy", "from": "data:source"}}
    network = {"pool": pool, "output": {"class": "rec", "from": "pool", "axis": "stag:pool", "unit": unit}}
    net = rl.compile(network, {"data": {"dim": 2}}, "forward", behavior_version=21)
    np.testing.assert_array_equal(net.run({"data": X}, {"data": [7]}).layers["output"].value[0, :, 0], [3, 7, 11, 13])
