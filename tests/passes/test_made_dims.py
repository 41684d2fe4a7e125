"""A dim made at run time keeps what makes it, when nothing else of that is used."""

import numpy as np
import pytest

import returnn_lite as rl


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize(("layer", "expected"), [("length", [3, 4]), ("range_in_axis", [0, 1, 2, 3])])
def test_what_makes_a_dim_stays(layer: str, expected: list[int], optimize: bool) -> None:
    inner = {
        "repeated": {"class": "repeat", "repetitions": "base:data:counts", "from": "data"},
        "output": {"class": layer, "axis": "T", "from": "repeated"},
    }
    net = rl.compile(
        {"output": {"class": "subnetwork", "from": "data", "subnetwork": inner}},
        extern_data={"data": {"dim": 2}, "counts": {"dim": 4, "sparse": True, "same_dim_tags_as": {"t": "data"}}},
        mode="forward",
        optimize=optimize,
        behavior_version=21,
    )
    assert any(node.op.created_dims() for node in net.graph.nodes)
    inputs = {"data": np.zeros((2, 3, 2), "float32"), "counts": np.array([[1, 0, 2], [3, 1, 0]], "int32")}
    found = net.run(inputs, seq_lens={"data": [3, 2], "counts": [3, 2]}).layers["output"].value
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("optimize", [True, False])
def test_a_copy_of_the_dim_of_a_loop_has_its_length(optimize: bool) -> None:
    """In a loop over it, the time of `base:data` is another dim, which only its being one with the loop's gives one."""
    unit = {"output": {"class": "length", "axis": "T", "from": "base:data"}}
    net = rl.compile(
        {"output": {"class": "rec", "from": "data", "unit": unit}},
        extern_data={"data": {"dim": 2}},
        mode="forward",
        optimize=optimize,
        behavior_version=21,
    )
    out = net.run({"data": np.zeros((2, 3, 2), "float32")}, seq_lens={"data": [3, 2]}).layers["output"]
    np.testing.assert_array_equal(out.value, [[3, 3, 3], [2, 2, 0]])
