"""A literal axis of an `eval` is one of the per-step view, batch first, in and out of the loop (SEMANTICS 4.1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

LABELS = np.array([[1, 2, 3], [2, 3, 0]])
FIRST = np.random.default_rng(5).normal(size=(4, 3))


def network(axis: int, source: str) -> dict[str, Any]:
    unit = {
        "output": {"class": "choice", "from": "probe", "beam_size": 2, "initial_output": 0, "target": "classes"},
        "embed": {"class": "linear", "activation": None, "with_bias": False, "n_out": 3, "from": source},
        "probe": {
            "class": "eval", "eval": f"tf.nn.softmax(source(0), axis={axis})", "from": "embed", "is_output_layer": True,
        },
    }  # fmt: skip
    return {"output": {"class": "rec", "from": [], "target": "classes", "unit": unit}}


@pytest.mark.parametrize("optimize", [True, False], ids=["optimized", "plain"])
@pytest.mark.parametrize("source", ["output", "prev:output"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_numbers_count_the_batch_first(axis: int, source: str, optimize: bool) -> None:
    extern_data = {"data": {"dim": 1}, "classes": {"dim": 4, "sparse": True, "available_for_inference": False}}
    net = rl.compile(network(axis, source), extern_data=extern_data, mode="eval", optimize=optimize)
    net.params["output/rec/embed/W"].assign(FIRST)
    out = net.run({"data": np.zeros((2, 3, 1)), "classes": LABELS}, seq_lens={"data": [3, 3], "classes": [3, 3]})
    labels = LABELS if source == "output" else np.pad(LABELS[:, :-1], ((0, 0), (1, 0)))
    embedded = np.exp(FIRST[labels])
    over = 0 if axis == 0 else 2  # over the batch of each step, or over the features
    expected = embedded / embedded.sum(over, keepdims=True)
    np.testing.assert_allclose(out.layers["output/probe"].value, expected, rtol=1e-5)
