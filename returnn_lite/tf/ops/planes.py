"""Lowerings of the recurrences on a plane."""

from __future__ import annotations

from returnn_lite.ir.ops.planes import PlaneLstmStep
from returnn_lite.tf.context import Family
from returnn_lite.tf.kernels.plane_rows import plane_row

lowers = Family()

lowers(PlaneLstmStep)(plane_row)
