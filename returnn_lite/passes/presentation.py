"""The order in which results are shown: that of declaration, whatever the passes made of it.

The order of dims has no meaning in the IR, so passes do not keep it. Users see arrays, which have one: the order of the
graph as built, with dims that passes added (the beam) after the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from returnn_lite.dims import Dim, DimKind, TensorType
from returnn_lite.ir import Graph, Node, Value
from returnn_lite.ir.ops.elementwise import Annotate


def in_declared_order(graph: Graph, declared: Mapping[str, TensorType]) -> Graph:
    """The graph with each output's dims in the order of its declared type."""
    nodes = list(graph.nodes)
    outputs: dict[str, Value] = {}
    for name, value in graph.outputs.items():
        dims = _ordered(value.type, declared[name])
        if dims == value.type.dims:
            outputs[name] = value
            continue
        shown = value.of_type(replace(value.type, dims=dims))
        nodes.append(Node(Annotate(value.type.sparse, value.type.feature, value.type.time), (value,), (shown,)))
        outputs[name] = shown
    return replace(graph, nodes=tuple(nodes), outputs=outputs)


def _ordered(type_: TensorType, declared: TensorType) -> tuple[Dim, ...]:
    known = [dim for dim in declared.dims if dim in type_]
    added = [dim for dim in type_.dims if dim not in known]
    batch = [dim for dim in known if dim.kind is DimKind.BATCH]
    return (*batch, *added, *(dim for dim in known if dim not in batch))
