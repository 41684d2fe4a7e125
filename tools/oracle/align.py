"""Brings an array that RETURNN laid out to the order of returnn_lite, and measures how far two outputs are apart.

RETURNN's axis order carries no meaning; ours is batch, beam, then the dims in the order they were declared, feature
last. Only the real frames count: what stands beyond a length is undefined on both sides.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .records import Run

DEAD = -1e29  # hypotheses that fill up a beam have at most this score


@dataclass(frozen=True)
class Recorded:
    """An output as recorded, batch first, then the beam; the other axes in RETURNN's order, feature last.

    `real` has the shape of `values`. `lengths` are those of an axis (by position) that vary over batch and beam only.
    """

    values: np.ndarray
    real: np.ndarray
    fixed: int
    dynamic: frozenset[int]
    lengths: Mapping[int, np.ndarray]


def recorded(run: Run, name: str) -> Recorded:
    """The output of layer `name` with its mask."""
    values, axes, beam = _with_batch(run, name)
    kinds = [axis["kind"] for axis in axes]
    real = np.ones(values.shape, bool)
    lengths = {}
    for position, axis in enumerate(axes):
        if "varies_over" not in axis:
            continue
        size, varies = _longest(run.sizes[name, position], axis["varies_over"])
        real &= np.arange(values.shape[position]).reshape(_shape(values.ndim, [position], [-1])) < size.reshape(
            _shape(values.ndim, varies, size.shape)
        )
        if [kinds[other] for other in varies] == ["batch"]:
            lengths[position] = size
    dead = run.scores.get(name)
    order = sorted(range(values.ndim), key=lambda i: (kinds[i] != "batch", kinds[i] == "feature", i))
    values, real = values.transpose(order), real.transpose(order)
    lengths = {order.index(position): size for position, size in lengths.items()}
    dynamic = {order.index(i) for i, axis in enumerate(axes) if "varies_over" in axis}
    fixed = int("batch" in kinds)
    if beam is not None:
        split = (-1, beam, *values.shape[1:])
        values, real = values.reshape(split), real.reshape(split)
        lengths = {position + 1: size.reshape(-1, beam) for position, size in lengths.items()}
        dynamic = {position + 1 for position in dynamic}
        fixed += 1
        if dead is not None:
            real = real & (dead > DEAD).reshape(_shape(real.ndim, [0, 1], dead.shape))
    return Recorded(values, real, fixed, frozenset(dynamic), lengths)


def _with_batch(run: Run, name: str) -> tuple[np.ndarray, list[dict[str, Any]], int | None]:
    """An output, its axes and beam. What RETURNN keeps once for all sequences, because nothing but its lengths differs
    between them, is repeated for each."""
    values, axes, beam = run.layers[name], list(run.axes[name]), run.beams[name]
    missing = {
        run.sizes[name, position].shape[i]
        for position, axis in enumerate(axes)
        for i, other in enumerate(axis.get("varies_over", ()))
        if other < 0
    }
    if len(missing) != 1 or beam is not None or any(axis["kind"] == "batch" for axis in axes):
        return values, axes, beam
    last = values.ndim
    axes = [
        {**axis, "varies_over": [last if i < 0 else i for i in axis["varies_over"]]} if "varies_over" in axis else axis
        for axis in axes
    ]
    return np.repeat(values[..., np.newaxis], missing.pop(), -1), [*axes, {"kind": "batch"}], beam


def _longest(size: np.ndarray, axes: list[int]) -> tuple[np.ndarray, list[int]]:
    """Lengths without those axes (-1) that the output does not have: there a frame is real if it is for anyone."""
    missing = tuple(i for i, axis in enumerate(axes) if axis < 0)
    return size.max(axis=missing), [axis for axis in axes if axis >= 0]


def _shape(ndim: int, axes: list[int], sizes: tuple[int, ...] | list[int]) -> list[int]:
    """A shape of `ndim` ones with `sizes` at `axes`."""
    shape = [1] * ndim
    for axis, size in zip(axes, sizes, strict=True):
        shape[axis] = size
    return shape


def deviation(ours: np.ndarray, theirs: np.ndarray, real: np.ndarray | None = None) -> float:
    """The largest difference, relative to values above one in size; equal infinities differ by nothing."""
    a, b = np.asarray(ours, "float64"), np.asarray(theirs, "float64")
    with np.errstate(invalid="ignore"):
        difference = np.where(a == b, 0.0, np.abs(a - b)) / np.maximum(1.0, np.where(np.isfinite(b), np.abs(b), 1.0))
    difference = np.where(np.isnan(difference), np.inf, difference)
    difference = difference if real is None else difference[np.broadcast_to(real, difference.shape)]
    return float(difference.max(initial=0.0))


def output_deviation(ours: np.ndarray, our_lengths: list[np.ndarray | None], theirs: Recorded) -> float:
    """How far our output is from the recorded one, in the order of axes that fits best; infinite if none fits.

    `our_lengths` gives for each of our axes its lengths, or None. An output without batch axis stands for every
    sequence.
    """
    if ours.ndim == theirs.values.ndim - 1 and theirs.fixed:
        ours, our_lengths = ours[np.newaxis], [None, *our_lengths]
    if ours.ndim != theirs.values.ndim:
        return float("inf")
    fixed = list(range(theirs.fixed))
    best = float("inf")
    for others in itertools.permutations(range(theirs.fixed, ours.ndim)):
        best = min(best, _in_order(ours, our_lengths, theirs, [*fixed, *others]))
    return best


def _in_order(ours: np.ndarray, our_lengths: list[np.ndarray | None], theirs: Recorded, order: list[int]) -> float:
    values, real = theirs.values.transpose(order), theirs.real.transpose(order)
    cut = []
    for axis, (our_size, their_size) in enumerate(zip(ours.shape, values.shape, strict=True)):
        size = min(our_size, their_size)
        if our_size != their_size and order[axis] not in theirs.dynamic and not (axis == 0 and our_size == 1):
            return float("inf")
        lengths, expected = our_lengths[axis], theirs.lengths.get(order[axis])
        if lengths is not None and expected is not None and not _same_lengths(lengths, expected, real):
            return float("inf")
        cut.append(slice(their_size) if axis == 0 else slice(size))
    if real.sum() != real[tuple(cut)].sum():
        return float("inf")
    return deviation(ours[tuple(cut)], values[tuple(cut)], real[tuple(cut)])


def _same_lengths(ours: np.ndarray, theirs: np.ndarray, real: np.ndarray) -> bool:
    """Whether lengths agree, leaving out hypotheses without any real frame."""
    alive = real.any(axis=tuple(range(theirs.ndim, real.ndim))) | (theirs == 0)
    if ours.ndim > theirs.ndim:  # ours differ, or could, from step to step
        theirs, alive = (x.reshape(*x.shape, *[1] * (ours.ndim - x.ndim)) for x in (theirs, alive))
        return bool(np.all((ours == theirs) | ~alive))
    ours = ours.reshape(*ours.shape, *[1] * (theirs.ndim - ours.ndim))  # ours may be the same for all hypotheses
    return bool(np.all((np.broadcast_to(ours, theirs.shape) == theirs) | ~alive))
