"""What is computed of the frames of a history is computed once for each, not again at each step that sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

EXTERN_DATA = {"data": {"dim": 3}}
X = np.random.default_rng(1).normal(size=(3, 4, 3)).astype("float32")
LENGTHS = [4, 2, 1]
FRAMES: dict[str, dict[str, Any]] = {
    "as it is": {"class": "copy", "from": "keys"},
    "linear": {"class": "linear", "activation": "tanh", "n_out": 3, "from": "keys"},
    "shifted": {"class": "eval", "eval": "source(0) * 2 + 1", "from": "keys"},
}


def compiled(frames: dict[str, Any], optimize: bool) -> rl.Network:
    history = rl.Dim("history", rl.DimKind.SPATIAL, None)
    unit = {
        "x": {"class": "copy", "from": "data:source"},
        "keys": {"class": "cum_concat", "out_spatial_dim": history, "from": "x"},
        "frames": frames,
        "energy": {"class": "dot", "from": ["x", "frames"], "red1": "F", "red2": "F", "var1": None, "var2": history},
        "weights": {"class": "softmax_over_spatial", "axis": history, "from": "energy"},
        "output": {"class": "dot", "from": ["weights", "frames"], "reduce": history},
    }
    network = {"output": {"class": "rec", "from": "data", "unit": unit}}
    return rl.compile(network, extern_data=EXTERN_DATA, mode="eval", behavior_version=21, optimize=optimize)


@pytest.mark.parametrize("name", FRAMES)
def test_frames_of_a_history_are_not_repeated(name: str) -> None:
    """Of keys and values nothing has both the steps and the frames that they see; and the numbers are the same."""
    net, plain = compiled(FRAMES[name], True), compiled(FRAMES[name], False)
    for node in net.graph.nodes:
        dims = node.outputs[0].type.dims
        steps = len([dim for dim in dims if dim.size is None and dim.kind is rl.DimKind.SPATIAL])
        assert steps < 2 or len(dims) == 3, node  # the energies and weights have both, and no features
    for found in net.params:
        plain.params[found].assign(net.params[found])
    outputs = [n.run({"data": X}, {"data": LENGTHS}).layers["output"] for n in (net, plain)]
    order = [outputs[0].dims.index(dim) for dim in outputs[1].dims]
    np.testing.assert_allclose(np.transpose(outputs[0].value, order), outputs[1].value, atol=1e-5)
