"""Batches: those that RETURNN made of the same lengths, padding, chunks, and data that does not fit."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from returnn_lite.data import BatchOptions, DataError, batches, parse_chunking
from returnn_lite.data.artificial import StaticDataset
from returnn_lite.data.batching import plan

RECORDED = json.loads((Path(__file__).parent / "returnn_orders.json").read_text())


def dataset(data: list[int], classes: list[int] | None = None) -> StaticDataset:
    """Ramps of the given lengths."""
    sequences = [{"data": np.arange(2.0 * n, dtype=np.float32).reshape(n, 2)} for n in data]
    for sequence, length in zip(sequences, classes or [], strict=False):
        sequence["classes"] = np.arange(length, dtype=np.int32) % 5
    return StaticDataset(sequences, output_dim={"data": (2, 2), **({"classes": (5, 1)} if classes else {})})


@pytest.mark.parametrize("case", RECORDED["batches"])
def test_batches_are_those_of_returnn(case: dict) -> None:
    chunking = parse_chunking(case["dataset"].get("chunking"), case["dataset"].get("min_chunk_size", 0))
    options = BatchOptions(**case["limits"], chunking=chunking)
    planned = plan(dataset(case["data"], case["classes"]), range(len(case["data"])), options)
    found = [[[piece.index, piece.starts["data"], piece.lengths["data"]] for piece in batch] for batch in planned]
    assert found == case["batches"]


def test_padding_is_zero_and_lengths_are_true() -> None:
    (batch,) = batches(dataset([3, 1], [2, 4]), 1, BatchOptions(batch_size=100))
    assert batch.data["data"].tolist() == [[[0, 1], [2, 3], [4, 5]], [[0, 1], [0, 0], [0, 0]]]
    assert batch.data["classes"].tolist() == [[0, 1, 0, 0], [0, 1, 2, 3]]
    assert {key: lens.tolist() for key, lens in batch.seq_lens.items()} == {"data": [3, 1], "classes": [2, 4]}
    assert all(lens.dtype == np.int32 for lens in batch.seq_lens.values())
    assert (batch.tags, batch.seq_indices) == (("seq-0", "seq-1"), (0, 1))


def test_overlong_sequence_is_a_batch_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = list(batches(dataset([2, 9, 2]), 1, BatchOptions(batch_size=4)))
    assert [batch.seq_indices for batch in found] == [(0,), (1,), (2,)]
    assert "'seq-1' has 9 frames of 'data', more than batch_size 4" in caplog.text


def test_chunks_hold_the_frames_of_their_sequence() -> None:
    (batch,) = batches(dataset([5], [5]), 1, BatchOptions(batch_size=99, chunking=parse_chunking("4:3")))
    assert batch.data["classes"].tolist() == [[0, 1, 2, 3], [3, 4, 0, 0]]
    assert batch.seq_lens["data"].tolist() == [4, 2]


def test_chunks_of_keys_with_different_rates() -> None:
    chunking = parse_chunking({"data": "4:2", "classes": "2:1"})
    assert chunking == parse_chunking(({"data": 4, "classes": 2}, {"data": 2, "classes": 1}))
    (batch,) = batches(dataset([6], [3]), 1, BatchOptions(batch_size=99, chunking=chunking))
    assert batch.seq_lens["data"].tolist() == [4, 4, 2]
    assert batch.seq_lens["classes"].tolist() == [2, 2, 1]


@pytest.mark.parametrize("value", [None, "0", 0])
def test_no_chunking(value: object) -> None:
    assert parse_chunking(value) is None


@pytest.mark.parametrize(
    "value", ["5:x", "a", "5:0", {"data": "3:-1"}, ({"data": 3}, {"classes": 3}), ({"data": 3}, 3)]
)
def test_wrong_chunking_is_refused(value: object) -> None:
    with pytest.raises(DataError, match=r"chunking"):
        parse_chunking(value)


def test_chunks_of_unequal_number_are_refused() -> None:
    with pytest.raises(DataError, match=r"'seq-0' has lengths .*6.*3.* same number"):
        list(batches(dataset([6], [3]), 1, BatchOptions(batch_size=99, chunking=parse_chunking("4:2"))))


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("data", [[0.0, np.nan]], "'seq-1', data key 'data': the value at \\[0, 1\\] is nan"),
        ("data", [[np.inf, 0.0]], "is inf"),
        ("data", [[0.0, 1.0, 2.0]], "shape \\[1, 3\\], declared is \\[time, 2\\]"),
        ("classes", [0, 5], "label 5 at position 1 is not in 0..4"),
        ("classes", [-1], "label -1 at position 0"),
        ("classes", [0.5], "must be integers"),
    ],
)
def test_unusable_data_names_sequence_and_key(key: str, array: list, message: str) -> None:
    good = {"data": np.zeros((1, 2), np.float32), "classes": np.array([0])}
    bad = {**good, key: np.array(array)}
    data = StaticDataset([good, bad], output_dim={"data": (2, 2), "classes": (5, 1)})
    with pytest.raises(DataError, match=message):
        list(batches(data, 1, BatchOptions(batch_size=99)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be positive"),
        ({"batch_size": 9, "max_seqs": 0}, "max_seqs"),
        ({"batch_size": {"dat": 9}}, "names the data key 'dat'; the dataset has data"),
        (
            {"batch_size": 9, "max_seq_length": 1},
            "none of the 2 sequences of the epoch is left by max_seq_length 1; they have 2 to 3 frames of 'data'",
        ),
        (
            {"batch_size": 9, "min_seq_length": 4, "max_seq_length": {"data": 5}},
            "is left by min_seq_length 4 and max_seq_length {'data': 5}; they have 2 to 3 frames",
        ),
    ],
)
def test_wrong_limits_are_refused(options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(batches(dataset([2, 3]), 1, BatchOptions(**options)))
