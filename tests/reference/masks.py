"""Meanings of the primitives of masks. `When` and `Current` are the interpreter's: they need the loop."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from returnn_lite.ir import Op
from returnn_lite.ir.ops.masks import Compress, Hold
from tests.reference.named import Array, Lengths, Named, filled, union
from tests.reference.rule import Rule
from tests.reference.sequences import per_sequence


def compress(op: Compress, lengths: Lengths, x: Named, mask: Named) -> Named:
    """The frames at which the mask is true."""
    true = filled(mask, (op.over,), False, lengths)
    batch = tuple(dim for dim in true.dims if dim != op.over)
    lengths.known[op.out] = Named(true.array.sum(true.axis(op.over)), batch)
    statics = tuple(dim for dim in x.dims if dim.size is not None and dim != op.over and dim not in mask.dims)
    operands = [(x, (op.over, *statics)), (mask, (op.over,))]
    return per_sequence(lengths, operands, [(op.out, *statics)], lambda frames, kept: frames[kept])[0]


def hold(op: Hold, lengths: Lengths, y: Named, mask: Named, init: Named) -> Named:
    """At each frame the last that the mask has let through, before that the initial value."""
    statics = tuple(dim for dim in union([y, init]) if dim.size is not None and dim != op.over and dim not in mask.dims)

    def of_one(frames: Array, true: Array, before: Array) -> Array:
        result = np.zeros((len(true), *before.shape), np.result_type(frames, before))
        held, taken = before, 0
        for t, passes in enumerate(true):
            if passes:
                held, taken = frames[taken], taken + 1
            result[t] = held
        return result

    operands = [(y, (op.over, *statics)), (mask, (op.out,)), (init, statics)]
    return per_sequence(lengths, operands, [(op.out, *statics)], of_one)[0]


RULES: Mapping[type[Op], Rule] = {Compress: compress, Hold: hold}
