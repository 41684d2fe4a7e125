"""A search whose loop has no step at all."""

from __future__ import annotations

from typing import Any

import numpy as np

import returnn_lite as rl


def test_scores_of_no_step_are_zero() -> None:
    """What a sequence had after its last step, for all of a batch: there is no frame to repeat."""
    unit: dict[str, Any] = {
        "prob": {"class": "linear", "activation": "softmax", "n_out": 5, "from": "prev:output"},
        "output": {"class": "choice", "from": "prob", "target": "classes", "beam_size": 3, "initial_output": 1},
        "end": {"class": "compare", "from": "output", "value": 0},
    }
    loop = {"class": "rec", "from": [], "target": "classes", "max_seq_len": 0, "unit": unit}
    data = {"data": {"dim": 3}, "classes": {"dim": 5, "sparse": True, "available_for_inference": False}}
    network = {"output": loop, "decision": {"class": "decide", "from": "output", "is_output_layer": True}}
    for optimize in (True, False):
        net = rl.compile(network, extern_data=data, mode="search", behavior_version=21, optimize=optimize)
        found = net.run({"data": np.zeros((3, 2, 3), "float32")}, {"data": [2, 1, 2]}).layers["decision"]
        assert 0 in found.value.shape
