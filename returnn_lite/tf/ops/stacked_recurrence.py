"""The lowering of recurrences that are one primitive together."""

from __future__ import annotations

from returnn_lite.ir.ops.stacked_recurrence import StackedRecurrence
from returnn_lite.tf.context import Family
from returnn_lite.tf.kernels.cudnn import stacked_recurrence

lowers = Family()

lowers(StackedRecurrence)(stacked_recurrence)
