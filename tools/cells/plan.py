"""What replays a case: a network of ours, how its data and parameters are made of what was recorded, and how what was
recorded is made of its layers. All ways are TensorFlow operations, so that gradients go back along them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from tools.cells.case import Array, Case
from tools.cells.layouts.layout import Tensors

Net = dict[str, Any]
Made = Callable[[Tensors], Any]
"""A tensor of ours from the recorded ones by their keys."""


@dataclass(frozen=True)
class Shown:
    """What is recorded under a key, as it is made of the values of layers of ours; an output has features last."""

    layers: tuple[str, ...]
    """Names after `layer:`."""
    made: Callable[..., Any]
    real: Array | None = None
    """The frames [B, T] that count; None: all."""


@dataclass(frozen=True)
class Plan:
    """A case in parts; what stands for other parts of it is joined with `|`."""

    network: Net = field(default_factory=dict)
    extern_data: Net = field(default_factory=dict)
    feeds: Mapping[str, Made] = field(default_factory=dict)
    """By data key."""
    lengths: Mapping[str, Array] = field(default_factory=dict)
    """By data key [B], of data with frames."""
    parameters: Callable[[Tensors], dict[str, Any]] = lambda recorded: {}
    """From the recorded tensors to our parameters by their full names."""
    draws: Mapping[str, Array] = field(default_factory=dict)
    """Recorded dropout masks, by what is drawn here in their place."""
    shown: Mapping[str, Shown] = field(default_factory=dict)
    """By recorded key: `out/...` outputs, others states."""

    def __or__(self, other: Plan) -> Plan:
        return Plan(
            {**self.network, **other.network},
            {**self.extern_data, **other.extern_data},
            {**self.feeds, **other.feeds},
            {**self.lengths, **other.lengths},
            lambda recorded: {**self.parameters(recorded), **other.parameters(recorded)},
            {**self.draws, **other.draws},
            {**self.shown, **other.shown},
        )

    @property
    def config(self) -> Net:
        """The config, with its layers in it."""
        return {"network": self.network, "extern_data": self.extern_data, "behavior_version": 21}


def entry_of(array: Array, *, frames: bool, like: str = "") -> Net:
    """The declaration of an array [B, T, ..., F], or [B, ..., F] without frames; with those of other data `like`."""
    if array.dtype.kind == "i":
        return {"dim": int(array.max()) + 1, "sparse": True}
    shared = {"same_dim_tags_as": {"t": like}} if like else {}
    if array.dtype.kind == "b":
        return {"shape": (None,), "dtype": "bool", **shared}
    inner = array.shape[2:] if frames else array.shape[1:]
    axes = {"shape": (None, *inner)} if frames else {"shape": inner, "time_dim_axis": None}
    dtype = {"dtype": "float64"} if array.dtype == np.float64 else {}
    return {**axes, "dim": inner[-1], **dtype, **shared}


def sequence(case: Case, key: str, recorded_key: str, *, like: str = "", cut: slice | None = None) -> Plan:
    """A recorded sequence as data of ours, or some of its frames."""
    frames = cut or slice(None)
    array = case.arrays[recorded_key][:, frames]

    def made(recorded: Tensors) -> Any:
        found = recorded[recorded_key][:, frames]
        return tf.squeeze(found, 2) if found.dtype.is_integer and len(found.shape) == 3 else found

    lengths = case.lengths if case.lengths is not None else np.full(len(array), array.shape[1])
    return Plan(
        extern_data={key: entry_of(array, frames=True, like=like)},
        feeds={key: made},
        lengths={} if like else {key: lengths},
    )


def frames_of(case: Case, recorded_key: str, layers: Sequence[str], made: Callable[..., Any] | None = None) -> Plan:
    """A recorded output with frames, as a layer's value, or made of some."""
    count = case.arrays[recorded_key].shape[1]

    def padded(*values: Any) -> Any:
        value = values[0] if made is None else made(*values)
        return tf.pad(value, [(0, 0), (0, count - tf.shape(value)[1]), *[(0, 0)] * (len(value.shape) - 2)])

    return Plan(shown={recorded_key: Shown(tuple(layers), padded, case.real)})


def last_frame(frames: Any, lengths: Array | None, first: Array | None = None) -> Any:
    """The last of the frames [B, T, ...] of each sequence, by its length if it has one; of an empty one `first`, by
    default 0."""
    if lengths is None:
        return frames[:, -1]
    padded = tf.pad(frames, [(0, 0), (0, 1), *[(0, 0)] * (len(frames.shape) - 2)])
    last = tf.gather(padded, np.maximum(lengths - 1, 0), batch_dims=1)
    empty = (lengths == 0).reshape((-1,) + (1,) * (len(last.shape) - 1))
    return tf.where(empty, tf.zeros_like(last) if first is None else first, last)
