"""What recomputing layers would save, and what it would cost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from returnn_lite.ir import Graph, Loop, Node, computed_once
from returnn_lite.ir.layer_reads import LayerRecord
from returnn_lite.memory.kept import TrainStep, train_step
from returnn_lite.memory.sizes import BatchSizes
from returnn_lite.passes.recompute import recompute

TRIED = 20
"""Of so many layers, those that keep the most, it is tried what each alone would save."""
INSIDE = ("rec", "subnetwork")
"""The layers that have the option, for layers inside of them."""


@dataclass(frozen=True)
class Choice:
    """A layer to be recomputed, which the option `recompute` of the layer `around` names, "" for the config's own."""

    layer: str
    around: str = ""

    @property
    def mark(self) -> str:
        """Layers of one mark are computed again together; outermost ones each by itself."""
        return self.around or self.layer

    @property
    def name(self) -> str:
        """As the option names it."""
        return self.layer.removeprefix(f"{self.around}/")


@dataclass(frozen=True)
class Tried:
    """A train step with layers recomputed."""

    choices: tuple[Choice, ...]
    step: TrainStep


def outermost(layers: Iterable[str]) -> list[Choice]:
    """What the config's own option can name."""
    return [Choice(path) for path in layers if "/" not in path]


def inside(layers: Iterable[str], around: str) -> list[Choice]:
    """What the option of a layer can name."""
    start = f"{around}/"
    return [Choice(path, around) for path in layers if path.startswith(start) and "/" not in path[len(start) :]]


def all_choices(layers: Mapping[str, LayerRecord]) -> list[Choice]:
    """What the config's option, and those of outermost layers, can name."""
    found = outermost(layers)
    return found + [one for outer in found if layers[outer.layer].kind in INSIDE for one in inside(layers, outer.layer)]


def with_choices(graph: Graph, choices: Collection[Choice]) -> Graph:
    """The graph with these layers recomputed besides those that are already."""
    marks = {choice.layer: choice.mark for choice in choices}

    def mark_of(layer: str) -> str:
        while layer and layer not in marks:
            layer = layer.rpartition("/")[0]
        return marks.get(layer, "")

    return recompute(replace(graph, nodes=_marked(computed_once(graph.nodes), mark_of)))


def _marked(nodes: Iterable[Node], mark_of: Callable[[str], str]) -> tuple[Node, ...]:
    found = []
    for node in nodes:
        if isinstance(node.op, Loop):
            node = node.with_loop(replace(node.op, body=_marked(node.op.body, mark_of)))
        mark = node.origin.recompute or mark_of(node.origin.layer)
        found.append(
            replace(node, origin=replace(node.origin, recompute=mark)) if mark != node.origin.recompute else node
        )
    return tuple(found)


def each_alone(graph: Graph, sizes: BatchSizes, choices: Sequence[Choice]) -> list[Tried]:
    """What each choice alone makes of a train step, the one that saves most first; without those that save nothing. Of
    many only those layers that keep the most are tried."""
    before = train_step(graph, sizes)
    kept: dict[str, int] = {}
    for array in before.arrays:
        parts = array.layer.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            kept[path] = kept.get(path, 0) + array.bytes
    largest = sorted(choices, key=lambda choice: -kept.get(choice.layer, 0))[:TRIED]
    tried = [Tried((choice,), train_step(with_choices(graph, [choice]), sizes)) for choice in largest]
    return sorted((one for one in tried if one.step.bytes < before.bytes), key=lambda one: one.step.bytes)
