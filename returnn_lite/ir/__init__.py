"""The intermediate representation: values, nodes, loops, graphs, and the primitives."""

from returnn_lite.ir.graph import (
    Clock,
    Element,
    Ending,
    Graph,
    Loop,
    Mask,
    Node,
    Origin,
    Search,
    State,
    Value,
    loop_node,
    node_operands,
    stack_dim,
    text_of,
    walk,
)
from returnn_lite.ir.op import Effect, InLoop, Op

__all__ = [
    "Clock",
    "Effect",
    "Element",
    "Ending",
    "Graph",
    "InLoop",
    "Loop",
    "Mask",
    "Node",
    "Op",
    "Origin",
    "Search",
    "State",
    "Value",
    "loop_node",
    "node_operands",
    "stack_dim",
    "text_of",
    "walk",
]
