"""Which kernel runs each recurrence of a graph on a device."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from returnn_lite.ir import Graph, Loop, Node, Recompute
from returnn_lite.ir.ops.recurrence import Recurrence
from returnn_lite.passes.kernels.candidates import Candidate, Obstacle, Surroundings, candidate_of
from returnn_lite.passes.kernels.groups import Group, groups_of

Device = Literal["cpu", "gpu"]


class Kernel(enum.Enum):
    """The kernels, the fastest first."""

    CUDNN = "cuDNN"
    FUSED = "fused"
    """All steps of one primitive, with a backward loop of its own."""
    LOOP = "loop"
    """The nodes of the body, step by step."""


@dataclass(frozen=True, eq=False)
class Choice:
    """The kernel of a recurrence; what keeps it from a faster one that the device has; with cuDNN, what it runs
    together."""

    kernel: Kernel
    obstacles: tuple[Obstacle, ...] = ()
    group: Group | None = None


IN_LOOP = Obstacle("each step of a loop runs it")
RECOMPUTED = Obstacle("it is computed again when gradients are taken: cuDNN keeps what it needs")


def kernels(graph: Graph, device: Device) -> Mapping[Node, Choice]:
    """The kernel of each node that is a recurrence, or a loop, of an optimised graph."""
    nodes = [node for node, _ in _recurrences(graph.nodes)]
    found = {node: Choice(Kernel.LOOP if isinstance(node.op, Loop) else Kernel.FUSED) for node in nodes}
    if device == "cpu":
        return found
    around = Surroundings.of(graph)
    candidates: list[Candidate] = []
    for node, inside in _recurrences(graph.nodes):
        if not isinstance(node.op, Recurrence):
            continue
        one = candidate_of(node, node.op, around) if inside is None else (inside,)
        if isinstance(one, Candidate):
            candidates.append(one)
        else:
            found[node] = Choice(Kernel.FUSED, one)
    for group in groups_of(candidates, around):
        found |= {member.node: Choice(Kernel.CUDNN, group=group) for member in group.members}
    return found


def _recurrences(nodes: Sequence[Node], inside: Obstacle | None = None) -> Iterator[tuple[Node, Obstacle | None]]:
    """The recurrences and loops, and what each is inside of."""
    for node in nodes:
        if isinstance(node.op, Recurrence | Loop):
            yield node, inside
        if isinstance(node.op, Loop):
            yield from _recurrences(node.op.body, IN_LOOP)
        if isinstance(node.op, Recompute):
            yield from _recurrences(node.op.body, inside or RECOMPUTED)
