"""How many dims a value may have: TensorFlow's kernels broadcast, pad and transpose tensors of eight axes at most."""

from __future__ import annotations

from returnn_lite.ir import Graph, Value, walk
from returnn_lite.passes.errors import PassError

MOST_DIMS = 8


def ranks(graph: Graph) -> Graph:
    """The graph as it is. Raises PassError, with the layer, for a value with more dims than the backend works on."""
    readers = {value: node.origin.layer for node in reversed(graph.nodes) for value in node.inputs}
    for value in graph.inputs:
        _require_rank(value, readers.get(value, ""))
    for node in walk(graph.nodes):
        for output in node.outputs:
            _require_rank(output, node.origin.layer)
    return graph


def _require_rank(value: Value, layer: str) -> None:
    if len(value.type.dims) > MOST_DIMS:
        message = f"this needs {len(value.type.dims)} dims at once, but tensors have {MOST_DIMS} at most"
        raise PassError(f"{message}: {value.type}", [layer])
