"""LSTMs over the frequency axis, and the phased LSTM."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tools.cells.layouts.layout import Layout, StateLayout, Tensors

KEYS = ("c", "h")


def _joined_shards(options: Mapping[str, Any], recorded: Tensors) -> dict[str, Any]:
    """W_0, W_1, ... are the rows of W."""
    shards = [name for name in recorded if re.fullmatch(r"W_\d+", name)]
    others = {name: value for name, value in recorded.items() if name not in shards}
    return {"W": tf.concat([recorded[f"W_{i}"] for i in range(len(shards))], 0), **others}


def _of_blocks(options: Mapping[str, Any], recorded: Tensors) -> dict[str, Any]:
    """W_f_b_s is shard s of the rows of b/W_f, other names end with the block; of two directions below theirs."""
    found: dict[str, Any] = {}
    shards: dict[str, list[tuple[int, Any]]] = {}
    for name, value in recorded.items():
        direction, _, own = name.rpartition("/")
        folder = f"{direction}/" if direction else ""
        if shard := re.fullmatch(r"(W_[ft])_(\d+)_(\d+)", own):
            shards.setdefault(f"{folder}{shard[2]}/{shard[1]}", []).append((int(shard[3]), value))
        else:
            whole, _, block = own.rpartition("_")
            found[f"{folder}{block}/{whole}"] = value
    parts = {name: [value for _, value in sorted(own, key=lambda one: one[0])] for name, own in shards.items()}
    return {**found, **{name: tf.concat(own, 0) for name, own in parts.items()}}


def _steps(options: Mapping[str, Any], directions: int) -> list[int]:
    """How many steps along frequency each block has, those of the second direction behind those of the first."""
    return list(options["num_frequency_blocks"]) * directions


def _grid_keys(options: Mapping[str, Any], *folders: str) -> tuple[str, ...]:
    blocks = range(len(options["num_frequency_blocks"]))
    return tuple(f"{folder}{block}/{key}" for folder in folders for block in blocks for key in KEYS)


def _stacked(states: Sequence[Any], steps: Sequence[int]) -> list[Any]:
    """c and h [batch, steps, units] of each block, from c and m [batch, units] of each of its steps."""
    found: list[Any] = []
    for count in steps:
        own, states = states[: 2 * count], states[2 * count :]
        found += [tf.stack(own[place::2], 1) for place in range(len(KEYS))]
    return found


def _unstacked(blocks: Sequence[Any], steps: Sequence[int]) -> list[Any]:
    """The inverse."""
    found: list[Any] = []
    for block, count in enumerate(steps):
        found += [blocks[2 * block + place][:, k] for k in range(count) for place in range(len(KEYS))]
    return found


def _states_of_steps(options: Mapping[str, Any], recorded: Sequence[Any]) -> list[Any]:
    """Of a time-frequency LSTM, whose state is c and m of all steps joined."""
    (joined,) = recorded
    return tf.unstack(tf.reshape(joined, [joined.shape[0], -1, len(KEYS), options["num_units"]]), axis=2)


def _joined_steps(options: Mapping[str, Any], ours: Sequence[Any]) -> list[Any]:
    return [tf.reshape(tf.stack(ours, 2), [tf.shape(ours[0])[0], -1])]


def _states_of_grid(directions: int) -> StateLayout:
    """Of a grid LSTM, whose state has a c and an m for each step of each block, one by one or all joined."""

    def ours(options: Mapping[str, Any], recorded: Sequence[Any]) -> list[Any]:
        steps = _steps(options, directions)
        if len(recorded) == 1:
            recorded = tf.split(recorded[0], 2 * sum(steps), -1)
        return _stacked(recorded, steps)

    def theirs(options: Mapping[str, Any], states: Sequence[Any]) -> list[Any]:
        found = _unstacked(states, _steps(options, directions))
        return found if options.get("state_is_tuple", True) else [tf.concat(found, -1)]

    return StateLayout(ours, theirs)


LAYOUTS = {
    ("tf", "TimeFreqLSTMCell"): Layout(KEYS, _joined_shards, of_states=StateLayout(_states_of_steps, _joined_steps)),
    ("tf", "GridLSTMCell"): Layout(lambda options: _grid_keys(options, ""), _of_blocks, of_states=_states_of_grid(1)),
    ("tf", "BidirectionalGridLSTMCell"): Layout(
        lambda options: _grid_keys(options, "fwd/", "bwd/"), _of_blocks, of_states=_states_of_grid(2)
    ),
    ("tf", "PhasedLSTMCell"): Layout(KEYS),
}
