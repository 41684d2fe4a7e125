"""The largest batch that a config makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def batch_limits(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that say how large a batch is."""
    return {key: config[key] for key in ("batch_size", "max_seqs", "max_seq_length") if key in config}


def largest_lengths(config: Mapping[str, Any], keys: list[str]) -> dict[str, int]:
    """The longest sequence of each data key, where `max_seq_length` limits it."""
    limit = config.get("max_seq_length")
    if isinstance(limit, int):
        return dict.fromkeys(keys, limit)
    return {key: limit[key] for key in keys if key in limit} if isinstance(limit, Mapping) else {}


def largest_batch(config: Mapping[str, Any], lengths: Mapping[str, int]) -> int | None:
    """How many sequences of these lengths, by data key, fit into a batch; None if `batch_size` and `max_seqs` leave it
    open. `batch_size` are frames of each data key, padding included."""
    limits: list[int] = []
    frames = config.get("batch_size")
    for key, length in lengths.items():
        limit = frames.get(key) if isinstance(frames, Mapping) else frames
        if isinstance(limit, int) and length > 0:
            limits.append(max(limit // length, 1))
    count = config.get("max_seqs")
    if isinstance(count, int) and count > 0:
        limits.append(count)
    return min(limits, default=None)
