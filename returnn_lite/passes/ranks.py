"""How many dims a value may have: TensorFlow's kernels broadcast, pad and transpose tensors of eight axes at most."""

from __future__ import annotations

from returnn_lite.ir import Graph, walk
from returnn_lite.passes.errors import PassError

MOST_DIMS = 8


def ranks(graph: Graph) -> Graph:
    """The graph as it is. Raises PassError, with the layer, for a value with more dims than the backend works on."""
    for node in walk(graph.nodes):
        for output in node.outputs:
            if len(output.type.dims) > MOST_DIMS:
                message = f"this needs {len(output.type.dims)} dims at once, but tensors have {MOST_DIMS} at most"
                raise PassError(f"{message}: {output.type}", [node.origin.layer])
    return graph
