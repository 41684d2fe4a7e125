"""transpose moves axes and not values; ':i' as a layer is the reference ':i'."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite import ConfigError
from returnn_lite.dims import DimKind, Symbol
from returnn_lite.layers.axes import MergeDims, ReinterpretData
from returnn_lite.layers.base import LayerError
from returnn_lite.layers.transpose import Transpose
from tests.layers.harness import Bench, assert_frames_equal, draw

BOTH = pytest.mark.parametrize("optimize", [True, False])
X = draw(2, 3, 4)


@pytest.mark.parametrize(
    ("perm", "order"),
    [
        # RETURNN gives these orders.
        ({"B": "F", "F": "B"}, "FTB"),
        ({"T": "F", "F": "T"}, "BFT"),
        ({0: "F"}, "FBT"),
        ({0: "F", 1: "B", 2: "T"}, "FBT"),
        ({"T": "B", "B": "T"}, "TBF"),
        ({-1: "B"}, "TFB"),
        (["F", "T", "B"], "FTB"),
        ({}, "BTF"),
    ],
)
def test_orders(perm: Any, order: str) -> None:
    bench = Bench()
    x = bench.input("x", bench.batch, bench.time, bench.feature(4))
    y = bench.build(Transpose(perm=perm), x)
    assert "".join(dim.name for dim in y.type.dims) == order
    assert (y.type.feature, y.type.time) == (x.type.feature, x.type.time)
    found = bench.run(y, {"x": X})
    assert_frames_equal(np.transpose(found.value, [[d.name for d in found.dims].index(name) for name in "BTF"]), X)


@pytest.mark.parametrize(
    ("perm", "message"),
    [
        ({0: "F", "B": "T"}, "two axes for the place 0"),
        ({0: "F", 1: "F"}, "not each axis of .* once"),
        (["F", "T"], "not each axis of .* once"),
        ({3: "F"}, "there is no axis 3 in"),
    ],
)
def test_refused(perm: Any, message: str) -> None:
    bench = Bench()
    x = bench.input("x", bench.batch, bench.time, bench.feature(4))
    with pytest.raises(LayerError, match=message):
        bench.build(Transpose(perm=perm), x)


@pytest.mark.parametrize("order", ["BTXF", "BXFT", "BFXT"])
def test_merged_static_axes_are_the_feature_wherever_time_is(order: str) -> None:
    """RETURNN's default for the feature axis is the last static one."""
    bench = Bench()
    dims = {"B": bench.batch, "T": bench.time, "X": Symbol("X", DimKind.SPATIAL, 2), "F": bench.feature(4)}
    x = bench.input("x", *(dims[name] for name in order))
    x = bench.build(ReinterpretData(set_axes={"F": None}), x)
    merged = bench.build(MergeDims(axes=["static:0", "static:1"]), x)
    assert merged.type.feature is not None
    assert merged.type.feature.size == 8


def run(network: dict[str, Any], optimize: bool) -> np.ndarray:
    net = rl.compile(network, extern_data={"data": {"dim": 4}}, mode="forward", behavior_version=21, optimize=optimize)
    return np.asarray(net.run({"data": X}, {"data": [3, 2]}).layers["output"].value)


@BOTH
def test_literal_axes_count_the_new_order(optimize: bool) -> None:
    """The axes of a step are [batch, 2, 2] before and behind; axis 1 is another one."""
    unit = {
        "split": {"class": "split_dims", "from": "data:source", "axis": "F", "dims": [2, 2]},
        "turned": {"class": "transpose", "from": "split", "perm": {1: 2}},
        "a": {"class": "eval", "from": "split", "eval": "tf.reduce_sum(source(0), axis=1)"},
        "b": {"class": "eval", "from": "turned", "eval": "tf.reduce_sum(source(0), axis=1)"},
        # The axis that is left of "a" is its feature axis, that of "b" is not.
        "first": {"class": "eval", "from": "a", "eval": "tf.reduce_max(source(0), axis=1)"},
        "second": {"class": "eval", "from": "b", "eval": "tf.reduce_max(source(0), axis=1)"},
        "output": {"class": "combine", "kind": "add", "from": ["first", "tenfold"]},
        "tenfold": {"class": "eval", "from": "second", "eval": "source(0) * 10.0"},
    }
    found = run({"output": {"class": "rec", "from": "data", "unit": unit}}, optimize)
    pairs = X.reshape(2, 3, 2, 2)
    expected = pairs.sum(2).max(-1) + 10 * pairs.sum(3).max(-1)
    assert_frames_equal(found if found.shape[0] == 2 else found.T, expected)


@BOTH
@pytest.mark.parametrize("name", [":i", "rec_step_info"])
@pytest.mark.parametrize("cycle", [False, True])
def test_the_number_of_the_step(name: str, cycle: bool, optimize: bool) -> None:
    unit: dict[str, Any] = {"i": {"class": name}, "output": {"class": "copy", "from": "i"}}
    if cycle:
        unit["output"] = {"class": "combine", "kind": "add", "from": ["prev:output", "i"], "initial_output": 0}
    found = run({"output": {"class": "rec", "from": "data", "unit": unit}}, optimize)
    np.testing.assert_array_equal(np.ravel(found)[:3], [0, 1, 3] if cycle else [0, 1, 2])


@BOTH
def test_the_number_of_the_executed_step(optimize: bool) -> None:
    """Under a mask that is true in every other step."""
    unit = {
        "even": {"class": "eval", "from": ":i", "eval": "tf.equal(source(0) % 2, 0)", "out_type": {"dtype": "bool"}},
        "i": {
            "class": "masked_computation",
            "mask": "even",
            "from": "data:source",
            "unit": {
                "class": "subnetwork",
                "subnetwork": {"i": {"class": ":i"}, "output": {"class": "copy", "from": "i"}},
            },
        },
        "output": {"class": "copy", "from": "i"},
    }
    found = run({"output": {"class": "rec", "from": "data", "unit": unit}}, optimize)
    np.testing.assert_array_equal(np.ravel(found)[:3], [0, 0, 1])


def test_there_is_no_step_outside_of_a_loop() -> None:
    with pytest.raises(ConfigError, match="':i' is the step of a loop, and there is none here"):
        run({"output": {"class": ":i"}}, True)
