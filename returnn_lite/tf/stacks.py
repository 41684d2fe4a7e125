"""What a loop's body leaves at each step, collected into whole values."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.ir import Value
from returnn_lite.tf.context import Context
from returnn_lite.tf.layout import Tensor, move_first
from returnn_lite.tf.product import multiplied, own_shape
from returnn_lite.tf.sizes import Size


@dataclass
class Column:
    """One value a step. `local` are those of its dims whose length each step determines anew.

    `tensor` is set when the body is traced: only then is the layout known. Values with local dims differ in size from
    step to step, so they are written flat, end to end, with their sizes beside.
    """

    source: Value | Dim
    dtype: tf.DType
    local: tuple[Dim, ...] = ()
    tensor: Tensor | None = None

    @property
    def array_count(self) -> int:
        return 2 if self.local else 1

    def arrays(self, size: Size | None) -> list[tf.TensorArray]:
        """Arrays for `size` steps, or growing ones."""
        dtypes = [self.dtype, tf.int32][: self.array_count]
        return [step_array(dtype, size) for dtype in dtypes]

    def entries(self, c: Context, tensor: Tensor) -> list[tf.Tensor]:
        """What a step writes into the arrays."""
        self.tensor = move_first(tensor, *(dim for dim in tensor.dims if dim in self.local))
        if not self.local:
            return [self.tensor.raw]
        count = len(self.local)
        shape = own_shape(self.tensor.raw)
        flat = tf.reshape(self.tensor.raw, [multiplied(shape[:count]), *shape[count:]])
        return [flat, tf.stack(c.shape(self.tensor.dims[:count]))]

    def whole(self, c: Context, over: Dim, arrays: list[tf.TensorArray], trim: bool) -> Tensor:
        """The stack along `over`, padded to the longest step; with `trim`, of its first steps alone."""
        assert self.tensor is not None
        raw = self._padded(c, over, arrays) if self.local else stack(arrays[0], self.dtype, c.shape(self.tensor.dims))
        if trim:
            raw = raw[: c.size(over)]
        dims = (over, *self.tensor.dims)
        return Tensor(tf.ensure_shape(raw, [dim.size for dim in dims]), dims, finite=self.tensor.finite)

    def _padded(self, c: Context, over: Dim, arrays: list[tf.TensorArray]) -> tf.Tensor:
        assert self.tensor is not None
        count = len(self.local)
        local, rest = self.tensor.dims[:count], self.tensor.dims[count:]
        sizes = stack(arrays[1], tf.int32, [count])[: c.size(over)]
        flat, _ = tf.raw_ops.TensorListConcatV2(
            input_handle=arrays[0].flow,
            element_shape=tf.convert_to_tensor([-1, *c.shape(rest)], tf.int32),
            leading_dims=tf.zeros([0], tf.int64),
            element_dtype=self.dtype,
        )
        starts = tf.cumsum(tf.reduce_prod(sizes, 1), exclusive=True)
        index = tf.reshape(starts, [-1] + [1] * count)
        inside = tf.ones_like(index, tf.bool)
        stride: tf.Tensor = tf.ones_like(index)
        for position in reversed(range(count)):
            own = tf.reshape(sizes[:, position], [-1] + [1] * count)
            numbers = tf.reshape(tf.range(c.size(local[position])), [-1] + [1] * (count - 1 - position))
            inside = tf.logical_and(inside, numbers < own)
            index = index + numbers * stride
            stride = stride * own
        flat = tf.concat([flat, tf.zeros([1, *c.shape(rest)], self.dtype)], 0)
        return tf.gather(flat, tf.where(inside, index, tf.shape(flat)[0] - 1))


def step_array(dtype: tf.DType, size: Size | None) -> tf.TensorArray:
    """An array for `size` entries, or a growing one."""
    return tf.TensorArray(dtype, 0 if size is None else size, dynamic_size=size is None, infer_shape=False)


def stack(array: tf.TensorArray, dtype: tf.DType, shape: list[Size]) -> tf.Tensor:
    """The entries of an array along a new first axis. Unlike `TensorArray.stack` it takes a run-time shape, so that
    none at all can be stacked too."""
    return tf.raw_ops.TensorListStack(
        input_handle=array.flow,
        element_shape=tf.convert_to_tensor(shape, tf.int32),
        element_dtype=dtype,
        num_elements=-1,
    )
