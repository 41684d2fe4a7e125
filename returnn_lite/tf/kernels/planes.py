"""The 2D LSTM on a whole plane.

A frame needs the frame to its left and the one above it, so those of one diagonal need nothing of each other: the plane
is a loop over diagonals, each of which is one product. The backward loop leaves the gradients of the pre-activations,
from which one product after the loop makes the gradient of each weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from returnn_lite.ir.ops.planes import PlaneLstmStep
from returnn_lite.ir.ops.recurrence import Recurrence
from returnn_lite.tf.context import Context
from returnn_lite.tf.gradient_rules import with_gradient
from returnn_lite.tf.kernels.plane_rows import Activations, backward, forward
from returnn_lite.tf.kernels.recurrences import Tensors
from returnn_lite.tf.layout import Tensor, common_layout
from returnn_lite.tf.mask import broadcast
from returnn_lite.tf.product import multiplied
from returnn_lite.tf.sizes import Size
from returnn_lite.tf.stacks import stack


def whole_plane(
    c: Context,
    op: Recurrence[PlaneLstmStep],
    z_along: Tensor,
    z_row: Tensor,
    w_left: Tensor,
    w_above: Tensor,
    h: Tensor,
    old: Tensor,
) -> tuple[Tensor, Tensor]:
    """All rows. What goes along a row is either the same for all of them, or comes for each frame of the plane."""
    cell, over = op.step.cell, op.over
    own = (over, cell.along, cell.gates, cell.hidden)
    batch = tuple(dim for dim in common_layout([z_along, z_row, h, old]) if dim not in own)
    sequences = multiplied(c.shape(batch))
    plane = Plane(c.size(over), c.size(cell.along), sequences, over in z_along.dims)

    def flat(x: Tensor, *dims: Any) -> tf.Tensor:
        raw = broadcast(c.sizes, x, (*dims[:-1], *batch, dims[-1])).raw
        return tf.reshape(raw, [multiplied(c.shape(dims[:-1])), sequences, dims[-1].size])

    frames = (over, cell.along) if plane.each_frame else (cell.along,)
    arguments = [flat(z_along, *frames, cell.gates), flat(z_row, over, cell.gates)]
    arguments += [flat(row, cell.along, cell.hidden) for row in (h, old)]
    arguments += [weights.in_order((cell.recurrent, cell.gates)) for weights in (w_left, w_above)]
    dims = (over, cell.along, *batch, cell.hidden)
    results = _differentiable(plane, arguments, c.wanted(2))
    outputs, states = (Tensor(tf.reshape(raw, [*c.shape(dims[:-1]), cell.hidden.size]), dims) for raw in results)
    return outputs, states


@dataclass(frozen=True)
class Plane:
    """A plane of `height` rows of `width` frames, each a batch of `sequences`, and its diagonals: the frames of number
    d are those with x + y = d, in the order of rows.

    Tensors of all frames are [height * width, sequences, features], row by row. With `each_frame` the input along the
    rows is one of these, else it is the same for all rows.
    """

    height: Size
    width: Size
    sequences: Size
    each_frame: bool

    @property
    def diagonals(self) -> tf.Tensor:
        """How many there are."""
        return tf.where(tf.minimum(self.height, self.width) > 0, self.height + self.width - 1, 0)

    def first(self, d: tf.Tensor) -> tf.Tensor:
        """The first row of a diagonal."""
        return tf.maximum(0, d - self.width + 1)

    def rows(self, d: tf.Tensor) -> tf.Tensor:
        """How many rows a diagonal goes through."""
        return tf.minimum(self.height - 1, d) - self.first(d) + 1

    def frames(self, d: tf.Tensor) -> tf.Tensor:
        """The frames of a diagonal."""
        y = tf.range(self.first(d), self.first(d) + self.rows(d))
        return y * self.width + d - y

    def by_rows(self, array: tf.TensorArray, dtype: tf.DType, size: int) -> tf.Tensor:
        """All frames from an array that has an entry for each diagonal."""
        flat, _ = tf.raw_ops.TensorListConcatV2(
            input_handle=array.flow,
            element_shape=tf.convert_to_tensor([-1, self.sequences, size], tf.int32),
            leading_dims=tf.zeros([0], tf.int64),
            element_dtype=dtype,
        )
        y, x = tf.range(self.height)[:, None], tf.range(self.width)
        starts = tf.cumsum(self.rows(tf.range(self.diagonals)), exclusive=True)
        index = tf.gather(starts, y + x) + y - self.first(y + x)
        return tf.ensure_shape(tf.gather(flat, tf.reshape(index, [-1])), [None, None, size])

    def input(self, d: tf.Tensor, z_along: tf.Tensor, z_rows: tf.Tensor) -> tf.Tensor:
        """The input product of a diagonal."""
        frames = self.frames(d)
        along = tf.gather(z_along, frames if self.each_frame else frames % tf.maximum(self.width, 1))
        return along + z_rows[self.first(d) : self.first(d) + self.rows(d)]


def _differentiable(plane: Plane, arguments: Sequence[tf.Tensor], wanted: Sequence[bool]) -> Tensors:
    """Outputs and states of all frames, with their gradient."""
    results, kept = _forward(plane, *arguments)

    def gradient(*upstream: tf.Tensor) -> Tensors:
        used = [d if is_used else None for d, is_used in zip(upstream, wanted, strict=True)]
        return _backward(plane, arguments, results[0], kept, used)

    return with_gradient(results, arguments, gradient)


def _forward(
    plane: Plane,
    z_along: tf.Tensor,
    z_rows: tf.Tensor,
    h0: tf.Tensor,
    c0: tf.Tensor,
    w_left: tf.Tensor,
    w_above: tf.Tensor,
) -> tuple[Tensors, list[tf.TensorArray]]:
    """h and c of all frames, and for each diagonal what the backward loop needs."""
    size = w_left.shape[0]
    weights = tf.concat([w_left, w_above], 0)

    def step(d: tf.Tensor, before: Tensors, arrays: list[tf.TensorArray]) -> Any:
        # The row that is new in a diagonal has nothing to its left; the first has the plane's border above it.
        x = tf.minimum(d, plane.width - 1)
        start, count = plane.first(d) - plane.first(d - 1), plane.rows(d)
        framed = [
            tf.concat([row[x : x + 1], own, tf.zeros_like(row[:1])], 0)
            for row, own in zip((h0, c0), before, strict=True)
        ]
        left_h, left_c = (part[start + 1 : start + 1 + count] for part in framed)
        above_h, above_c = (part[start : start + count] for part in framed)
        product = tf.matmul(tf.reshape(tf.concat([left_h, above_h], -1), [-1, 2 * size]), weights)
        z = plane.input(d, z_along, z_rows) + tf.reshape(product, [count, plane.sequences, 5 * size])
        new_h, new_c, kept = forward(z, left_c, above_c)
        entries = [new_h, new_c, *kept.tensors]
        return d + 1, [new_h, new_c], [a.write(d, entry) for a, entry in zip(arrays, entries, strict=True)]

    empty = tf.zeros([0, plane.sequences, size], z_along.dtype)
    arrays = _over_diagonals(plane, tf.constant(0), 1, step, [empty, empty], 7)
    return [plane.by_rows(array, z_along.dtype, size) for array in arrays[:2]], arrays[2:]


def _backward(
    plane: Plane,
    arguments: Sequence[tf.Tensor],
    outputs: tf.Tensor,
    kept: list[tf.TensorArray],
    upstream: list[tf.Tensor | None],
) -> Tensors:
    """The gradients of the arguments of `_forward`."""
    z_along, _, h0, _, w_left, w_above = arguments
    size, dtype = w_left.shape[0], z_along.dtype
    weights = tf.concat([tf.transpose(w_left), tf.transpose(w_above)], 1)

    def step(d: tf.Tensor, after: Tensors, arrays: list[tf.TensorArray]) -> Any:
        # `after`: what the next diagonal sends to the left and above. A frame's right neighbour is in its own row
        # there, the one below in the next row; those outside of the plane send nothing.
        start, count = plane.first(d) - plane.first(d + 1) + 1, plane.rows(d)
        nothing = tf.zeros([1, plane.sequences, size], dtype)
        framed = [tf.concat([nothing, own, nothing], 0) for own in after]
        dh, dc = (framed[k][start : start + count] + framed[k + 2][start + 1 : start + 1 + count] for k in (0, 1))
        frames = plane.frames(d)
        dh, dc = (
            sent if up is None else sent + tf.gather(up, frames) for sent, up in zip((dh, dc), upstream, strict=True)
        )
        widths = (4 * size, size, size, size, size)
        saved = [tf.ensure_shape(a.read(d), [None, None, width]) for a, width in zip(kept, widths, strict=True)]
        dz, left_c, above_c = backward(Activations(*saved), dh, dc)
        product = tf.matmul(tf.reshape(dz, [-1, 5 * size]), weights)
        left_h, above_h = tf.split(tf.reshape(product, [count, plane.sequences, 2 * size]), 2, -1)
        entries = [dz, above_h[0], above_c[0]]
        sent = [left_h, left_c, above_h, above_c]
        return d - 1, sent, [a.write(d, entry) for a, entry in zip(arrays, entries, strict=True)]

    empty = tf.zeros([0, plane.sequences, size], dtype)
    arrays = _over_diagonals(plane, plane.diagonals - 1, -1, step, [empty] * 4, 3)
    dz = plane.by_rows(arrays[0], dtype, 5 * size)
    # The first frames of the first `width` diagonals are those of the first row.
    d_h0, d_c0 = (
        _padded_to(stack(array, dtype, [plane.sequences, size])[: plane.width], plane.width) for array in arrays[1:]
    )
    by_rows = tf.reshape(dz, [plane.height, plane.width, plane.sequences, 5 * size])
    h = tf.reshape(outputs, [plane.height, plane.width, plane.sequences, size])
    above = tf.concat([tf.reshape(h0, [1, plane.width, plane.sequences, size]), h[:-1]], 0)[: plane.height]
    d_left = _product(h[:, :-1], by_rows[:, 1:])
    d_above = _product(above, by_rows)
    d_along = dz if plane.each_frame else tf.reduce_sum(by_rows, 0)
    return [d_along, tf.reduce_sum(by_rows, 1), d_h0, d_c0, d_left, d_above]


def _over_diagonals(
    plane: Plane, start: tf.Tensor, direction: int, step: Callable[..., Any], states: Tensors, count: int
) -> list[tf.TensorArray]:
    """The arrays that a loop over all diagonals, forwards or backwards, writes."""
    number = plane.diagonals
    arrays = [tf.TensorArray(states[0].dtype, number, infer_shape=False, clear_after_read=False) for _ in range(count)]
    shapes = [tf.TensorShape([None, None, state.shape[-1]]) for state in states]
    invariants = (tf.TensorShape([]), shapes, [tf.TensorShape(None)] * count)

    def more(d: tf.Tensor, *_: Any) -> tf.Tensor:
        return d < number if direction > 0 else d >= 0

    _, _, arrays = tf.while_loop(more, step, (start, states, arrays), invariants)
    return list(arrays)


def _padded_to(rows: tf.Tensor, size: Size) -> tf.Tensor:
    """With zeros to that many rows: there are fewer only if the plane has no rows."""
    return tf.pad(rows, [[0, size - tf.shape(rows)[0]], [0, 0], [0, 0]])


def _product(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """The product of two matrices over all axes but the last."""
    return tf.matmul(tf.reshape(a, [-1, a.shape[-1]]), tf.reshape(b, [-1, b.shape[-1]]), transpose_a=True)
