"""Which vertices of a body can leave their loop and which stay together, in dependency order: what `distribute_loops`
goes by.

The strongly connected components are the smallest groups (Allen and Kennedy 2001, chapter 2). Loops whose length is
only known when they end, and loops with a beam, keep together what varies from step to step (for a beam: what depends
on a choice); only the rest leaves.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from returnn_lite.ir import InLoop, Node, State, Value
from returnn_lite.ir.body import BodyGraph, Vertex, needs_all_steps, operands_of
from returnn_lite.ir.components import shortest_cycle, strongly_connected_components
from returnn_lite.passes.errors import PassError
from returnn_lite.passes.loops.whole_forms import can_be_vectorized, is_own_recurrence


@dataclass(frozen=True)
class Group:
    """Vertices, nodes before states, that stay in one loop, or of which the first one leaves it as what it is on whole
    sequences, the others being its own states."""

    vertices: tuple[Vertex, ...]
    stays: bool

    @property
    def nodes(self) -> list[Node]:
        """Its nodes."""
        return [vertex for vertex in self.vertices if isinstance(vertex, Node)]

    @property
    def states(self) -> list[State]:
        """Its states."""
        return [vertex for vertex in self.vertices if isinstance(vertex, State)]


def partition(body: BodyGraph, layer: str, only_required: bool) -> list[Group]:
    """The groups of a body in dependency order; with `only_required` only what can't be done step by step leaves.

    `layer` is the one whose loop it is. Raises PassError for what needs all steps at once and is in a cycle.
    """
    return _Partition(body, layer, only_required).groups()


def reads_of(body: BodyGraph, vertex: Vertex) -> tuple[Value, ...]:
    """What a vertex needs; of its masks, nothing if they make no difference to it."""
    is_constant = vertex in body.invariants and not needs_all_steps(vertex)  # all steps of a mask: as many as it has
    return vertex.inputs if isinstance(vertex, Node) and is_constant else operands_of(vertex)


class _Partition:
    """What the vertices, here by their numbers, need: `read` in the steps, `needed` with the end of the loop."""

    def __init__(self, body: BodyGraph, layer: str, only_required: bool) -> None:
        self.body = body
        self.layer = layer
        self.only_required = only_required
        self.vertices = body.vertices
        self.read = [self._needs(vertex) for vertex in self.vertices]
        self.needed = [[*read, *self._end(v)] for read, v in zip(self.read, self.vertices, strict=True)]

    def groups(self) -> list[Group]:
        """The groups, histories tied to what sees them."""
        found = self._staying(strongly_connected_components(self.needed))
        while self._tie_histories(found):
            found = self._staying(strongly_connected_components(self.needed))
        for group, stays in found:
            if stays:
                self._require_steps(group)
        return [Group(tuple(self.vertices[i] for i in sorted(group)), stays) for group, stays in found]

    def _needs(self, vertex: Vertex) -> list[int]:
        index = self.body.index
        needed = [index[other] for other in self.body.makers_of(reads_of(self.body, vertex))]
        if isinstance(vertex, Node) and self.body.maker:
            named = vertex.op.named_dims().difference(vertex.op.created_dims())
            needed += sorted({index[self.body.maker[dim]] for dim in named if dim in self.body.maker})
        if isinstance(vertex, Node) and self.body.renaming:
            measured = vertex.op.measured_dims().difference(*(value.type.dims for value in vertex.inputs))
            needed += [index[node] for dim, node in self.body.renaming.items() if dim in measured]
        return needed

    def _end(self, vertex: Vertex) -> list[int]:
        """What says when the loop ends, for what needs all of its steps: there are no more only then."""
        ending = self.body.loop.ending
        if ending is None or not needs_all_steps(vertex):
            return []
        return [self.body.index[other] for other in self.body.makers_of([ending.ended])]

    def _staying(self, components: list[list[int]]) -> list[tuple[list[int], bool]]:
        """Groups of vertices in dependency order, and whether each stays in a loop."""
        together = self._kept_together(components)
        if not together:
            return [(component, not self._can_leave(component)) for component in components]
        return self._around(components, together)

    def _tie_histories(self, staying: list[tuple[list[int], bool]]) -> bool:
        """Keeps a history of masked frames with a loop of other steps that sees it: between the frames of the mask
        nothing says how long it is. True if any was not kept yet."""
        tied = False
        for group, stays in staying if self.body.maker else ():
            members = {self.vertices[i] for i in group}
            clocks = {vertex.clock for vertex in members}
            for index in group:
                vertex = self.vertices[index]
                inputs = vertex.inputs if stays and isinstance(vertex, Node) else ()
                dims = dict.fromkeys(dim for value in inputs for dim in value.type.dims)
                for maker in dict.fromkeys(self.body.maker[dim] for dim in dims if dim in self.body.maker):
                    if maker not in members and maker.clock and clocks != {maker.clock}:
                        self.needed[self.body.index[maker]].append(index)
                        tied = True
        return tied

    def _can_leave(self, component: list[int]) -> bool:
        """True for a vertex without a cycle, and for a recurrence with nothing but its own states in its cycle."""
        if len(component) == 1 and component[0] not in self.needed[component[0]]:
            vertex = self.vertices[component[0]]
            return isinstance(vertex, State) or can_be_vectorized(vertex.op)
        self._require_steps(component)
        node, *others = (self.vertices[i] for i in component)
        return isinstance(node, Node) and is_own_recurrence(node, others)

    def _require_steps(self, group: Sequence[int]) -> None:
        """Raises PassError if any of a group, which has to run step by step, needs all steps at once."""
        index = next((i for i in group if needs_all_steps(self.vertices[i])), None)
        if index is not None:
            vertex = self.vertices[index]
            assert isinstance(vertex, Node)
            layer, cycle = vertex.origin.layer, self._cycle(index, set(group))
            raise PassError(
                f"'{layer}' needs all steps of the loop at once, but it is part of the cycle "
                f"{' -> '.join(cycle)}, which runs step by step",
                dict.fromkeys([layer, *cycle]),
            )

    def _cycle(self, start: int, group: Collection[int]) -> list[str]:
        """The layers of the shortest cycle of a group through a vertex, each before what reads it; one through the end
        of the loop if there is no other."""
        way = shortest_cycle(self.read, start, group)
        way = way if len(way) > 1 else shortest_cycle(self.needed, start, group)
        layers = [vertex.origin.layer for i in reversed(way) if isinstance(vertex := self.vertices[i], Node)]
        return [layer for layer, _ in itertools.groupby(layer for layer in layers if layer != self.layer)]

    def _kept_together(self, components: list[list[int]]) -> set[int]:
        """The vertices that must stay in one loop: of loops of unknown length, with a beam, or all with
        `only_required`."""
        if self.only_required or self.body.loop.ending is not None:
            return self._descendants(components, self._sources_of_variation())
        if self.body.loop.search is not None:
            nodes = enumerate(self.body.loop.body)
            return self._descendants(components, {i for i, node in nodes if node.op.in_loop is InLoop.BEAM})
        return set()

    def _sources_of_variation(self) -> set[int]:
        """What varies from step to step by itself; and recurrences, which have a form for all steps or for each."""
        elements = {element.now for element in self.body.loop.elements}
        return {
            index
            for index, vertex in enumerate(self.vertices)
            if isinstance(vertex, State)
            or vertex.op.in_loop is InLoop.RECURRENCE
            or vertex.op.fresh
            or any(value in elements for value in reads_of(self.body, vertex))
        }

    def _descendants(self, components: list[list[int]], roots: set[int]) -> set[int]:
        """The roots, what depends on them, and what is in a cycle with any of these.

        What needs all steps at once is not among them where it is in no cycle: it is computed between loops, and gives
        every step the same.
        """
        found: set[int] = set()
        for component in components:
            if len(component) == 1 and needs_all_steps(self.vertices[component[0]]):
                continue
            if any(i in roots or any(j in found for j in self.needed[i]) for i in component):
                found.update(component)
        return found

    def _around(self, components: list[list[int]], together: set[int]) -> list[tuple[list[int], bool]]:
        """Groups with the kept vertices in as few loops as possible: one for each chain of WHOLE_AXIS nodes between
        them."""
        level: dict[int, int] = {}
        groups: dict[int, list[int]] = {}
        order: list[tuple[list[int], int, bool]] = []
        for component in components:
            below = max((level[j] for i in component for j in self.needed[i] if j in level), default=0)
            if component[0] in together:
                groups.setdefault(below, []).extend(component)
            else:
                below += any(j in together for i in component for j in self.needed[i])
                order.append((component, 2 * below, not self._can_leave(component)))
            level |= dict.fromkeys(component, below)
        order += [(group, 2 * below + 1, True) for below, group in groups.items()]
        order.sort(key=lambda entry: entry[1])
        return [(group, stays) for group, _, stays in order]
