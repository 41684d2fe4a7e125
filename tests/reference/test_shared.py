"""What is the same for all sequences, of results that have a place for each of them."""

from __future__ import annotations

import numpy as np
import pytest

from returnn_lite.dims import Symbol
from tests.passes.meaning import B, F
from tests.reference.interpreter import shared
from tests.reference.named import Lengths, Named

T = Symbol("T", varies_over=(B,))
LENGTHS = Lengths({B: Named(np.array(2), ()), T: Named(np.array([1, 2]), (B,))})
NONE = Lengths({B: Named(np.array(2), ()), T: Named(np.array([0, 0]), (B,))})


def test_it_is_that_of_a_sequence_with_the_frame() -> None:
    found = shared(Named(np.array([[3.0, 9.0], [3.0, 4.0]]), (B, T)), (T,), LENGTHS)
    assert found.dims == (T,)
    np.testing.assert_array_equal(found.array, [3, 4])


def test_sequences_that_differ_share_nothing() -> None:
    with pytest.raises(AssertionError):
        shared(Named(np.array([[3.0, 9.0], [5.0, 4.0]]), (B, T)), (T,), LENGTHS)


def test_of_no_frames_it_is_nothing() -> None:
    found = shared(Named(np.zeros((2, 0, 2)), (B, T, F)), (T, F), NONE)
    assert (found.dims, found.array.shape) == ((T, F), (0, 2))
