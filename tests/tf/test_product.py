"""What beyond a sequence's length is no number is not multiplied, not even with zero."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from returnn_lite.tf.layout import Tensor
from returnn_lite.tf.product import dot, without_padding
from returnn_lite.tf.sizes import Sizes
from tests.tf.cases import B, F, T


@pytest.mark.parametrize("first", [True, False])
def test_zero_times_infinity_is_not_summed(first: bool) -> None:
    """Where one operand is known to be zero there, the other may have infinity."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        sizes = Sizes()
        sizes.define(B, Tensor(tf.constant(2), ()))
        sizes.define(T, Tensor(tf.constant([2, 1]), (B,)))
        wild = Tensor(tf.constant([[1.0, 2.0], [3.0, math.inf]]), (B, T), finite=False)
        zero = Tensor(tf.constant([[4.0, 5.0], [6.0, 0.0]]), (B, T), zero_beyond=frozenset({T}))
        a, b = without_padding(sizes, *((wild, zero) if first else (zero, wild)), (T,))
        np.testing.assert_array_equal(session.run(a.raw * b.raw), [[4, 10], [18, 0]])


@pytest.mark.parametrize("finite", [True, False])
def test_a_product_is_zero_where_an_operand_is_if_the_other_is_a_number(finite: bool) -> None:
    """Then what sums it need not mask it again."""
    with tf.Graph().as_default():
        sizes = Sizes()
        sizes.define(B, Tensor(tf.constant(2), ()))
        sizes.define(T, Tensor(tf.constant([2, 1]), (B,)))
        zero = Tensor(tf.ones([2, 2, F.size]), (B, T, F), zero_beyond=frozenset({T}))
        other = Tensor(tf.ones([2, 2, F.size]), (B, T, F), finite=finite)
        for operands in ((zero, other), (other, zero)):
            assert dot(sizes, *operands, (F,)).zero_beyond == (frozenset({T}) if finite else frozenset())
