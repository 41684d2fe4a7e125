"""What is known of frames beyond a sequence's length: whether they are numbers, how many there are."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

from returnn_lite.dims import DimKind, Symbol, product_dim
from returnn_lite.tf.layout import Tensor
from returnn_lite.tf.mask import dims_with, masked
from returnn_lite.tf.sizes import Sizes
from tests.tf.cases import B, S, T

FRAMES = Symbol("frames", DimKind.SPATIAL, None, (B, T))
"""Of each frame of T."""


@pytest.fixture
def sizes() -> Iterator[Sizes]:
    """T and S of two sequences, in a graph."""
    with tf.Graph().as_default():
        found = Sizes()
        found.define(B, Tensor(tf.constant(2), ()))
        found.define(T, Tensor(tf.constant([2, 1]), (B,)))
        found.define(S, Tensor(tf.constant([1, 3]), (B,)))
        found.define(FRAMES, Tensor(tf.constant([[1, 2], [3, 0]]), (B, T)))
        yield found


def values(*tensors: tf.Tensor) -> list[np.ndarray]:
    with tf.compat.v1.Session() as session:
        found: list[np.ndarray] = session.run(list(tensors))
        return found


def test_padding_is_a_number_once_all_of_it_is_filled(sizes: Sizes) -> None:
    wild = Tensor(tf.fill([2, 2, 3], math.inf), (B, T, S), finite=False)
    assert not masked(sizes, wild, [T]).finite
    assert not masked(sizes, wild, [S]).finite
    assert masked(sizes, wild, [T, S]).finite
    assert masked(sizes, Tensor(tf.zeros([2, 2, 3]), (B, T, S)), [T]).finite


def test_what_is_merged_with_a_padded_dim_has_its_padding(sizes: Sizes) -> None:
    """Both are as long as their longest sequences: where a sequence begins is not known otherwise."""
    merged = product_dim((T, S))
    (size,) = values(tf.convert_to_tensor(sizes.size(merged)))
    assert size == 2 * 3 and not sizes.has_padding(merged)


def test_at_a_step_frames_are_those_of_the_step(sizes: Sizes) -> None:
    """Lengths that differ from step to step; those of a dim that do not are the same inside."""
    inside = sizes.inside(T, tf.constant(1))
    mask = inside.mask(FRAMES)
    assert set(mask.dims) == {FRAMES, B}
    (found,) = values(mask.in_order((B, FRAMES)))
    np.testing.assert_array_equal(found, [[True, True, False], [False, False, False]])
    assert inside.mask(S) is sizes.mask(S)


def test_over_the_batch_frames_that_a_sequence_lacks_do_not_take_part(sizes: Sizes) -> None:
    x = Tensor(tf.zeros([2, 2, 3]), (B, T, S))
    assert set(dims_with(sizes, x, (B,))) == {B, T, S}
    assert dims_with(sizes, x, (T,)) == (T,)
