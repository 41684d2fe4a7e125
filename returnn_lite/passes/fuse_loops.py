"""Loop fusion: two loops over the same steps become one, where no step of the second needs a later step of the first.

Distribution makes a loop of each cycle. A loop that reads another's results frame by frame, at the same step or an
earlier one, joins it: they take their steps together, and what only the second read is no longer stacked.

    h = loop T {                     h, s = loop T {
      x = input[T]                     x = input[T]
      h' = delay(h, 0)                 h' = delay(h, 0)
      h = f(x, h')                     h = f(x, h')
      h = stack(h)               →     g = delay(h, 0)
    }                                  s' = delay(s, 0)
    g = delay(h, 0, over=T)            s = f(h, g, s')
    s = loop T {                       h = stack(h)        # goes with the dead nodes, if nothing else reads it
      h = h[T]                         s = stack(s)
      g = g[T]                       }
      s' = delay(s, 0)
      s = f(h, g, s')
    }

Any other node between them needs whole sequences of the first, or is better done at once (a product with weights):
then they stay two. So do loops that do not need each other, which can run side by side (docs/decisions/0006), loops
that find out themselves when to end, loops of a search, and loops with slower clocks.

Kennedy and McKinley, Maximizing Loop Parallelism and Improving Data Locality via Loop Fusion and Distribution (1993);
Allen and Kennedy, Optimizing Compilers for Modern Architectures (2001), chapter 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from returnn_lite.ir import Graph, Loop, Node
from returnn_lite.passes.loops.fusion_groups import fusion_groups
from returnn_lite.passes.loops.joined_loop import joined_loop


def fuse_loops(graph: Graph) -> Graph:
    """The graph with loops over the same steps fused, also in loop bodies. Each keeps the values that it had."""
    nodes = _fused(graph.nodes)
    return graph if nodes == graph.nodes else replace(graph, nodes=nodes)


def _fused(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes of one level with loops fused, in dependency order."""
    inner = [_with_fused_body(node, node.op) if isinstance(node.op, Loop) else node for node in nodes]
    if sum(isinstance(node.op, Loop) for node in inner) < 2:
        return tuple(inner)
    groups = fusion_groups(inner)
    return tuple(joined_loop(unit, groups.frames) if len(unit) > 1 else unit[0] for unit in groups.in_order())


def _with_fused_body(node: Node, loop: Loop) -> Node:
    body = _fused(loop.body)
    return node if body == loop.body else node.with_loop(replace(loop, body=body))
