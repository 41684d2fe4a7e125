"""Dims that a step of a loop makes: their lengths differ from step to step, in the loop and out of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

LENGTHS = (5, 3)
FRAMES = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
SLICE = {"class": "slice_nd", "from": "base:l", "size": ":i"}
COUNT = {
    "class": "eval",
    "from": "data:source",
    "eval": "tf.cast(tf.reduce_sum(tf.abs(source(0)), axis=-1), 'int32')",
    "out_type": {"dtype": "int32", "shape": (), "dim": None},
}
RANGE = {"class": "range_in_axis", "from": "slice", "axis": "stag:slice", "dtype": "float32"}
SUM = {"class": "reduce", "mode": "sum", "axis": "stag:slice"}
NETWORKS: dict[str, dict[str, Any]] = {
    "length": {"slice": SLICE, "output": {"class": "length", "from": "slice", "axis": "stag:slice"}},
    "length of an expression": {
        "slice": SLICE,
        "longer": {"class": "postfix_in_time", "from": "slice", "axis": "stag:slice", "postfix": 1.0, "repeat": 2},
        "output": {"class": "length", "from": "longer", "axis": "T"},
    },
    "range_in_axis": {"slice": SLICE, "range": RANGE, "output": {**SUM, "from": "range"}},
    "range_from_length": {
        "range": {"class": "range_from_length", "from": ":i"},
        "output": {"class": "reduce", "mode": "sum", "axis": "T", "from": "range"},
    },
    "of a size for each sequence": {
        "count": COUNT,
        "slice": {**SLICE, "size": "count"},
        "range": RANGE,
        "length": {"class": "length", "from": "slice", "axis": "stag:slice", "dtype": "float32"},
        "product": {"class": "combine", "kind": "mul", "from": ["slice", "range", "length"]},
        "output": {**SUM, "from": "product"},
    },
    "in a cycle": {
        "slice": SLICE,
        "range": RANGE,
        "weighted": {
            "class": "eval",
            "eval": "source(0) * source(1) + source(2)",
            "from": ["slice", "range", "prev:output"],
        },
        "output": {**SUM, "from": "weighted"},
    },
}
STEPS = np.arange(5)
EXPECTED = {
    "length": STEPS,
    "length of an expression": STEPS + 2,
    "range_in_axis": STEPS * (STEPS - 1) / 2,
    "range_from_length": STEPS * (STEPS - 1) // 2,
}


@pytest.mark.parametrize("stays", [False, True], ids=["", "beside a loop that stays"])
@pytest.mark.parametrize("name", NETWORKS)
def test_lengths_of_dims_that_a_step_makes(name: str, stays: bool) -> None:
    """Optimised and not, and of one sequence by itself."""
    unit = dict(NETWORKS[name])
    if stays:
        inputs = ["prev:h", "slice_sum"] if "slice" in unit else "prev:h"
        unit["slice_sum"] = {**SUM, "from": "slice"} if "slice" in unit else {"class": "copy", "from": "data:source"}
        unit["h"] = {"class": "linear", "n_out": 2, "activation": "tanh", "from": inputs, "is_output_layer": True}
    network = {
        "l": {"class": "linear", "n_out": 3, "activation": "tanh", "from": "data"},
        "output": {"class": "rec", "from": "data", "unit": unit},
    }
    values = [_outputs(network, optimize) for optimize in (True, False)]
    for optimised, plain in zip(*values, strict=True):
        np.testing.assert_allclose(optimised, plain, rtol=1e-5, atol=1e-5)
    both, alone = values[0]
    if both.ndim > 1:
        np.testing.assert_allclose(both[1, :3], alone[0], rtol=1e-5, atol=1e-5)
    if name in EXPECTED:
        np.testing.assert_array_equal(both, EXPECTED[name])


def _outputs(network: dict[str, Any], optimize: bool) -> list[np.ndarray]:
    """Of both sequences together, and of the second one alone."""
    net = rl.compile(network, extern_data={"data": {"dim": 4}}, mode="eval", optimize=optimize, behavior_version=21)
    for variable in net.params.values():
        variable.assign(np.random.default_rng(1).normal(size=variable.shape))
    feeds = ((FRAMES, LENGTHS), (FRAMES[1:, :3], LENGTHS[1:]))
    return [net.run({"data": x}, {"data": list(lengths)}).layers["output"].value for x, lengths in feeds]


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("in_loop", [True, False])
@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_a_frame_sees_its_own_part_of_a_history(mode: str, in_loop: bool, optimize: bool) -> None:
    """Also where the history has a Dim of the config, and nothing else has the frames that see it."""
    history = rl.Dim("history", rl.DimKind.SPATIAL, None)
    reduced = {"class": "reduce", "mode": mode, "axis": history, "from": "history"}
    layers = {"history": {"class": "cum_concat", "out_spatial_dim": history, "from": "data"}, "output": reduced}
    network: dict[str, Any] = layers
    if in_loop:
        layers["history"]["from"] = "data:source"
        network = {"output": {"class": "rec", "from": "data", "unit": layers}}
    net = rl.compile(network, extern_data={"data": {"dim": 4}}, mode="eval", optimize=optimize, behavior_version=21)
    value = net.run({"data": FRAMES}, {"data": list(LENGTHS)}).layers["output"].value
    expected = FRAMES.cumsum(1) / (np.arange(1, 6)[:, None] if mode == "mean" else 1)
    for found, wanted, length in zip(value, expected, LENGTHS, strict=True):
        np.testing.assert_allclose(found[:length], wanted[:length], rtol=1e-5)
