"""Meanings of the primitives that change gradients: of values they are the identity."""

from __future__ import annotations

from collections.abc import Mapping

from returnn_lite.ir import Op
from returnn_lite.ir.ops.gradients import FilterGradient, TransformGradient
from tests.reference.named import Lengths, Named, union
from tests.reference.rule import Rule


def first(op: Op, lengths: Lengths, x: Named, *others: Named) -> Named:
    """The first operand, with the dims of all."""
    dims = union([x, *others])
    return Named(x.full(dims, lengths), dims)


RULES: Mapping[type[Op], Rule] = {FilterGradient: first, TransformGradient: first}
