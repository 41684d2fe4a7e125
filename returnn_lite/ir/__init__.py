"""The intermediate representation: values, nodes, loops, graphs, and the primitives."""

from returnn_lite.ir.graph import Graph, text_of
from returnn_lite.ir.nodes import (
    STEPS_A_ROUND,
    Element,
    Ending,
    Loop,
    Node,
    Recompute,
    Search,
    State,
    computed_once,
    loop_node,
    node_operands,
    recompute_node,
    stack_dim,
    walk,
)
from returnn_lite.ir.op import Effect, InLoop, Op
from returnn_lite.ir.values import Clock, Mask, Origin, Value

__all__ = [
    "STEPS_A_ROUND",
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
