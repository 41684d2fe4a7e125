"""`summary --memory`: what a train step keeps for its backward pass, and what recomputing would save; no TensorFlow."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from returnn_lite.cli.loading import LoadedConfig, UsageError
from returnn_lite.compiler import build, optimized
from returnn_lite.dims import Dim
from returnn_lite.explain.columns import columns
from returnn_lite.ir import Graph
from returnn_lite.memory.amounts import shown
from returnn_lite.memory.batches import largest_batch, largest_lengths
from returnn_lite.memory.choices import Tried, all_choices, each_alone, outermost, with_choices
from returnn_lite.memory.kept import KeptArray, TrainStep, train_step
from returnn_lite.memory.sizes import BatchSizes, SizeError, batch_sizes, keys_with_lengths

BEST = 5
"""So many layers are named that would save most if they alone were recomputed."""
ONE_LENGTH = r"\s*.+?=[1-9]\d*\s*"
"""A name, which may have commas, and a number."""


@dataclass(frozen=True)
class BatchRequest:
    """What the command line says of the batch: sequences, and the longest ones by data key or dim."""

    count: int | None
    lengths: Mapping[str, int]


def lengths_in(text: str) -> dict[str, int]:
    """The lengths of `data=100,classes=30`. Raises UsageError."""
    if re.fullmatch(rf"{ONE_LENGTH}(,{ONE_LENGTH})*", text) is None:
        raise UsageError(f"--lengths takes NAME=FRAMES, several with commas between, not '{text}'")
    return {name: int(length) for name, length in re.findall(r"\s*(.+?)=([1-9]\d*)\s*(?:,|$)", text)}


def memory(loaded: LoadedConfig, request: BatchRequest, as_json: bool) -> int:
    """Prints what is kept for the backward pass, by layer, the most first; then what recomputing would save and cost.
    Raises UsageError if nothing says how large a dim is."""
    built = build(loaded.data, "train", locate=loaded.locate, functions=loaded.functions)
    built.require_objective()
    graph = optimized(built, keep=built.outputs.with_layers(()))
    try:
        batch, sizes = _sizes(loaded, graph, request)
        step = train_step(graph, sizes)
    except SizeError as error:
        raise UsageError(str(error)) from error
    everything = outermost(built.layers)
    tried = [Tried(tuple(everything), train_step(with_choices(graph, everything), sizes))]
    tried += each_alone(graph, sizes, all_choices(built.layers))[:BEST]
    if as_json:
        print(json.dumps(_as_json(batch, step, tried), indent=1))
        return 0
    _print(batch, step, tried)
    for dim, whole in sizes.assumed.items():
        print(f"'{dim.name}' counts as long as '{whole.name}'; --lengths '{dim.name}=N' says how long it is")
    return 0


@dataclass(frozen=True)
class _Batch:
    """The batch that counts, and where its size is from if the command line does not say it."""

    count: int
    lengths: Mapping[str, int]
    source: str

    def __str__(self) -> str:
        lengths = "".join(f", {name} {length}" for name, length in self.lengths.items())
        return f"{self.count} sequences{self.source}{lengths}"


def _sizes(loaded: LoadedConfig, graph: Graph, request: BatchRequest) -> tuple[_Batch, BatchSizes]:
    """What the command line says, and for the rest the limits of the config. Raises SizeError."""
    keys = keys_with_lengths(graph)
    lengths = {**largest_lengths(loaded.data, keys), **request.lengths}
    count, source = request.count, ""
    if count is None:
        count = largest_batch(loaded.data, {key: length for key, length in lengths.items() if key in keys})
        source = " (as many as batch_size and max_seqs let)"
    sizes = batch_sizes(graph, count, lengths)
    for dim in dict.fromkeys(dim for value in graph.inputs for dim in reversed(value.type.dims)):
        sizes.size(dim)  # lengths first: without them the limits of the config say little of the batch
    return _Batch(sizes.count(_batch_dims(graph)), lengths, source), sizes


def _batch_dims(graph: Graph) -> set[Dim]:
    return {value.type.batch for value in graph.inputs if value.type.batch is not None}


def _by_layer(arrays: Sequence[KeptArray]) -> dict[str, list[KeptArray]]:
    """The arrays of each layer; that with the most bytes first."""
    layers: dict[str, list[KeptArray]] = {}
    for array in arrays:
        layers.setdefault(array.layer, []).append(array)
    return dict(sorted(layers.items(), key=lambda item: -_bytes(item[1])))


def _bytes(arrays: Sequence[KeptArray]) -> int:
    return sum(array.bytes for array in arrays)


def _print(batch: _Batch, step: TrainStep, tried: Sequence[Tried]) -> None:
    total = step.bytes
    rows = [
        (layer, shown(_bytes(own)), f"{100 * _bytes(own) / max(total, 1):.0f} %", _counted(own))
        for layer, own in _by_layer(step.arrays).items()
    ]
    print(columns(("layer", "kept", "share", "arrays"), rows))
    again = f"; {_share(step.again, step)} of a train step is computed again" if step.again else ""
    print(f"{shown(total)} kept for the backward pass of a batch of {batch}{again}\n")
    choices = [
        (_option(one), shown(one.step.bytes), shown(total - one.step.bytes), _share(one.step.again - step.again, step))
        for one in tried
        if one.step.bytes < total
    ]
    print(columns(("with recompute", "kept", "saved", "of a train step again"), choices))


def _share(products: int, step: TrainStep) -> str:
    """Multiply-adds as a share of those of both passes."""
    return f"{100 * products / max(step.products, 1):.1f} %"


def _option(tried: Tried) -> str:
    """What to write: `recompute: all`, or a layer's, `recompute: [energy] of output`."""
    if len(tried.choices) != 1:
        return "recompute: all"
    (choice,) = tried.choices
    return f"recompute: [{choice.name}]" + (f" of {choice.around}" if choice.around else "")


def _counted(arrays: Sequence[KeptArray]) -> str:
    """`3, 2 in each of 30 steps`."""
    by_steps = sorted(Counter(array.steps for array in arrays).items())
    return ", ".join(f"{count}" if steps == 1 else f"{count} in each of {steps} steps" for steps, count in by_steps)


def _as_json(batch: _Batch, step: TrainStep, tried: Sequence[Tried]) -> dict[str, object]:
    layers = {
        layer: {
            "bytes": _bytes(own),
            "arrays": [{"what": array.what, "steps": array.steps, "bytes": array.bytes} for array in own],
        }
        for layer, own in _by_layer(step.arrays).items()
    }
    recomputed = [
        {
            "layers": [choice.layer for choice in one.choices],
            "bytes": one.step.bytes,
            "again": (one.step.again - step.again) / max(step.products, 1),
        }
        for one in tried
    ]
    found = {"batch": batch.count, "lengths": dict(batch.lengths), "bytes": step.bytes}
    return {**found, "layers": layers, "recompute": recomputed}
