"""Which layers of a loop's body need each other across steps: shortest cycles, and the fewest reads that make them.

Vertices are the nodes and states of the body, as built. A vertex needs the producers of what it reads; a state needs
what it was one step before. The cell of a recurrence alone in its cycle has a whole-sequence form, so its way to itself
through its own states does not count. Reads between layers are what a user can change; the fewest that separate two
sets of vertices are a minimum cut (Ford and Fulkerson 1956), in which a read of the step before counts less than half.
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from returnn_lite.explain.minimum_cut import UNCUT, Flow
from returnn_lite.ir import InLoop, Loop, Node, State, Value, node_operands
from returnn_lite.ir.body import Vertex, carried
from returnn_lite.ir.layer_reads import LayerRecord
from returnn_lite.passes.split_searches import needed_by_search

OF_STEP_BEFORE, OF_SAME_STEP = 2, 5
"""What a read counts in a cut. It says more that two layers read `prev:x` than that a layer reads its own source."""


@dataclass(frozen=True)
class LayerRead:
    """That one layer reads another, as a user wrote it: `reference` is a layer's path, after `prev:` if of the step
    before."""

    reader: str
    reference: str


class BodyDependencies:
    """The dependencies in the body of one loop. `layers` are all layers of the network, by path."""

    def __init__(self, loop: Loop, layers: Mapping[str, LayerRecord]) -> None:
        self.loop = loop
        self.layers = layers
        self.vertices: list[Vertex] = [*loop.body, *loop.states]
        self.producer = {output: i for i, node in enumerate(loop.body) for output in node.outputs}
        self.producer |= {state.now: len(loop.body) + i for i, state in enumerate(loop.states)}
        self.owners = [self._owner(vertex) for vertex in self.vertices]
        self.needs = [self._needs(index) for index in range(len(self.vertices))]

    def vertex_of(self, layer: str) -> int | None:
        """The vertex that makes the value of a layer; None if it is none of this body."""
        return next((index for value, index in self.producer.items() if value.layer == layer), None)

    @functools.cached_property
    def choices(self) -> list[int]:
        """The vertices at which search chooses."""
        return [i for i, v in enumerate(self.vertices) if isinstance(v, Node) and v.op.in_loop is InLoop.BEAM]

    @functools.cached_property
    def scope(self) -> str:
        """The path of the layer whose loop this is, with a slash: what names in sentences leave out."""
        paths = [node.origin.layer.split("/") for node in self.loop.body if node.origin.layer in self.layers]
        deeper = [path for path in paths if len(path) > 1]
        if not deeper:
            return ""
        shared = deeper[0][:-1]
        for path in deeper:
            while path[: len(shared)] != shared or path == shared:
                shared = shared[:-1]
        return "/".join(shared) + "/" if shared else ""

    # Ways

    def way(self, starts: Iterable[int], ends: Collection[int]) -> list[int]:
        """The way with the fewest layers from a start to an end, at least one step long; empty if there is none.

        Of several the first by the order in which vertices need others (Dijkstra 1959). A start that is reached again
        is another place than where the way began: it is counted from -1 down.
        """
        before: dict[int, int] = {}
        waiting = [(0, number, -1 - start, -1 - start) for number, start in enumerate(starts)]
        number = len(waiting)
        while waiting:
            price, _, place, origin = heapq.heappop(waiting)
            if place in before:
                continue
            before[place] = origin
            if place in ends and place >= 0:
                return self._traced(place, before)
            for read, more in self._prices[place if place >= 0 else -1 - place]:
                if read not in before:
                    number += 1
                    heapq.heappush(waiting, (price + more, number, read, place))
        return []

    @functools.cached_property
    def _prices(self) -> list[list[tuple[int, int]]]:
        """For each vertex what it needs, and whether that is a further layer."""
        return [[(read, self._price(reader, read)) for read, _ in needed] for reader, needed in enumerate(self.needs)]

    def _price(self, reader: int, read: int) -> int:
        owner = self.owners[read]
        return 0 if owner is None or owner == self.owners[reader] or isinstance(self.vertices[read], State) else 1

    def _traced(self, end: int, before: Mapping[int, int]) -> list[int]:
        way = [end]
        while way[-1] >= 0:
            way.append(before[way[-1]])
        return [-1 - way[-1], *way[-2::-1]]

    def names(self, way: Sequence[int]) -> list[str]:
        """What a way goes through, in a user's words: layers, and `prev:` before what is of the step before."""
        found: list[str] = []
        for place, index in enumerate(way):
            vertex = self.vertices[index]
            names: list[str | None] = [self.owners[index]]
            reference = self._state_reference(vertex)
            if reference is not None:
                names = [reference]
            elif place > 0:
                value = next(value for read, value in self.needs[way[place - 1]] if read == index)
                asked = self._layer_read(way[place - 1], index, value)
                names.insert(0, asked.reference if asked is not None else None)
            for name in names:
                if name is not None and (not found or found[-1] not in (name, f"prev:{name}")):
                    found.append(name)
        return found

    # Cuts

    def fewest_reads(self, start: int, ends: Collection[int]) -> list[LayerRead]:
        """The fewest reads between layers without which `start` needs none of `ends`; empty if no reads do that."""
        source, sink = -1, -2
        whole, reads = self._reads
        flow = whole.copy()
        flow.move_ways(start, source)
        for end in ends:
            flow.move_ways(end, None)
            flow.add(end, sink, UNCUT)
        reached = flow.reached_after_cut(source, sink)
        cut = (read for place, read in reads.items() if place in reached and place + 1 not in reached)
        return sorted(cut, key=lambda read: (read.reader, read.reference))

    @functools.cached_property
    def _reads(self) -> tuple[Flow, dict[int, LayerRead]]:
        """All reads of the body, as wide as they count in a cut; and which reads the places are that are no vertices: a
        read is the way from its place to the next one."""
        flow = Flow()
        places: dict[LayerRead, int] = {}
        for index in range(len(self.vertices)):
            for read, value in self.needs[index]:
                what = self._layer_read(index, read, value)
                if what is None:
                    flow.add(index, read, UNCUT)
                    continue
                place = places.setdefault(what, len(self.vertices) + 2 * len(places))
                flow.add(index, place, UNCUT)
                flow.add(place, place + 1, OF_STEP_BEFORE if what.reference.startswith("prev:") else OF_SAME_STEP)
                flow.add(place + 1, read, UNCUT)
        return flow, {place: what for what, place in places.items()}

    def _layer_read(self, index: int, read: int, value: Value) -> LayerRead | None:
        """The read between layers that a dependency is; None inside of one layer, and where no layer asks for it."""
        reader, owner, vertex = self.owners[index], self.owners[read], self.vertices[read]
        if reader is None or isinstance(self.vertices[index], State):
            return None
        reference = self._state_reference(vertex)
        if reference is not None:
            return LayerRead(reader, reference)
        if owner is None or owner == reader or owner.startswith(f"{reader}/"):
            return None
        if isinstance(vertex, State):
            return LayerRead(reader, f"prev:{owner}")
        record = self.layers.get(reader)
        aliases = [r.path for r in record.reads if self._made_by(r.path) == value.layer] if record is not None else []
        return LayerRead(reader, aliases[0] if aliases else owner)

    # Owners

    def _made_by(self, path: str) -> str:
        return self.layers[path].of if path in self.layers else path

    def _owner(self, vertex: Vertex) -> str | None:
        """The layer that a vertex belongs to; None for what the loop itself adds."""
        path = "" if isinstance(vertex, State) and vertex.previous else vertex.origin.layer
        while path and path not in self.layers:
            path = path.rpartition("/")[0]
        return path if path and not self._is_around(path) else None

    def _is_around(self, path: str) -> bool:
        """True for the layer whose loop this is, and those around it."""
        return path in self._around and self.layers[path].of not in self._made

    @functools.cached_property
    def _around(self) -> set[str]:
        """The paths of all layers around those of the body."""
        parts = [node.origin.layer.split("/") for node in self.loop.body]
        return {"/".join(path[:length]) for path in parts for length in range(1, len(path))}

    @functools.cached_property
    def _made(self) -> set[str]:
        """The layers whose values the body's nodes make."""
        return {output.layer for node in self.loop.body for output in node.outputs} - {""}

    def _needs(self, index: int) -> list[tuple[int, Value]]:
        vertex = self.vertices[index]
        if isinstance(vertex, State):
            read: tuple[Value, ...] = (vertex.next,)
            own: set[int] = set()
        else:
            read = node_operands(vertex)
            own = self._own_states(vertex)
        return [
            (self.producer[v], v) for v in dict.fromkeys(read) if v in self.producer and self.producer[v] not in own
        ]

    def _own_states(self, node: Node) -> set[int]:
        """The states that carry a recurrence's results to the operands of the same place."""
        pairs = carried(node)
        return {self.producer[state.now] for state in self.loop.states if (state.next, state.now) in pairs}

    def _state_reference(self, vertex: Vertex) -> str | None:
        """`prev:x` for what was the layer x one step before; None for what is no such thing."""
        return f"prev:{vertex.previous}" if isinstance(vertex, State) and vertex.previous else None

    @functools.cached_property
    def needed_by_search(self) -> frozenset[int]:
        """The vertices that the choices of the body and its end depend on."""
        needed = needed_by_search(self.loop)
        return frozenset(i for i, vertex in enumerate(self.vertices) if vertex in needed)
