"""The intermediate representation: values, nodes, loops, graphs, and the primitives."""

from returnn_lite.ir.graph import Graph, text_of
from returnn_lite.ir.nodes import (
    Clock,
    Element,
    Ending,
    Loop,
    Mask,
    Node,
    Origin,
    Recompute,
    Search,
    State,
    Value,
    computed_once,
    loop_node,
    node_operands,
    recompute_node,
    stack_dim,
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
    "Recompute",
    "Search",
    "State",
    "Value",
    "computed_once",
    "loop_node",
    "node_operands",
    "recompute_node",
    "stack_dim",
    "text_of",
    "walk",
]
