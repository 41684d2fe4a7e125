"""Along the dims that a primitive does not say it works along, each frame is computed from itself: frames in another
order give the results in that order."""

from __future__ import annotations

import numpy as np
import pytest

from returnn_lite.dims import Dim
from tests.reference.interpreter import RULES
from tests.reference.named import Array, Lengths, Named
from tests.tf.cases import CASES, LENGTHS, B, Case, T
from tests.tf.more_cases import MORE_CASES
from tests.tf.test_primitives import random_feeds

# The mask of "hold" lets more frames through than there are.
OF_RULES = [case for case in (*CASES, *MORE_CASES) if type(case.op) in RULES and case.name != "hold"]


def results(case: Case, order: dict[Dim, Array]) -> list[Named]:
    """What the primitive gives for its operands with the frames of some dims in another order, put back into the
    first."""
    batch = order.get(B, np.arange(len(LENGTHS[T])))
    known = {dim: Named(np.array(lengths)[batch], (B,)) for dim, lengths in LENGTHS.items()}
    lengths = Lengths(known | {B: Named(np.array(len(LENGTHS[T])), ())})
    operands = []
    for array, (dims, _) in zip(random_feeds(case, 1).values(), case.operands, strict=True):
        for dim in set(dims) & set(order):
            array = array.take(order[dim], dims.index(dim))
        operands.append(Named(array, dims))
    with np.errstate(all="ignore"):
        found = RULES[type(case.op)](case.op, lengths, *operands)
    moved = []
    for one in found if isinstance(found, tuple) else (found,):
        array = one.array
        for dim in set(one.dims) & set(order):
            array = array.take(np.argsort(order[dim]), one.axis(dim))
        moved.append(Named(array, one.dims))
    return moved


@pytest.mark.parametrize("case", OF_RULES, ids=str)
def test_frames_of_other_dims_know_nothing_of_each_other(case: Case) -> None:
    generator = np.random.default_rng(2)
    along = set(case.op.along(*case.types()))
    dims = {dim for dims, _ in case.operands for dim in dims if dim is B or dim.size is not None}
    for dim in dims - along - {part for one in along for part in one.leaves | {one}}:
        order = {dim: generator.permutation(len(LENGTHS[T]) if dim is B else dim.size or 0)}
        for one, other in zip(results(case, {}), results(case, order), strict=True):
            if dim not in one.dims:
                continue
            np.testing.assert_allclose(other.array, one.array, rtol=1e-9, atol=1e-12, err_msg=dim.name)
