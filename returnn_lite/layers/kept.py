"""What one batch leaves for the next, for each sequence in its place: `keep_over_epoch` (SEMANTICS 3.6)."""

from __future__ import annotations

from typing import Final

from returnn_lite.dims import Dim, TensorType
from returnn_lite.ir.ops.sources import Initializer, Parameter

KEPT: Final = ("keep_over_epoch", "keep_over_epoch_no_init")
"""The values of initial_state and initial_output; the first begins with 0 in each epoch."""


def kept_parameter(name: str, batch: Dim, type_: TensorType, given: str) -> Parameter:
    """The variable of a value of a type, which has an entry for each sequence of the batch."""
    zero = Initializer("constant", (("value", 0.0),))
    dims = (batch, *(dim for dim in type_.dims if dim is not batch))
    return Parameter(name, dims, zero, type_.dtype, trainable=False, kept="epoch" if given == KEPT[0] else "never")
