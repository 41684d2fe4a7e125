"""squeeze of a dynamic axis, whose length of 1 shows only at run time."""

from __future__ import annotations

import numpy as np
import pytest

import returnn_lite as rl

NETWORK = {"output": {"class": "squeeze", "axis": "T", "from": "data:label"}}
EXTERN_DATA = {"data": {"dim": 2}, "label": {"dim": 7, "sparse": True}}


@pytest.mark.parametrize("optimize", [True, False])
def test_labels_of_one_frame(optimize: bool) -> None:
    net = rl.compile(NETWORK, EXTERN_DATA, "forward", behavior_version=21, optimize=optimize)
    out = net.run({"label": np.array([[3], [5]])}, {"label": [1, 1]}).layers["output"]
    np.testing.assert_array_equal(out.value, [3, 5])
    assert len(out.dims) == 1


@pytest.mark.tensorflow
def test_more_than_one_frame_is_an_error() -> None:
    net = rl.compile(NETWORK, EXTERN_DATA, "forward", behavior_version=21)
    with pytest.raises(Exception, match="axis of size 1: lengths of label:time"):
        net.run({"label": np.array([[3, 1], [5, 0]])}, {"label": [2, 1]})
