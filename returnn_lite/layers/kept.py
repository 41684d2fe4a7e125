"""What one batch leaves for the next, for each sequence in its place: `keep_over_epoch` (SEMANTICS 3.6), `stateful`."""

from __future__ import annotations

from typing import Final, Literal

from returnn_lite.dims import Dim, TensorType
from returnn_lite.ir.ops.sources import Initializer, Parameter, Storage

KEPT: Final = ("keep_over_epoch", "keep_over_epoch_no_init")
"""The values of initial_state and initial_output; the first begins with 0 in each epoch."""
STATEFUL: Final = "stateful: true"
"""What stands for the first where the option says it; checkpoints have these states."""


def kept_parameter(name: str, batch: Dim, type_: TensorType, given: str) -> Parameter:
    """The variable of a value of a type, which has an entry for each sequence of the batch."""
    zero = Initializer("constant", (("value", 0.0),))
    dims = (batch, *(dim for dim in type_.dims if dim is not batch))
    storage = Storage(saved=given == STATEFUL)
    kept: Literal["epoch", "never"] = "never" if given == KEPT[1] else "epoch"
    return Parameter(name, dims, zero, type_.dtype, trainable=False, kept=kept, storage=storage)
