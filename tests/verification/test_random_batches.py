"""Random batches: equal lengths where a network needs them, whatever its data keys say of their dims."""

from typing import Any

import numpy as np
import pytest

from returnn_lite.compiler import build
from returnn_lite.ir.batches import checked_batch
from returnn_lite.verification.random_batches import equal_dims, random_feed

EXTERN = {"data": {"dim": 3}, "other": {"dim": 3}, "classes": {"dim": 4, "sparse": True}}
HALF = {"class": "pool", "mode": "max", "pool_size": [2], "padding": "same", "from": "data"}
LATER = {"class": "pad", "axes": "T", "padding": [1, 2], "from": "half"}
SOFTMAX = {"class": "softmax", "target": "classes", "loss": "ce"}
SUM = {"class": "combine", "kind": "add", "from": ["data", "data:other"], "is_output_layer": True}


def lengths_of(network: dict[str, Any], extern: dict[str, Any] = EXTERN) -> dict[str, Any]:
    built = build({"network": network, "extern_data": extern})
    keys = [value.name for value in built.graph.inputs]
    feed, lengths = random_feed(built.extern_data.entries, keys, 4, 1, equal_dims(built.graph))
    checked_batch(built.graph.inputs, feed, lengths)
    return lengths


def test_keys_have_lengths_of_their_own() -> None:
    lengths = lengths_of({"a": {**SUM, "from": "data"}, "b": {**SUM, "from": "data:other"}})
    assert not np.array_equal(lengths["data"], lengths["other"])


def test_a_key_with_two_lengths() -> None:
    extern = {"data": {"shape": [None, None, 2]}}
    lengths = lengths_of({"output": {"class": "copy", "from": "data"}}, extern)
    assert list(lengths["data"]) == ["data:time", "data:time1"]
    assert not np.array_equal(lengths["data"]["data:time"], lengths["data"]["data:time1"])


@pytest.mark.parametrize(
    ("network", "key", "expected"),
    [
        ({"output": SUM}, "other", lambda n: n),
        ({"output": SOFTMAX | {"from": "data"}}, "classes", lambda n: n),
        ({"half": HALF, "output": SOFTMAX | {"from": "half"}}, "classes", lambda n: -(-n // 2)),
        ({"half": HALF, "later": LATER, "output": SOFTMAX | {"from": "later"}}, "classes", lambda n: -(-n // 2) + 3),
    ],
)
def test_what_must_be_equal_is(network: dict[str, Any], key: str, expected: Any) -> None:
    lengths = lengths_of(network)
    assert len(set(lengths["data"].tolist())) > 1
    np.testing.assert_array_equal(lengths[key], expected(lengths["data"]))
