"""Lowerings of dot, convolution and pooling."""

from __future__ import annotations

from returnn_lite.ir.ops.contraction import Conv, Dot, Pool, TransposedConv
from returnn_lite.tf.context import Context, Family
from returnn_lite.tf.kernels.convolution import convolve, convolve_transposed, pool
from returnn_lite.tf.layout import Tensor
from returnn_lite.tf.product import dot_masked

lowers = Family()


@lowers(Dot)
def dot(c: Context, op: Dot, a: Tensor, b: Tensor) -> Tensor:
    return dot_masked(c, a, b, op.over)


@lowers(Conv)
def conv(c: Context, op: Conv, x: Tensor, filters: Tensor) -> Tensor:
    return convolve(c, op, x, filters)


@lowers(TransposedConv)
def transposed_conv(c: Context, op: TransposedConv, x: Tensor, filters: Tensor) -> Tensor:
    return convolve_transposed(c, op, x, filters)


@lowers(Pool)
def pooling(c: Context, op: Pool, x: Tensor) -> Tensor:
    return pool(c, op, x)
