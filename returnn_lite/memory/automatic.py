"""`recompute: {auto: {memory: 4GB}}`: as few layers as keep no more than that, by what is predicted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from returnn_lite.ir import Graph
from returnn_lite.memory.amounts import shown
from returnn_lite.memory.batches import largest_batch, largest_lengths
from returnn_lite.memory.choices import Choice, inside, outermost, with_choices
from returnn_lite.memory.kept import TrainStep, train_step
from returnn_lite.memory.sizes import BatchSizes, SizeError, batch_sizes, keys_with_lengths


class MemoryLimitError(ValueError):
    """A limit that nothing fits into, or of a batch whose size nothing says. `hint` is what to do."""

    def __init__(self, message: str, hint: str) -> None:
        self.hint = hint
        super().__init__(message)


@dataclass(frozen=True)
class MemoryLimit:
    """The most bytes that a train step of the largest batch may keep. The layers to be recomputed are those inside of
    the layer `around`, "" for the outermost ones."""

    around: str
    bytes: int


def within(graph: Graph, limit: MemoryLimit, layers: Iterable[str], config: Mapping[str, Any]) -> Graph:
    """The graph with as few multiply-adds again as the limit lets. Raises MemoryLimitError.

    All layers are recomputed at first; then those are not whose products cost the most for what they save, as long as
    the rest fits.
    """
    sizes = _largest_sizes(graph, config)
    paths = list(layers)
    chosen = outermost(paths)
    if limit.around:
        chosen = inside(paths, limit.around) or [Choice(limit.around)]
    if _predicted(graph, (), sizes).bytes <= limit.bytes:
        return graph
    all_of_them = _predicted(graph, chosen, sizes)
    if all_of_them.bytes > limit.bytes:
        raise MemoryLimitError(
            f"with all of these layers recomputed a batch still keeps {shown(all_of_them.bytes)}, but memory is "
            f"{shown(limit.bytes)}",
            "Make batches smaller (batch_size, max_seqs, max_seq_length), or memory larger.",
        )
    for choice in _dearest_first(graph, chosen, all_of_them, sizes):
        fewer = [one for one in chosen if one is not choice]
        if _predicted(graph, fewer, sizes).bytes <= limit.bytes:
            chosen = fewer
    return with_choices(graph, chosen)


def _predicted(graph: Graph, chosen: Sequence[Choice], sizes: BatchSizes) -> TrainStep:
    return train_step(with_choices(graph, chosen) if chosen else graph, sizes)


def _dearest_first(graph: Graph, chosen: Sequence[Choice], best: TrainStep, sizes: BatchSizes) -> list[Choice]:
    """Those that cost multiply-adds, by how many for each byte that they save; what costs none stays recomputed."""
    costs: dict[Choice, float] = {}
    for choice in chosen:
        without = _predicted(graph, [one for one in chosen if one is not choice], sizes)
        if without.again < best.again:
            costs[choice] = (best.again - without.again) / max(without.bytes - best.bytes, 1)
    return sorted(costs, key=lambda choice: -costs[choice])


def _largest_sizes(graph: Graph, config: Mapping[str, Any]) -> BatchSizes:
    """The largest batch of the config. Raises MemoryLimitError if it does not say how large that is."""
    lengths = largest_lengths(config, keys_with_lengths(graph))
    count = largest_batch(config, lengths)
    try:
        sizes = batch_sizes(graph, count, lengths)
        for dim in dict.fromkeys(dim for value in graph.inputs for dim in value.type.dims):
            sizes.size(dim)
    except SizeError as error:
        raise MemoryLimitError(
            "what is kept depends on the largest batch, and the config does not say how large that is",
            "Set max_seq_length, for each data key or for all, and batch_size or max_seqs.",
        ) from error
    return sizes
