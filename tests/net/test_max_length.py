"""`max_seq_len_via`: a layer says the most steps of a loop whose length is not known before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

LENGTHS = {"length": {"class": "length", "from": "data"}}
MOST = {**LENGTHS, "most": {"class": "reduce", "mode": "min", "axis": "B", "from": "length"}}


def compiled(via: str, more: dict[str, Any], optimize: bool = True, **options: Any) -> rl.Network:
    """A loop that counts; it ends with the fifth step."""
    unit = {
        "output": {"class": "combine", "kind": "add", "from": ["prev:output", "one"], "initial_output": 0},
        "one": {"class": "constant", "value": 1, "with_batch_dim": True},
        "end": {"class": "compare", "kind": "equal", "value": 5, "from": "output"},
    }
    loop = {"class": "rec", "from": [], "unit": unit, "max_seq_len_via": via, "include_eos": True, **options}
    return rl.compile(
        {**more, "output": loop},
        extern_data={"data": {"dim": 2}},
        mode="forward",
        optimize=optimize,
        behavior_version=21,
    )


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize(("via", "wanted"), [("length", (5, 4, 2)), ("most", (2, 2, 2))])
def test_number_of_steps(via: str, wanted: tuple[int, ...], optimize: bool) -> None:
    """The least of what the layer says, for each sequence or for all, and of what `end` says."""
    net = compiled(via, MOST if via == "most" else LENGTHS, optimize)
    out = net.run({"data": np.zeros((3, 7, 2), "float32")}, {"data": [7, 4, 2]}).layers["output"]
    (time,) = (dim for dim in out.dims if dim != "B")
    np.testing.assert_array_equal(out.seq_lens[time], wanted)
    for sequence, length in zip(np.moveaxis(out.value, out.dims.index("B"), 0), wanted, strict=True):
        np.testing.assert_array_equal(sequence[:length], np.arange(1, length + 1))


@pytest.mark.parametrize(
    ("via", "more", "options", "message"),
    [
        ("length", LENGTHS, {"max_seq_len": 3}, "max_seq_len says it, too"),
        ("data", {}, {}, "the most steps can't be "),
        ("lengths", {}, {}, "there is no layer 'lengths'"),
    ],
)
def test_refused(via: str, more: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(rl.ConfigError, match=message):
        compiled(via, more, **options)
