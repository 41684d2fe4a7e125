"""What one batch leaves for the next, for each sequence in its place: `keep_over_epoch` (SEMANTICS 3.6)."""

from __future__ import annotations

from typing import Final

from returnn_lite.dims import Dim, TensorType
from returnn_lite.ir import Value
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.sources import AssignParameter, Initializer, Parameter

KEPT: Final = ("keep_over_epoch", "keep_over_epoch_no_init")
"""The values of initial_state and initial_output; the first begins with 0 in each epoch."""


def keep_frames(b: Builder, before: Value, frames: Value, over: Dim) -> None:
    """Has frames along `over` assigned to the parameter that `before` reads, in place of those along its own dim."""
    node = b.producer(before)
    assert node is not None and isinstance(node.op, Parameter), "only a parameter can be assigned"
    own = node.op.created_dims()
    dims = tuple(over if dim in own else dim for dim in node.op.dims)
    b.require_computed(b.apply(AssignParameter(node.op.name, dims), b.expand(frames, *dims)))


def kept_parameter(name: str, batch: Dim, type_: TensorType, given: str) -> Parameter:
    """The variable of a value of a type, which has an entry for each sequence of the batch."""
    zero = Initializer("constant", (("value", 0.0),))
    dims = (batch, *(dim for dim in type_.dims if dim is not batch))
    return Parameter(name, dims, zero, type_.dtype, trainable=False, kept="epoch" if given == KEPT[0] else "never")
