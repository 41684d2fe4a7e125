"""The order of the passes, and the check between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from returnn_lite.ir import Graph, Loop, Node, walk
from returnn_lite.ir.body import needs_all_steps, searches
from returnn_lite.ir.legality import (
    AT_EVERY_STEP,
    EXPLICIT_BEAMS,
    FOR_CYCLES,
    ON_ONE_CLOCK,
    SEARCH_AT_EVERY_STEP,
    STEP_BY_STEP,
)
from returnn_lite.ir.rule import Rule
from returnn_lite.ir.verify import verify
from returnn_lite.passes.beams import beams
from returnn_lite.passes.clocks import clocks
from returnn_lite.passes.dead_inputs import dead_inputs
from returnn_lite.passes.dead_nodes import dead_nodes
from returnn_lite.passes.decide_first import decide_first
from returnn_lite.passes.distribute_loops import distribute_loops, distribute_unordered
from returnn_lite.passes.fuse_loops import fuse_loops
from returnn_lite.passes.guard import guard, guard_search
from returnn_lite.passes.index_checks import index_checks
from returnn_lite.passes.join_dots import join_dots
from returnn_lite.passes.ranks import ranks
from returnn_lite.passes.recompute import recompute
from returnn_lite.passes.simplify import simplify
from returnn_lite.passes.split_dots import split_dots
from returnn_lite.passes.split_searches import split_searches

Observe = Callable[[str, Graph], None]


@dataclass(frozen=True)
class Pass:
    """One pass under the name that users see. The rules that it `makes` hold from there on, those that it `leaves`
    right behind it."""

    name: str
    run: Callable[[Graph], Graph]
    makes: tuple[Rule, ...] = ()
    leaves: tuple[Rule, ...] = ()


@dataclass(frozen=True, eq=False)
class PassRun:
    """What one run of a pass took and made: CPU seconds, and numbers of nodes and loops, those in bodies included."""

    name: str
    seconds: float
    nodes_before: int
    nodes: int
    loops: int


Log = Callable[[PassRun], None]


def _required_distribution(graph: Graph) -> Graph:
    return distribute_loops(graph, only_required=True)


def _statistics_of_masked_steps(graph: Graph) -> Graph:
    """What needs all steps of a slower clock leaves its loop before the clocks go; unchanged if there is none."""
    masked = any(_needs_masked_steps(node.op) for node in walk(graph.nodes) if isinstance(node.op, Loop))
    return distribute_loops(graph, only_required=True) if masked else graph


def _statistics_in_searches(graph: Graph) -> Graph:
    """The same, if that is still part of a search or of a loop in a loop; raises PassError if that is so for good."""
    loops = [node.op for node in walk(graph.nodes) if isinstance(node.op, Loop)]
    outermost = {node.op for node in graph.nodes}
    guarded = [loop for loop in loops if searches(loop) or loop not in outermost]
    return distribute_loops(graph, only_required=True) if any(map(_needs_masked_steps, guarded)) else graph


def _needs_masked_steps(loop: Loop) -> bool:
    return any(node.clock and needs_all_steps(node) for node in loop.body)


def _required_split(graph: Graph) -> Graph:
    return split_searches(graph, only_required=True)


OPTIMIZED = (
    Pass("dead_nodes", dead_nodes),
    Pass("index_checks", index_checks),
    Pass("split_searches", split_searches),
    Pass("clocks", clocks, ON_ONE_CLOCK),
    Pass("distribute_loops", _statistics_in_searches),
    Pass("guard_search", guard_search, SEARCH_AT_EVERY_STEP),
    Pass("beams", beams, EXPLICIT_BEAMS),
    Pass("simplify", simplify),
    Pass("join_dots", join_dots),
    Pass("split_dots", split_dots),
    Pass("distribute_loops", distribute_loops, (*AT_EVERY_STEP, *STEP_BY_STEP), leaves=FOR_CYCLES),
    Pass("fuse_loops", fuse_loops),
    Pass("simplify", simplify),
    Pass("dead_nodes", dead_nodes),
    Pass("distribute_loops", distribute_unordered, leaves=FOR_CYCLES),
    Pass("decide_first", decide_first),
    Pass("dead_inputs", dead_inputs),
    Pass("ranks", ranks),
    Pass("recompute", recompute),
)
PLAIN = (
    Pass("dead_nodes", dead_nodes),
    Pass("index_checks", index_checks),
    Pass("split_searches", _required_split),
    Pass("clocks", clocks, ON_ONE_CLOCK),
    Pass("distribute_loops", _statistics_of_masked_steps),
    Pass("guard", guard, AT_EVERY_STEP),
    Pass("beams", beams, EXPLICIT_BEAMS),
    Pass("distribute_loops", _required_distribution, STEP_BY_STEP),
    Pass("dead_nodes", dead_nodes),
    Pass("dead_inputs", dead_inputs),
    Pass("ranks", ranks),
    Pass("recompute", recompute),
)
"""What compilation without optimisation does: only what gives the network its meaning."""


def optimize(
    graph: Graph,
    *,
    enabled: bool = True,
    observe: Observe | None = None,
    log: Log | None = None,
    verify_each: bool = True,
) -> Graph:
    """Runs the passes, verifying the graph after each; calls `observe` with the name and result of each that changed
    it, and `log` with what each took. Without `verify_each` (a graph that is not built, `rnn.py check`) it is verified
    once, after the last.

    Raises PassError for a network that has no meaning, InternalError for a mistake of a pass.
    """
    typed: set[Node] = set()
    made: tuple[Rule, ...] = ()
    if verify_each:
        verify(graph, "building", made, typed)
    for each in OPTIMIZED if enabled else PLAIN:
        before = str(graph) if observe is not None else ""
        graph, earlier = _logged(each, graph, log), graph
        made += each.makes
        if verify_each and (each.makes or not _same(graph, earlier)):
            verify(graph, each.name, (*made, *each.leaves), typed)
        if observe is not None and str(graph) != before:
            observe(each.name, graph)
    if verify_each:
        return graph
    return _logged(Pass("verify", lambda graph: verify(graph, "all passes", made)), graph, log)


def _logged(one: Pass, graph: Graph, log: Log | None) -> Graph:
    """What a pass makes of a graph."""
    start = time.process_time()
    result = one.run(graph)
    if log is not None:
        log(pass_run(one.name, time.process_time() - start, graph, result))
    return result


def pass_run(name: str, seconds: float, before: Graph, after: Graph) -> PassRun:
    """What a pass made of a graph in so many seconds."""
    ops = [node.op for node in walk(after.nodes)]
    return PassRun(name, seconds, sum(1 for _ in walk(before.nodes)), len(ops), sum(isinstance(x, Loop) for x in ops))


def _same(graph: Graph, other: Graph) -> bool:
    """True if a pass changed nothing."""
    mine, others = ((each.inputs, each.nodes, each.outputs, each.checks) for each in (graph, other))
    return mine == others
