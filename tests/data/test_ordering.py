"""Sequence orders and batches: those that RETURNN made of the same lengths, and what the options promise."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from returnn_lite.data.ordering import ORDERS, OrderingError, SeqOrdering

RECORDED = json.loads((Path(__file__).parent / "returnn_orders.json").read_text())
LENGTHS = np.array(RECORDED["lengths"])


def order(ordering: SeqOrdering, epoch: int, lengths: np.ndarray = LENGTHS) -> list[int]:
    return ordering.order(epoch, len(lengths), lambda: lengths, lambda index: f"seq-{index}").tolist()


@pytest.mark.parametrize(("name", "options", "epoch", "expected"), RECORDED["orders"])
def test_order_is_that_of_returnn(name: str, options: dict, epoch: int, expected: list[int]) -> None:
    assert order(SeqOrdering(seq_ordering=name, **options), epoch) == expected


@given(
    st.sampled_from([name for name in ORDERS if name not in ("random_sample", "default_every_n")]),
    st.integers(1, 5),
    st.lists(st.integers(1, 20), min_size=1, max_size=30),
)
def test_parts_make_up_a_permutation(name: str, parts: int, lengths: list[int]) -> None:
    ordering = SeqOrdering(seq_ordering=name, partition_epoch=parts)
    found = [i for epoch in range(1, parts + 1) for i in order(ordering, epoch, np.array(lengths))]
    assert sorted(found) == list(range(len(lengths)))


def test_filter_file_keeps_the_order(tmp_path: Path) -> None:
    (tmp_path / "tags").write_text("seq-7\nseq-1\nseq-3\n")
    ordering = SeqOrdering(seq_ordering="reverse", seq_list_filter_file=str(tmp_path / "tags"))
    assert order(ordering, 1) == [7, 3, 1]


def test_tags_of_the_filter_file_may_have_spaces(tmp_path: Path) -> None:
    (tmp_path / "tags").write_text("part 7\n\n  part 1 \r\n3\n")
    ordering = SeqOrdering(seq_list_filter_file=str(tmp_path / "tags"))
    assert ordering.order(1, 9, lambda: LENGTHS, lambda index: f"part {index}").tolist() == [1, 7]


def test_function_of_the_config_reads_the_lengths_once() -> None:
    calls: list[int] = []

    def lengths() -> np.ndarray:
        calls.append(1)
        return LENGTHS

    ordering = SeqOrdering(seq_ordering=lambda epoch, num_seqs, get_seq_len: sorted(range(num_seqs), key=get_seq_len))
    found = ordering.order(1, len(LENGTHS), lengths, str)
    assert (found.tolist(), len(calls)) == (np.argsort(LENGTHS, kind="stable").tolist(), 1)


def test_function_of_the_config() -> None:
    ordering = SeqOrdering(seq_ordering=lambda epoch, num_seqs, get_seq_len: [num_seqs - 1, epoch, get_seq_len(0)])
    assert order(ordering, 2) == [12, 2, LENGTHS[0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seq_ordering": "radom"}, "no sequence order 'radom'"),
        ({"seq_ordering": "random:x"}, "'x' in the order 'random:x'"),
        ({"seq_ordering": "laplace:0"}, "not a positive number"),
        ({"seq_ordering": "sorted:3"}, "takes no argument"),
        ({"seq_ordering": "default_every_n"}, "needs a number"),
        ({"partition_epoch": 2, "repeat_epoch": 2}, "contradict"),
        ({"partition_epoch": 0}, "count from 1"),
        ({"seq_list_filter_file": "/no/such/file"}, "/no/such/file"),
    ],
)
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(OrderingError, match=message):
        SeqOrdering(**options)
