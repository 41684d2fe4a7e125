"""The lowering of a row of edit distances."""

from __future__ import annotations

from returnn_lite.ir.ops.edit_distances import EditDistanceStep
from returnn_lite.tf.context import Family
from returnn_lite.tf.kernels.edit_distances import edit_distance_step

lowers = Family()

lowers(EditDistanceStep)(edit_distance_step)
