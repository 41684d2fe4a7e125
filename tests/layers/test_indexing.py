"""Slices, gathering, ranges and appended frames, per sequence: values that NumPy or the definition gives."""

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.ir.batches import BatchError

DATA = np.arange(1, 13, dtype="float32").reshape(2, 3, 2)
LENGTHS = [3, 2]


def run(layer: dict[str, object], **more: dict[str, object]) -> tuple[np.ndarray, list[int]]:
    """The output and the lengths of a layer `output` on two sequences of 3 and 2 frames."""
    network = {**more, "output": {"from": "data", **layer}}
    net = rl.compile(network, extern_data={"data": {"dim": 2}}, mode="forward", behavior_version=21)
    out = net.run({"data": DATA}, seq_lens={"data": LENGTHS}).layers["output"]
    lengths = [out.seq_lens[dim] for dim in out.dims if dim in out.seq_lens]
    return np.asarray(out.value), list(map(int, lengths[0])) if lengths else []


@pytest.mark.parametrize(
    ("start", "end", "lengths"), [(1, None, [2, 1]), (0, 2, [2, 2]), (2, 3, [1, 0]), (0, -1, [2, 1]), (1, 9, [2, 1])]
)
def test_slice_cuts_each_sequence(start: int, end: int | None, lengths: list[int]) -> None:
    value, found = run({"class": "slice", "axis": "T", "slice_start": start, "slice_end": end})
    assert found == lengths
    for b, length in enumerate(LENGTHS):
        np.testing.assert_array_equal(value[b, : lengths[b]], DATA[b, :length][start:end])


def test_slice_steps_behind_its_end() -> None:
    value, found = run({"class": "slice", "axis": "T", "slice_end": 3, "slice_step": 2})
    assert found == [2, 1]
    np.testing.assert_array_equal(value[0], DATA[0, ::2])


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ({"class": "prefix_in_time", "prefix": 0.5}, [[0.5, 1, 3, 5], [0.5, 7, 9]]),
        ({"class": "postfix_in_time", "postfix": 0.5, "repeat": 2}, [[1, 3, 5, 0.5, 0.5], [7, 9, 0.5, 0.5]]),
        ({"class": "repeat", "repetitions": 2}, [[1, 1, 3, 3, 5, 5], [7, 7, 9, 9]]),
    ],
)
def test_frames_are_added_to_each_sequence(layer: dict[str, object], expected: list[list[float]]) -> None:
    value, found = run(layer)
    assert found == [len(row) for row in expected]
    for b, row in enumerate(expected):
        np.testing.assert_array_equal(value[b, : len(row), 0], row)


def test_split_has_parts() -> None:
    value, _ = run({"class": "copy", "from": "s/1"}, s={"class": "split", "num_splits": 2, "from": "data"})
    np.testing.assert_array_equal(value[0, :, 0], DATA[0, :, 1])


def test_slice_of_step_zero_is_refused() -> None:
    with pytest.raises(rl.ConfigError, match="can't be 0"):
        run({"class": "slice", "axis": "T", "slice_step": 0})


def test_window_that_begins_at_a_frame_of_each_sequence() -> None:
    length = {"class": "length", "axis": "T", "from": "data"}
    start = {"class": "eval", "eval": "source(0) - 1", "from": "length"}
    value, found = run({"class": "slice_nd", "start": "start", "size": None}, length=length, start=start)
    assert found == [1, 1]
    np.testing.assert_array_equal(value[:, 0], [DATA[0, 2], DATA[1, 1]])


def test_positions_that_all_sequences_share_leave_out_padding() -> None:
    """0, 1, 2 along the time have no batch dim, but the second sequence has no frame 2."""
    value, _ = run(
        {
            "class": "scatter_nd",
            "position": "places",
            "position_axis": "T",
            "out_spatial_dim": rl.Dim("two", rl.DimKind.SPATIAL, 2),
        },
        numbers={"class": "range_in_axis", "axis": "T", "from": "data"},
        places={"class": "eval", "eval": "source(0) % 2", "from": "numbers"},
    )
    rows = [row[:length] for row, length in zip(DATA, LENGTHS, strict=True)]
    expected = [[row[0::2].sum(axis=0), row[1::2].sum(axis=0)] for row in rows]
    np.testing.assert_array_equal(value, expected)


def test_windows_have_the_time_of_their_starts() -> None:
    """One window for each frame: a sum over T is over those, as it is after gather."""
    value, found = run(
        {"class": "reduce", "mode": "sum", "axis": "T", "from": "window"},
        starts={"class": "range_in_axis", "axis": "T", "from": "data"},
        per_sequence={"class": "eval", "eval": "source(0) + source(1) * 0", "from": ["starts", "length"]},
        length={"class": "length", "axis": "T", "from": "data"},
        window={"class": "slice_nd", "start": "per_sequence", "size": 2, "from": "data"},
    )
    assert found == []
    rows = [np.concatenate([row[:length], np.zeros((1, 2))]) for row, length in zip(DATA, LENGTHS, strict=True)]
    expected = [sum(row[t : t + 2] for t in range(len(row) - 1)) for row in rows]
    np.testing.assert_array_equal(value, expected)


@pytest.mark.tensorflow
@pytest.mark.parametrize("filtered", [True, False])
def test_positions_out_of_range_are_left_out_only_on_request(filtered: bool) -> None:
    """Position 2 of a dim of size 2, at a frame that only the first sequence has; padding is no such position."""
    layer = {
        "class": "scatter_nd",
        "position": "places",
        "position_axis": "T",
        "out_spatial_dim": rl.Dim("two", rl.DimKind.SPATIAL, 2),
        "filter_invalid_indices": filtered,
    }
    places = {"class": "range_in_axis", "axis": "T", "from": "data"}
    if not filtered:
        with pytest.raises(BatchError, match=r"a position is none of the 2 of two.*filter_invalid_indices"):
            run(layer, places=places)
        return
    value, _ = run(layer, places=places)
    np.testing.assert_array_equal(value, DATA[:, :2])
