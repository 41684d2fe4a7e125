"""What a network is fed with, and what it cannot take: told with key, sequence and what is wrong."""

from typing import Any

import numpy as np
import pytest

from returnn_lite.dims import DimKind, Symbol, TensorType
from returnn_lite.ir import Value
from returnn_lite.ir.batches import BatchError, checked_batch

B = Symbol("B", DimKind.BATCH)
T, S = (Symbol(name, DimKind.SPATIAL, None, (B,)) for name in ("time", "out"))
F, C = Symbol("F", DimKind.FEATURE, 2), Symbol("C", DimKind.FEATURE, 5)
WIDTH = Symbol("width")
DATA = Value("data", TensorType((B, T, F), "float32"))
ALIGNED = Value("aligned", TensorType((B, T), "int32", C))
LABELS = Value("labels", TensorType((B, S), "int32", C))
PICTURE, FILTER = (Value(name, TensorType((B, WIDTH), "float32")) for name in ("picture", "filter"))
X = np.zeros((2, 4, 2))
LENGTHS = {"data": [4, 3], "labels": [3, 1]}


def test_arrays_come_in_the_types_of_the_inputs_with_lengths_by_dim() -> None:
    data = {"data": X.astype(int), "aligned": np.ones((2, 4)), "labels": np.array([[1, 2, 3], [4, 77, 99]], "uint8")}
    batch = checked_batch([DATA, ALIGNED, LABELS], data, LENGTHS)  # padding may be anything
    assert {name: str(array.dtype) for name, array in batch.arrays.items()} == {
        "data": "float32",
        "aligned": "int32",
        "labels": "int32",
    }
    assert {dim.name: lengths.tolist() for dim, lengths in batch.lengths.items()} == {"time": [4, 3], "out": [3, 1]}


def test_one_key_of_a_dim_gives_its_lengths() -> None:
    batch = checked_batch([DATA, ALIGNED], {"data": X, "aligned": np.zeros((2, 3), int)}, {"aligned": [3, 2]})
    assert batch.lengths[T].tolist() == [3, 2]


def test_a_batch_of_no_sequences_and_sequences_of_no_frames() -> None:
    assert checked_batch([DATA], {"data": X[:0]}, {"data": np.zeros(0)}).lengths[T].shape == (0,)
    assert checked_batch([DATA], {"data": X[:, :0]}, {"data": [0, 0]}).lengths[T].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("data", "seq_lens", "message"),
    [
        ({"data": X[..., 0]}, {}, r"'data' has shape \[2, 4\], but the network takes \[B, time, 2\]"),
        ({"data": X[..., :1]}, {}, r"\[2, 4, 1\].*axis 2 \(F\) has 2 entries"),
        ({"data": [[1, 2], [3]]}, {}, "'data' is no array"),
        ({"data": X.astype(str)}, {}, "'data' has no numbers, but entries of dtype str"),
        ({"data": X + 1j}, {}, "'data' has numbers of dtype complex128, the network takes float32"),
        (
            {"labels": np.full((2, 3), 0.5)},
            {},
            "'labels' has float64 numbers that int32, which the network takes, has not",
        ),
        ({"labels": np.full((2, 3), np.nan)}, {}, "'labels' has float64 numbers that int32"),
        ({"labels": np.full((2, 3), 2**32 + 1)}, {}, "'labels' has int64 numbers that int32"),
        ({"labels": np.zeros((2, 3), object)}, {}, "'labels' has no numbers, but entries of dtype object"),
        ({"labels": np.zeros((3, 3), int)}, {"labels": [3, 1, 1]}, "'labels' has 3 sequences, 'data' has 2"),
        ({}, {"data": [4]}, r"seq_lens of 'data' has shape \[1\], but the batch has 2 sequences"),
        ({}, {"data": [4, 2.5]}, "seq_lens of 'data' are float64, but must be whole numbers"),
        ({}, {"data": [4, 5]}, "do not fit its array of 4 frames: sequence 1 has 5 frames$"),
        ({}, {"data": [-1, 3]}, "sequence 0 has -1 frames, which cannot be"),
        ({}, {"aligned": [4, 2]}, "share the dim time.*: sequence 1 has 3 frames of 'data' and 2 of 'aligned'"),
        ({"aligned": np.zeros((2, 3), int)}, {}, "the array of 'aligned' has 3 frames along time: sequence 0 has 4"),
        ({"labels": [[1, 2, 3], [7, 0, 0]]}, {}, "none of its 5 classes: sequence 1 has label 7 at frame 0$"),
        ({"labels": [[1, 2, -1], [0, 0, 0]]}, {}, "sequence 0 has label -1 at frame 2$"),
    ],
)
def test_what_does_not_fit_is_told(data: dict[str, Any], seq_lens: dict[str, Any], message: str) -> None:
    given = {"data": X, "aligned": np.zeros((2, 4), int), "labels": np.zeros((2, 3), int)} | data
    with pytest.raises(BatchError, match=message):
        checked_batch([DATA, ALIGNED, LABELS], given, LENGTHS | seq_lens)


def test_what_is_missing_is_told() -> None:
    with pytest.raises(BatchError, match="data has no 'labels'; the network needs data, labels"):
        checked_batch([DATA, LABELS], {"data": X}, LENGTHS)
    with pytest.raises(BatchError, match="seq_lens has no 'data'"):
        checked_batch([DATA], {"data": X}, {})


def test_an_axis_of_one_size_for_all_sequences() -> None:
    with pytest.raises(BatchError, match="'filter' has 4 entries along width, 'picture' has 3"):
        checked_batch([PICTURE, FILTER], {"picture": X[..., 0][:, :3], "filter": X[..., 0]}, {})


def test_sequences_have_the_tags_of_the_dataset_and_few_are_shown() -> None:
    error = BatchError("they differ", {row: f"has {row}" for row in range(5)}, "net.yaml:1:2: output", "Do this.")
    assert str(error).startswith("net.yaml:1:2: output: they differ: sequence 0 has 0; sequence 1 has 1")
    tags = [f"seq-{row}" for row in "abcde"]
    assert error.told(tags, 1) == ("net.yaml:1:2: output: they differ: sequence 'seq-a' has 0; so do 4 more. Do this.")
