"""The meaning of foreign cells: themselves, called on rows."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from returnn_lite.dims import TensorType
from returnn_lite.ir import Op
from returnn_lite.ir.ops.foreign import CellStep
from tests.reference.named import Array, Lengths, Named, without_padding
from tests.reference.rule import Rule


def cell_step(op: CellStep, lengths: Lengths, x: Named, *others: Named) -> tuple[Named, ...]:
    """The cell on each frame that draws numbers of its own, as if there were no other."""
    before, weights, seeds = op.parts(others)
    types = [TensorType(value.dims) for value in (x, *before, *seeds)]
    rows = op.rows(types[0], types[1 : 1 + len(before)], types[1 + len(before) :])
    frames = op.frames(rows)
    rows = (*frames, *(dim for dim in rows if dim not in frames))
    shape = [lengths.size(dim) for dim in rows]
    count = math.prod(shape[: len(frames)])
    dims = (op.features, *op.states)
    own = [weight.over(one) for weight, one in zip(weights, op.weights, strict=True)]

    def parts(value: Named, *features: object) -> Array:
        array = without_padding(value, lengths).full((*rows, *features), lengths)  # type: ignore[arg-type]
        return array.reshape([count, -1, array.shape[-1]])

    operands = [parts(value, dim) for value, dim in zip((x, *before), dims, strict=True)]
    draws = [
        seed.full((*frames, op.pair), lengths).reshape([count, 2]).astype("int32")  # type: ignore[arg-type]
        for seed in seeds
    ]
    found = [
        op.cell.step(operands[0][i], [one[i] for one in operands[1:]], own, [seed[i] for seed in draws], op.training)
        for i in range(count)
    ]
    made = (op.out, *op.states)
    sizes = [dim.size for dim in made]
    return tuple(
        Named(
            np.stack([np.asarray(step[k]) for step in found] or [np.zeros([0])]).reshape([*shape, sizes[k]]),
            (*rows, dim),
        )  # type: ignore[list-item]
        for k, dim in enumerate(made)
    )


RULES: Mapping[type[Op], Rule] = {CellStep: cell_step}
"""What the meaning of a primitive is to the interpreter."""
