"""A primitive among some frames of a dim: these are moved together, as shorter sequences, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import tensorflow as tf

from returnn_lite.dims import Dim, Symbol
from returnn_lite.ir import Op
from returnn_lite.ir.ops.among import Among
from returnn_lite.tf.context import Context
from returnn_lite.tf.gathers import frame_numbers, take
from returnn_lite.tf.layout import Tensor, merged_dims
from returnn_lite.tf.mask import broadcast, dims_with, masked
from returnn_lite.tf.ops.masks import compressed, true_positions

Results = tuple[Tensor, ...]


def lower_among(
    c: Context, op: Among, lower: Callable[[Context, Op, list[Tensor]], Results], absent: Tensor, *inputs: Tensor
) -> Results:
    """The results of `op.op`, which `lower` lowers, on the frames that take part."""
    mask = absent.with_raw(tf.logical_not(absent.raw))
    mask = masked(c.sizes, mask, dims_with(c.sizes, mask, [op.over]), False)
    if op.op.numbers_frames:
        frames = broadcast(c.sizes, inputs[0], merged_dims([inputs[0].dims, mask.dims]))
        zero = tf.zeros([], frames.dtype)
        frames = Tensor(tf.where(mask.aligned(frames.dims), frames.raw, zero), frames.dims)
        return lower(c, op.op, [frames, *inputs[1:]])
    there = Symbol(f"{op.over.name} that take part", op.over.kind)
    names = {op.over: there} | _shorter(c, op.over, there, mask, inputs)
    parts = [compressed(c, x, mask, op.over, there) if op.over in x.dims else x for x in inputs]
    parts = [x.rename({dim: names[dim] for dim in x.dims if dim in names}) for x in parts]
    results = lower(replace(c, taps=None), op.op.substitute(names), parts)
    back = {new: old for old, new in names.items() if old is not op.over}
    assert c.node is not None
    kept = []
    for result, output in zip(results, c.node.outputs, strict=True):
        known = result.rename({dim: dim.substitute(back) for dim in result.dims if dim.substitute(back) is not dim})
        if output.type.sparse is op.over:
            numbers = compressed(c, frame_numbers(c, op.over), mask, op.over, there)
            known = take(c, numbers, there, known)
        kept.append(
            _at_all_frames(c, op.over, there, mask, known) if there in known.dims else _of_some(known, mask, op)
        )
    return tuple(kept)


def _of_some(x: Tensor, mask: Tensor, op: Among) -> Tensor:
    """x, but no infinite number where no frame takes part, as the largest of none: nobody reads it, but its gradients
    would be no numbers."""
    if x.finite or not x.dtype.is_floating:
        return x
    rest = tuple(dim for dim in mask.dims if dim is not op.over)
    anyone = Tensor(tf.reduce_any(mask.raw, mask.axis(op.over)), rest)
    return replace(x, raw=tf.where(anyone.aligned(x.dims), x.raw, tf.zeros([], x.dtype)), _derived={})


def _shorter(c: Context, over: Dim, there: Dim, mask: Tensor, inputs: tuple[Tensor, ...]) -> dict[Dim, Dim]:
    """For each dim of the operands whose length varies over the frames, one with those that take part."""
    found: dict[Dim, Dim] = {}
    for dim in dict.fromkeys(dim for x in inputs for dim in x.dims):
        if dim.size is None and dim not in mask.dims and over in c.sizes.lengths(dim).dims:
            found[dim] = Symbol(f"{dim.name} of those that take part", dim.kind)
            lengths = compressed(c, c.sizes.lengths(dim), mask, over, there)
            c.sizes.define(found[dim], lengths, c.size(dim), exact=False)
    return found


def _at_all_frames(c: Context, over: Dim, there: Dim, mask: Tensor, x: Tensor) -> Tensor:
    """The frames back at their places, zero at the others."""
    before, taken = true_positions(c, mask, over)
    index = before.with_raw(tf.where(taken.raw, before.raw, -1))
    return take(c, x, there, index)
