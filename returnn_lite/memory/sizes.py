"""How long the dims of a graph are in a given batch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from returnn_lite.config.diagnostics import nearest_hint
from returnn_lite.dims import Dim, DimKind, TensorType
from returnn_lite.dims.symbols import Copy
from returnn_lite.ir import Graph, Loop, Node, Value, walk
from returnn_lite.ir.ops.histories import CumConcat, CumConcatStep

WIDTHS = {"bool": 1, "uint8": 1, "int8": 1, "int16": 2, "int64": 8, "float64": 8, "float16": 2, "bfloat16": 2}
"""Bytes of a number of a dtype where these are not four."""


class SizeError(ValueError):
    """A dim whose length nothing says, or a length of something that is not there."""


@dataclass(frozen=True)
class BatchSizes:
    """The sizes of dims. `assumed` gets the dims that are taken to be as long as what they are a part of; `names` has
    what dims are called where lengths are given."""

    known: Mapping[Dim, int]
    equal: Mapping[Dim, Dim] = field(default_factory=dict)
    names: Mapping[Dim, str] = field(default_factory=dict)
    assumed: dict[Dim, Dim] = field(default_factory=dict)

    def size(self, dim: Dim) -> int:
        """The length of the longest sequence along a dim, padding included. Raises SizeError."""
        if dim.size is not None:
            return dim.size
        if dim in self.known:
            return self.known[dim]
        if dim in self.equal:
            return self.size(self.equal[dim])
        if dim.operands():
            length: int = dim.length_from(self.size, lambda found: max(found, 0))
            return length
        if isinstance(dim, Copy) and dim.of is not None:
            return self.size(dim.of)
        whole = dim.part_of()
        if whole is not None:
            self.assumed[dim] = whole
            return self.size(whole)
        if dim.kind is DimKind.BATCH:
            raise SizeError("nothing says how many sequences a batch has; give --batch N")
        name = self.names.get(dim, dim.name)
        raise SizeError(f"nothing says how long '{dim.name}' is; give the longest sequence: --lengths {name}=N")

    def count(self, dims: Iterable[Dim]) -> int:
        """How many entries there are over dims."""
        return math.prod(map(self.size, dims))

    def bytes_of(self, type_: TensorType) -> int:
        """What a value of a type takes."""
        return self.count(type_.dims) * WIDTHS.get(type_.dtype, 4)


def batch_sizes(graph: Graph, batch: int | None, lengths: Mapping[str, int]) -> BatchSizes:
    """The sizes of all dims where there are `batch` sequences, and the longest ones are as `lengths` say.

    These are by data key, of which they mean the first dim whose length varies, or by the name of a dim. A history that
    grows from step to step counts with its mean length. Raises SizeError for a name that is none.
    """
    known: dict[Dim, int] = {}
    named = _by_name(graph)
    for name, length in lengths.items():
        if name not in named:
            hint = nearest_hint(name, list(named)) or f" There are {', '.join(named)}."
            raise SizeError(f"there is no data key or dim '{name}' with a length.{hint}")
        known.update(dict.fromkeys(named[name], length))
    if batch is not None:
        known.update({dim: batch for dim in _leaves(graph) if dim.kind is DimKind.BATCH})
    names = {dim: name for name, dims in reversed(named.items()) for dim in dims}
    sizes = BatchSizes(known, _equal_dims(graph.nodes), names)
    for loop in [node.op for node in walk(graph.nodes) if isinstance(node.op, Loop)]:
        grown = [node.op.history for node in loop.body if isinstance(node.op, CumConcatStep)]
        known.update({dim: (sizes.size(loop.over) + 1) // 2 for dim in grown if dim not in known})
    return sizes


def keys_with_lengths(graph: Graph) -> list[str]:
    """The data keys whose sequences have a length."""
    return [value.name for value in graph.inputs if _varying(value)]


def _varying(value: Value) -> list[Dim]:
    return [dim for dim in value.type.dims if dim.is_dynamic and dim.kind is not DimKind.BATCH]


def _by_name(graph: Graph) -> dict[str, list[Dim]]:
    """Dims by data key, then all dynamic ones that are computed from no others by their own names."""
    named: dict[str, list[Dim]] = {}
    for value in graph.inputs:
        if varying := _varying(value):
            named[value.name] = [leaf for leaf in varying[0].leaves if leaf.is_dynamic]
    for dim in _leaves(graph):
        if dim.kind is not DimKind.BATCH and dim not in named.setdefault(dim.name, []):
            named[dim.name].append(dim)
    return named


def _leaves(graph: Graph) -> list[Dim]:
    values = [*graph.inputs, *(output for node in walk(graph.nodes) for output in node.outputs)]
    found = dict.fromkeys(leaf for value in values for dim in value.type.dims for leaf in dim.leaves)
    return [leaf for leaf in found if leaf.is_dynamic]


def _equal_dims(nodes: Iterable[Node]) -> dict[Dim, Dim]:
    """Dims that are as long as another one."""
    equal: dict[Dim, Dim] = {}
    for node in walk(nodes):
        equal.update({new: old for new, old in node.op.renamed_dims() if new.is_dynamic and not new.operands()})
        if isinstance(node.op, CumConcat):
            equal[node.op.history] = node.op.over
    return {new: old for new, old in equal.items() if new is not old}
