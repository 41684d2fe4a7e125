"""Random batches for a network, that its data keys say nothing against."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from returnn_lite.dims import Dim
from returnn_lite.ir import Graph, walk
from returnn_lite.net.extern_data import DataEntry

Array = NDArray[Any]
Feed = dict[str, Any]


def generator_of(seed: int, name: str) -> np.random.Generator:
    """Random numbers for what has this name, whatever else there is."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def equal_dims(graph: Graph) -> list[tuple[Dim, Dim]]:
    """The dims that a network needs to be equally long, which only the data can be."""
    return list(dict.fromkeys(pair for node in walk(graph.nodes) for pair in node.op.renamed_dims()))


def random_feed(
    entries: Mapping[str, DataEntry], keys: Sequence[str], batch: int, seed: int, equal: Sequence[tuple[Dim, Dim]] = ()
) -> tuple[Feed, Feed]:
    """Random arrays and lengths for data keys. Keys that share a time dim get the same lengths, and dims that must be
    `equal` too, where one of them belongs to the data alone."""
    lengths = _random_lengths(entries, batch, seed)
    for one, other in equal:
        _make_equal(lengths, one, other)
    feed: Feed = {}
    seq_lens: Feed = {}
    for key in keys:
        type_ = entries[key].type
        ragged = {dim.name: lengths[dim] for dim in type_.dims if dim in lengths}
        if ragged:
            seq_lens[key] = next(iter(ragged.values())) if len(ragged) == 1 else ragged
        shape = [_size(dim, lengths, batch) for dim in type_.dims]
        generator = generator_of(seed, key)
        if type_.sparse is not None:
            feed[key] = generator.integers(0, type_.sparse.size or 2, shape).astype("int32")
        else:
            feed[key] = generator.normal(0, 1, shape).astype(type_.dtype)
    return feed, seq_lens


def _size(dim: Dim, lengths: Mapping[Dim, Array], batch: int) -> int:
    if dim in lengths:
        return int(lengths[dim].max(initial=0))
    return batch if dim.size is None else dim.size


def _random_lengths(entries: Mapping[str, DataEntry], batch: int, seed: int) -> dict[Dim, Array]:
    """Lengths of each dim that sequences may have their own of; the first sequence is the longest."""
    found: dict[Dim, Array] = {}
    for key, entry in entries.items():
        for number, dim in enumerate(dim for dim in entry.type.dims if dim.is_ragged):
            if dim not in found:
                generator = generator_of(seed, f"{key}:lengths{number or ''}")
                found[dim] = generator.integers(2, 8, batch).astype("int32")
                found[dim][0] = 8
    return found


def _make_equal(lengths: dict[Dim, Array], one: Dim, other: Dim) -> None:
    """Gives the dim that is declared later the lengths of the other, or of what is computed from the other."""
    order = [dim for dim in reversed(lengths) if dim in (one, other) and not dim.operands()]
    for dim in order:
        wanted = other if dim is one else one
        if dim in wanted.leaves:
            continue
        if all(leaf in lengths or leaf.size is not None for leaf in wanted.leaves):
            lengths[dim] = _length(wanted, lengths)
            return


def _length(dim: Dim, lengths: Mapping[Dim, Array]) -> Array:
    """The lengths of a dim, computed from those that it depends on."""
    if dim in lengths:
        return lengths[dim]
    if dim.size is not None:
        return np.asarray(dim.size, "int32")
    return dim.length_from(lambda operand: _length(operand, lengths), lambda length: np.maximum(length, 0))
