"""What leaves a loop, what stays together, and what becomes of masks between the two."""

from __future__ import annotations

from typing import Any

import numpy as np

from returnn_lite.compiler import build, optimized
from tests.properties.running import assert_equal, feed_of, run

DATA = {"data": {"dim": 3}, "classes": {"dim": 3, "sparse": True, "available_for_inference": False}}


def test_a_loop_of_all_steps_that_makes_the_mask_of_what_others_read() -> None:
    """The frames of a masked layer are taken out of such a loop with a mask that the loop makes itself: after it."""
    linear = {"class": "linear", "n_out": 3, "activation": "tanh"}
    masked = {"class": "masked_computation", "mask": "prev:m", "unit": {**linear, "from": "data"}}
    unit: dict[str, Any] = {
        "k": {**masked, "from": "data:source"},
        "first": {"class": "reduce", "mode": "sum", "axis": "F", "from": "k"},
        "m": {"class": "compare", "from": "first", "value": 0.1, "kind": "less", "initial_output": True},
        "behind": {**masked, "from": "k", "is_output_layer": True},
        "output": {"class": "copy", "from": "m"},
    }
    network = {"output": {"class": "rec", "from": "data", "unit": unit}}
    config = {"network": network, "extern_data": DATA, "behavior_version": 21}
    built = build(config, "train")
    feed, lengths = feed_of(config, ([4, 3, 1], [2, 1, 1]))
    plain = run(built, optimized(built, False), feed, lengths)
    assert_equal(run(built, optimized(built, True), feed, lengths), plain)
    assert np.ptp(plain["layer:output/behind"].array) > 0
