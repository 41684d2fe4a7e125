"""Stages: in which order of the hypotheses each node of a body with choices is computed (see `beams`).

A node is computed as early as its operands allow, but for those that share dims that a step makes. The length of such a
dim may differ from hypothesis to hypothesis, and there is one of it in a step: all that has the dim has to be of one
order.

    p = cum_concat_step(i, p', n')      # [U]             label, back, .. = choose(q, ..)
    label, back, .. = choose(q, ..)                   →   p = cum_concat_step(i, beam_gather(p', back), ..)
    y = dot(f(label), p)                                  y = dot(f(label), p)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from returnn_lite.dims import Dim
from returnn_lite.ir import Loop, Node, Value, node_operands
from returnn_lite.ir.body import is_choice
from returnn_lite.ir.reachability import reachable
from returnn_lite.passes.errors import PassError


def stages(loop: Loop, of_hypotheses: Collection[Value]) -> dict[Node, int]:
    """For each node of a body the number of choices of its step whose order its operands have.

    `of_hypotheses` are the values that differ from hypothesis to hypothesis. Raises PassError for a dim that is needed
    in two orders, and whose length is another in each.
    """
    late = _latest(loop)
    groups = list(_sharing_dims(loop, of_hypotheses))
    shared: dict[Node, int] = {}
    while True:  # one group of a later order may put off what another reads; stages only grow, up to the latest
        early = _earliest(loop, of_hypotheses, shared)
        found = dict(shared)
        for group in groups:
            stage = max(early[node] for node in group)
            if all(late[node] >= stage for node in group):
                found |= dict.fromkeys(group, stage)
        if found == shared:
            for group in groups:
                _require_one_order(group, early, of_hypotheses)
            return early
        shared = found


def _earliest(loop: Loop, of_hypotheses: Collection[Value], at_least: Mapping[Node, int]) -> dict[Node, int]:
    """The stages as early as operands allow, of some nodes not before another stage."""
    found: dict[Node, int] = {}
    made: dict[Value, int] = {}
    choices = 0
    for node in loop.body:
        own = [made.get(value, 0) for value in node.inputs if value in of_hypotheses]
        found[node] = choices if is_choice(node) else max(own, default=0)
        found[node] = max(found[node], at_least.get(node, 0))
        choices += is_choice(node)
        made |= dict.fromkeys(node.outputs, found[node] + is_choice(node))
    return found


def _latest(loop: Loop) -> dict[Node, int]:
    """The last stages at which what choices read is there for them."""
    found: dict[Node, int] = {}
    choices = last = sum(map(is_choice, loop.body))
    needed: dict[Value, int] = {}
    for node in reversed(loop.body):
        choices -= is_choice(node)
        stage = choices if is_choice(node) else min((needed.get(x, last) for x in node.outputs), default=last)
        found[node] = stage
        for value in node_operands(node):
            needed[value] = min(stage, needed.get(value, last))
    return found


def _require_one_order(group: Sequence[Node], stage: Mapping[Node, int], of_hypotheses: Collection[Value]) -> None:
    """Raises PassError if a choice reads nodes of a group, others of it read the choice, and the dims that they share
    are as long as a hypothesis says."""
    own = [node for node in group if any(output in of_hypotheses for output in node.outputs)]
    first, last = min(own, key=stage.__getitem__), max(own, key=stage.__getitem__)
    makers = [node for node in own if node.op.created_dims() and _makes_as_many_as_hypotheses_say(node, of_hypotheses)]
    if makers and stage[first] != stage[last]:
        raise PassError(
            f"a choice depends on the frames of '{makers[0].origin.layer}', '{last.origin.layer}' reads them together "
            "with what was chosen, and how many there are differs from hypothesis to hypothesis: let it read what was "
            "chosen one step before (prev:)",
            dict.fromkeys([last.origin.layer, makers[0].origin.layer]),
        )


def _makes_as_many_as_hypotheses_say(node: Node, of_hypotheses: Collection[Value]) -> bool:
    """False for a history that gets a frame in each step."""
    at = node.op.mask_at
    return at is None or (at < len(node.inputs) and node.inputs[at] in of_hypotheses)


def _sharing_dims(loop: Loop, of_hypotheses: Collection[Value]) -> Iterator[list[Node]]:
    """Groups of nodes that share dims which a step makes for each hypothesis."""
    own = [node for node in loop.body if any(output in of_hypotheses for output in node.outputs)]
    made = {dim for node in own for dim in node.op.created_dims()}
    dims_of = {node: made & _dims(node) for node in loop.body if not is_choice(node)}
    nodes_of: dict[Dim, list[Node]] = {}
    for node, dims in dims_of.items():
        for dim in dims:
            nodes_of.setdefault(dim, []).append(node)
    seen: set[Node] = set()
    for node, dims in dims_of.items():
        if dims and node not in seen:
            group = list(reachable([node], lambda node: [other for dim in dims_of[node] for other in nodes_of[dim]]))
            seen.update(group)
            yield group


def _dims(node: Node) -> set[Dim]:
    return {dim for value in (*node.inputs, *node.outputs) for dim in value.type.dims} | node.op.named_dims()
