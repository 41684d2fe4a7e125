"""Lowerings of the primitives that make values from nothing."""

from __future__ import annotations

import math

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.ir.ops.sources import (
    AssignParameter,
    Constant,
    ConstantArray,
    Iota,
    Length,
    Parameter,
    RandomDraw,
    StepIndex,
)
from returnn_lite.tf.context import Assignment, Context, Family, lengths_of
from returnn_lite.tf.layout import Tensor, working_order
from returnn_lite.tf.mask import broadcast

lowers = Family()


@lowers(Parameter)
def parameter(c: Context, op: Parameter) -> Tensor:
    raw = c.parameters[op.name]
    return Tensor(_kept(c, op, raw) if op.kept else raw, op.dims)


def _kept(c: Context, op: Parameter, raw: tf.Tensor) -> tf.Tensor:
    """What the batch before left for each sequence of this one; zeros if there was none."""
    before, now = tf.shape(raw)[0], c.size(op.dims[0])
    fits = Tensor(tf.logical_or(tf.equal(before, 0), tf.equal(before, now)), ())
    what = f"{op.name} keeps the state of each sequence for the next batch, which has another number of sequences"
    advice = "Batches must have equally many: see max_seqs, or use no keep_over_epoch."
    check = c.require(fits, what, "has {1}, the one before {0}", [before, tf.convert_to_tensor(now)], advice)
    with tf.control_dependencies([check]):
        rows = tf.minimum(tf.range(now), before)  # that of zeros for all if there are no others
    for dim in op.created_dims():
        lengths = tf.gather(tf.concat([c.parameters[lengths_of(op.name)], [0]], axis=0), rows)
        c.sizes.define(dim, Tensor(lengths, op.dims[:1]), tf.shape(raw)[1 + op.dims[1:].index(dim)])
    none = tf.zeros(tf.concat([[1], tf.shape(raw)[1:]], axis=0), raw.dtype)
    found = tf.gather(tf.concat([raw, none], axis=0), rows)
    found.set_shape([None, *raw.shape[1:]])
    return found


@lowers(AssignParameter)
def assign_parameter(c: Context, op: AssignParameter, value: Tensor) -> Tensor:
    c.assignments.append(Assignment(op.name, value.in_order(op.dims)))
    for dim in op.dims[1:]:
        if dim.size is None:
            lengths = broadcast(c.sizes, c.sizes.lengths(dim), op.dims[:1])
            c.assignments.append(Assignment(lengths_of(op.name), lengths.raw))
    return value


@lowers(Constant)
def constant(c: Context, op: Constant) -> Tensor:
    dims = working_order(op.dims)
    raw = tf.constant(op.value, c.dtype(op.dtype))
    return broadcast(c.sizes, Tensor(raw, (), finite=math.isfinite(op.value)), dims)


@lowers(ConstantArray)
def constant_array(c: Context, op: ConstantArray) -> Tensor:
    return Tensor(tf.constant(op.values, c.dtype(op.dtype), shape=[dim.size for dim in op.dims]), op.dims)


@lowers(Iota)
def iota(c: Context, op: Iota) -> Tensor:
    return Tensor(tf.cast(tf.range(c.size(op.over)), c.dtype(op.dtype)), (op.over,))


@lowers(StepIndex)
def step_index(c: Context, op: StepIndex) -> Tensor:
    if c.step is None:
        raise ValueError(f"{c.where}: there is no step number outside of a loop")
    return Tensor(tf.cast(c.step, c.dtype(op.dtype)), ())


@lowers(Length)
def length(c: Context, op: Length) -> Tensor:
    lengths = c.sizes.lengths(op.of)
    lengths = Tensor(tf.cast(lengths.raw, c.dtype(op.dtype)), lengths.dims)
    return broadcast(c.sizes, lengths, (*lengths.dims, *(d for d in op.of.over if d not in lengths.dims)))


@lowers(RandomDraw)
def random_draw(c: Context, op: RandomDraw) -> Tensor:
    seed = c.random_seed(op.seed, op.static)
    if op.steps and c.draws_by_step:
        return _drawn_by_step(c, op, seed)
    if op.fresh:
        seed = c.seed_of_step(seed)
    return _drawn(c, op, working_order(op.dims), seed)


def _drawn_by_step(c: Context, op: RandomDraw, seed: tf.Tensor) -> Tensor:
    """The draws of all steps, each from its own seed, as in the loops."""
    dims = working_order(tuple(dim for dim in op.dims if dim not in op.steps))
    sizes = [c.size(over) for over in op.steps]

    def step(number: tf.Tensor) -> tf.Tensor:
        numbers = tf.unstack(tf.unravel_index(number, tf.maximum(sizes, 1)), len(sizes))
        return _drawn(c, op, dims, c.seed_of_step(seed, list(zip(op.steps, numbers, strict=True)))).raw

    count = tf.reduce_prod(sizes)
    # TensorFlow does not know the shape of what no step gives.
    raw = tf.map_fn(step, tf.range(tf.maximum(count, 1)), fn_output_signature=c.dtype(op.dtype))[:count]
    raw = tf.reshape(raw, [*sizes, *c.shape(dims)])
    return broadcast(c.sizes, Tensor(raw, (*op.steps, *dims)), working_order(op.dims))


def _drawn(c: Context, op: RandomDraw, dims: tuple[Dim, ...], seed: tf.Tensor) -> Tensor:
    shape, dtype = c.shape(dims), c.dtype(op.dtype)
    if op.distribution == "normal":
        raw = tf.random.stateless_normal(shape, seed, op.first, op.second, dtype)
    elif op.distribution == "truncated_normal":
        raw = tf.random.stateless_truncated_normal(shape, seed, op.first, op.second, dtype)
    elif op.distribution == "uniform":
        low, high = (int(x) if dtype.is_integer else x for x in (op.first, op.second))
        raw = tf.random.stateless_uniform(shape, seed, low, high, dtype)
    else:
        raise ValueError(f"{c.where}: there is no random distribution {op.distribution!r}")
    return Tensor(raw, dims)
