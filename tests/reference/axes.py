"""Meanings of the primitives that change dims but hardly values."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from returnn_lite.dims import Dim
from returnn_lite.ir import Op
from returnn_lite.ir.ops.axes import (
    Expand,
    MaskFrames,
    MergeDims,
    Pad,
    Relabel,
    Reverse,
    ShiftFrames,
    SplitDim,
    Squeeze,
    Window,
)
from tests.reference.named import Array, Lengths, Named, filled, union
from tests.reference.rule import Rule
from tests.reference.sequences import along, per_sequence


def expand(op: Expand, lengths: Lengths, x: Named) -> Named:
    """Repeated along new dims."""
    dims = tuple(dict.fromkeys((*x.dims, *op.dims)))
    return Named(x.full(dims, lengths), dims)


def squeeze(op: Squeeze, lengths: Lengths, x: Named) -> Named:
    """Without an axis of one entry."""
    return Named(x.array.squeeze(x.axis(op.dim)), tuple(dim for dim in x.dims if dim != op.dim))


def relabel(op: Relabel, lengths: Lengths, x: Named) -> Named:
    """The same under a new name; both must be equally long."""
    if not lengths.knows(op.new):
        lengths.known[op.new] = lengths.of(op.old)
    assert _agree(lengths.of(op.old), lengths.of(op.new)), op.reason
    return Named(x.array, renamed(x, op.old, op.new))


def _agree(a: Named, b: Named) -> bool:
    dims = union([a, b])
    return bool((a.over(dims) == b.over(dims)).all())


def renamed(x: Named, old: Dim, new: Dim) -> tuple[Dim, ...]:
    """The dims with one replaced."""
    return tuple(new if dim == old else dim for dim in x.dims)


def merge(op: MergeDims, lengths: Lengths, x: Named) -> Named:
    """One axis instead of several. A ragged dim that comes first stays without gaps; of others the padding is 0."""
    rest = tuple(dim for dim in x.dims if dim not in op.dims)
    inner = op.dims if any(lengths.is_ragged(dim) for dim in op.dims[1:]) else ()
    merged = filled(x, inner, 0, lengths).over((*rest, *op.dims))
    return Named(merged.reshape([*merged.shape[: len(rest)], int(np.prod(merged.shape[len(rest) :]))]), (*rest, op.out))


def split(op: SplitDim, lengths: Lengths, x: Named) -> Named:
    """Several axes instead of one, filled up at each sequence's end."""
    seen = along(op.dim, x)
    static = math.prod(dim.size for dim in op.outs if dim.size is not None)

    def of_one(frames: Array) -> Array:
        sizes = [-(-len(frames) // static) if dim.size is None else dim.size for dim in op.outs]
        whole = np.full((math.prod(sizes), *frames.shape[1:]), op.pad_value, frames.dtype)
        whole[: len(frames)] = frames
        return whole.reshape(*sizes, *frames.shape[1:])

    return per_sequence(lengths, [(x, seen)], [(*op.outs, *seen[1:])], of_one)[0]


MODES = {"constant": "constant", "reflect": "reflect", "symmetric": "symmetric", "replication": "edge"}


def pad(op: Pad, lengths: Lengths, x: Named) -> Named:
    """NumPy's padding of each sequence; negative amounts cut."""
    seen = along(op.over, x)

    def of_one(frames: Array) -> Array:
        cut = frames[max(-op.left, 0) : len(frames) + min(op.right, 0)]
        amounts = [(max(op.left, 0), max(op.right, 0)), *[(0, 0)] * (frames.ndim - 1)]
        if op.mode == "constant":
            return np.pad(cut, amounts, constant_values=op.value)
        return np.pad(cut, amounts, mode=MODES[op.mode])  # type: ignore[call-overload, no-any-return]

    return per_sequence(lengths, [(x, seen)], [(op.out, *seen[1:])], of_one)[0]


def _frame(frames: Array, index: int, otherwise: float) -> Array:
    inside = 0 <= index < len(frames)
    return frames[index] if inside else np.full(frames.shape[1:], otherwise, frames.dtype)


def _from_frames(picked: list[Array], shape: tuple[int, ...], like: Array) -> Array:
    return np.array(picked, like.dtype).reshape(shape)


def window(op: Window, lengths: Lengths, x: Named) -> Named:
    """Frames around each frame, zero where there is none."""
    seen = along(op.over, x)
    width = lengths.size(op.window)

    def of_one(frames: Array, count: Array) -> Array:
        starts = [t * op.stride - op.left for t in range(int(count))]
        picked = [_frame(frames, start + i, 0) for start in starts for i in range(width)]
        return _from_frames(picked, (len(starts), width, *frames.shape[1:]), frames)

    count = lengths.of(op.out)
    return per_sequence(lengths, [(x, seen), (count, ())], [(op.out, op.window, *seen[1:])], of_one)[0]


def reverse(op: Reverse, lengths: Lengths, x: Named) -> Named:
    """Backwards."""
    seen = along(op.over, x)
    return per_sequence(lengths, [(x, seen)], [seen], lambda frames: frames[::-1])[0]


def shift(op: ShiftFrames, lengths: Lengths, x: Named) -> Named:
    """Frame t - amount at t; as many frames as `out` has."""
    seen = along(op.over, x)
    count = lengths.of(op.out)

    def of_one(frames: Array, length: Array) -> Array:
        picked = [_frame(frames, t - op.amount, op.value) for t in range(int(length))]
        return _from_frames(picked, (int(length), *frames.shape[1:]), frames)

    return per_sequence(lengths, [(x, seen), (count, ())], [(op.out, *seen[1:])], of_one)[0]


def mask_frames(op: MaskFrames, lengths: Lengths, x: Named) -> Named:
    """The operand: there is no padding that could hold a number."""
    return x


RULES: Mapping[type[Op], Rule] = {
    Expand: expand,
    Squeeze: squeeze,
    Relabel: relabel,
    MergeDims: merge,
    SplitDim: split,
    Pad: pad,
    Window: window,
    Reverse: reverse,
    ShiftFrames: shift,
    MaskFrames: mask_frames,
}
