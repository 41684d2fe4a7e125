"""The linear alignment of the CMU dictionary: a target for each slot of a transducer."""

from __future__ import annotations

import numpy as np
import pytest

from returnn_lite.data.cmudict import PHONEMES, CmuDictDataset, linear_alignment

BLANK = 40


@pytest.mark.parametrize(
    ("phonemes", "slots", "aligned"),
    [
        ("B", 2, ["", "B"]),
        ("K AE T", 6, ["", "K", "", "AE", "", "T"]),
        ("K AE T", 3, ["K", "AE", "T"]),
        ("K AE", 8, ["", "", "K", "", "", "", "AE", ""]),
    ],
)
def test_phonemes_are_spread_evenly(phonemes: str, slots: int, aligned: list[str]) -> None:
    found = linear_alignment(phonemes.split(), slots)
    assert found.tolist() == [PHONEMES.number(name) if name else BLANK for name in aligned]


def test_every_slot_has_a_target() -> None:
    dataset = CmuDictDataset("test", alignment="linear", max_words=300)
    plain = CmuDictDataset("test", max_words=300)
    assert dataset.keys["alignment"].dim == BLANK + 1
    assert 0 < dataset.num_seqs <= plain.num_seqs
    assert (dataset.lengths("data") == dataset.lengths("alignment")).all()
    for index in range(dataset.num_seqs):
        data = dataset.sequence(index).data
        assert (data["data"][::2] == data["data"][1::2]).all()
        np.testing.assert_array_equal(data["alignment"][data["alignment"] != BLANK], data["classes"][:-1])


def test_words_with_more_phonemes_than_slots_are_left_out() -> None:
    for part in ("train", "dev"):
        dataset = CmuDictDataset(part, alignment="linear")  # type: ignore[arg-type]
        assert (dataset.lengths("classes") - 1 <= dataset.lengths("data")).all()
        assert dataset.num_seqs < CmuDictDataset(part).num_seqs  # type: ignore[arg-type]
