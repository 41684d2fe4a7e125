"""What has the batch dim needs some data that says how many sequences there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.config.diagnostics import ConfigError

CONSTANT = {"class": "constant", "value": 1.5, "with_batch_dim": True}
VARIABLE = {"class": "variable", "shape": [3], "add_batch_axis": True}
SCALE = {"scale": {"shape": [3], "batch_dim_axis": None}}
GENERATED = {
    "class": "rec",
    "from": [],
    "max_seq_len": 4,
    "unit": {
        "ones": {"class": "constant", "value": 1.5, "with_batch_dim": True},
        "end": {"class": "compare", "from": "output", "kind": "greater", "value": 4.0},
        "output": {"class": "combine", "kind": "add", "from": ["ones", "prev:output"]},
    },
}


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize(
    ("layer", "expected"),
    [(CONSTANT, [1.5, 1.5]), (VARIABLE, np.zeros((2, 3))), (GENERATED, [[1.5, 3.0]] * 2)],
    ids=["constant", "variable", "a loop"],
)
def test_data_that_no_layer_reads_says_how_many_sequences(layer: dict[str, Any], expected: Any, optimize: bool) -> None:
    """Also where a layer reads other data, without a batch."""
    network = {"output": layer, "read": {"class": "copy", "from": "data:scale", "is_output_layer": True}}
    extern_data = {**SCALE, "data": {"dim": 3}}
    net = rl.compile(network, extern_data, "eval", behavior_version=21, optimize=optimize)
    found = net.run({"data": np.zeros((2, 5, 3)), "scale": np.ones(3)}, {"data": [5, 3]}).layers["output"].value
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("layer", "path"),
    [(CONSTANT, "network.output"), (VARIABLE, "network.output"), (GENERATED, "network.output.unit.ones")],
    ids=["constant", "variable", "a loop"],
)
@pytest.mark.parametrize("extern_data", [{}, SCALE])
def test_without_such_data_it_is_an_error_at_the_layer(
    layer: dict[str, Any], path: str, extern_data: dict[str, Any]
) -> None:
    name = path.removeprefix("network.").replace(".unit.", "/")
    with pytest.raises(ConfigError, match=f"^{path}: '{name}' has the batch dim, but no key of extern_data has one"):
        rl.compile({"output": layer}, extern_data, "eval", behavior_version=21)


def test_without_a_batch_anywhere_none_is_needed() -> None:
    net = rl.compile({"output": {"class": "constant", "value": 1.5}}, SCALE, "eval", behavior_version=21)
    assert net.run({"scale": np.ones(3)}, {}).layers["output"].value == 1.5
