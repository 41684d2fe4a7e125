"""Which kernel runs each recurrence of a network, on a CPU and on a GPU, and what keeps it from a faster one: the
analysis behind `explain --kernels`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from returnn_lite.explain.cells import is_around
from returnn_lite.explain.placement import Place, loop_names
from returnn_lite.ir import Graph, InLoop, Loop, Node, Recompute
from returnn_lite.ir.layer_reads import CellRecord, LayerRecord
from returnn_lite.ir.ops.recurrence import Recurrence
from returnn_lite.passes.kernels.candidates import Obstacle
from returnn_lite.passes.kernels.choice import Choice, Kernel, kernels

Locate = Callable[[str, tuple[str | int, ...]], str]
"""Where something is in the config, by the path of its layer and its own below that; "" if nobody knows."""


@dataclass(frozen=True)
class RecurrenceKernels:
    """A recurrence: its layer's path and the cell's below it, or the name of a loop; the cell's name, or what it is;
    its kernels; and what keeps it from a faster one on any device, and on a GPU alone."""

    name: str
    kind: str
    cpu: str
    gpu: str
    obstacles: tuple[str, ...] = ()
    obstacles_on_gpu: tuple[str, ...] = ()

    @property
    def all_obstacles(self) -> tuple[str, ...]:
        return (*self.obstacles, *(f"on a GPU: {why}" for why in self.obstacles_on_gpu))


def recurrences(
    graph: Graph, layers: Mapping[str, LayerRecord], places: Mapping[str, Place], locate: Locate
) -> list[RecurrenceKernels]:
    """The recurrences of an optimised graph: the cells of the layers in their order, then other ones, then loops over
    networks."""
    return list(_Recurrences(graph, layers, places, locate).rows())


@dataclass
class _Recurrences:
    graph: Graph
    layers: Mapping[str, LayerRecord]
    places: Mapping[str, Place]
    locate: Locate
    whole: dict[tuple[str, str], list[Node]] = field(default_factory=dict)
    """By layer and cell, what is one primitive over all steps."""
    stepwise: dict[tuple[str, str], list[Node]] = field(default_factory=dict)
    """By layer and cell, the loops that run it step by step."""

    def __post_init__(self) -> None:
        self.on_cpu, self.on_gpu = kernels(self.graph, "cpu"), kernels(self.graph, "gpu")
        self.names = loop_names(self.graph)
        for node in self.on_cpu:
            if isinstance(node.op, Loop):
                for key in dict.fromkeys(map(_key, _body(node.op))):
                    self.stepwise.setdefault(key, []).append(node)
            else:
                self.whole.setdefault(_key(node), []).append(node)

    def rows(self) -> Iterator[RecurrenceKernels]:
        told: set[Node] = set()
        for path, layer in self.layers.items():
            for cell in layer.cells:
                nodes = self.whole.get((path, cell.path)) or self.stepwise.get((path, cell.path), [])
                if cell.states and nodes:
                    told.update(node for node in nodes if self._is_of_unit(node))
                    yield self._of_cell(path, layer.cells, cell, nodes[0])
        for node in self.on_cpu:
            if node in told:
                continue
            if isinstance(node.op, Recurrence):
                yield self._row(node.origin.layer, node.op.label, node, (), self.on_gpu[node].obstacles)
            elif not self.layers[node.origin.layer].cells:
                why = "its layers need each other from step to step: explain without --kernels says how"
                loop = Kernel.LOOP.value
                yield RecurrenceKernels(self.names[node], "loop over layers", loop, loop, (why,))

    def _is_of_unit(self, node: Node) -> bool:
        """Whether a node is what becomes of a unit, and not a loop around its layer."""
        return not isinstance(node.op, Loop) or bool(self.layers[node.origin.layer].cells)

    def _of_cell(self, path: str, cells: Sequence[CellRecord], cell: CellRecord, node: Node) -> RecurrenceKernels:
        name = " ".join(filter(None, (path, cell.path)))
        if not isinstance(node.op, Loop):
            return self._row(name, cell.name, node, (path, cell), self.on_gpu[node].obstacles)
        options = list(_unlike_primitives(node.op, path, cells, cell))
        why = [self._text(path, by, Obstacle(option, option)) for by, option in options]
        place = self.places.get(path)
        if not _is_primitive(node.op, path, cell) and all(by is not cell for by, _ in options):
            why.append(f"there is no primitive for {cell.name}")
        if place is not None and place.where == "loop":
            why.append(f"it is in the loop {place.loops[-1]}: {place.reason}")
        why = why or ["the cell around it is between its states"]
        return RecurrenceKernels(name, cell.name, Kernel.LOOP.value, Kernel.LOOP.value, tuple(why))

    def _row(
        self,
        name: str,
        kind: str,
        node: Node,
        of: tuple[str, CellRecord] | tuple[()],
        obstacles: Sequence[Obstacle],
    ) -> RecurrenceKernels:
        path, cell = of or (node.origin.layer, None)
        told = tuple(self._text(path, cell, obstacle) for obstacle in obstacles)
        return RecurrenceKernels(name, kind, self.on_cpu[node].kernel.value, _shown(self.on_gpu[node]), (), told)

    def _text(self, path: str, cell: CellRecord | None, obstacle: Obstacle) -> str:
        """An obstacle with the place of its option, if the config has it."""
        where = cell.options_at.get(obstacle.option) if cell is not None else None
        if where is None and cell is not None and obstacle.option:
            where = cell.at
        position = self.locate(path, where) if where is not None else ""
        return f"{obstacle.why} ({position})" if position else obstacle.why


def _key(node: Node) -> tuple[str, str]:
    return node.origin.layer, node.origin.cell


def _body(loop: Loop) -> Iterator[Node]:
    """The nodes of a loop's body, also what is computed again when gradients are taken."""
    for node in loop.body:
        yield from node.op.body if isinstance(node.op, Recompute) else (node,)


def _unlike_primitives(
    loop: Loop, path: str, cells: Sequence[CellRecord], cell: CellRecord
) -> Iterator[tuple[CellRecord, str]]:
    """The options, of the cell and of those around it, because of which it is no primitive, each once."""
    around = {one.path: one for one in cells if is_around(one.path, cell.path)}
    origins = (node.origin for node in _body(loop) if node.origin.layer == path and node.origin.cell in around)
    said = ((origin.cell, option) for origin in origins for option in origin.unlike_primitive)
    return ((around[by], option) for by, option in dict.fromkeys(said))


def _is_primitive(loop: Loop, path: str, cell: CellRecord) -> bool:
    """Whether a step of the cell is one primitive."""
    own = (node for node in _body(loop) if _key(node) == (path, cell.path))
    return any(node.op.in_loop is InLoop.RECURRENCE for node in own)


def _shown(choice: Choice) -> str:
    """`cuDNN, 2 layers, both directions`: what runs together."""
    if choice.group is None:
        return choice.kernel.value
    layers = choice.group.layers
    together = [f"{len(layers)} layers"] if len(layers) > 1 else []
    return ", ".join([choice.kernel.value, *together, *(["both directions"] if len(layers[0]) > 1 else [])])
