"""Which loops of one level can be one: they read each other frame by frame, and nothing else leads from one to another.

Every group of loops has a *level*: more than the level of any other group that it depends on, so that no way leads
between groups of one level. A loop joins a group whose frames it reads, if no other way leads from the group to it.
That is so if all else that it reads is of lower levels; if not, the way is looked for, and where there is none the
group rises. So each loop is looked at once, where levels tell what there is to know (as in typed fusion, Kennedy and
McKinley 1993).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from returnn_lite.dims import Dim
from returnn_lite.ir import Loop, Node, Value, walk
from returnn_lite.ir.body import producers
from returnn_lite.passes.loops.shared_frames import SharedFrames


@dataclass(eq=False)
class LoopGroup:
    """Loops that become one. `behind` are groups that it depends on other than by frames."""

    loops: list[Node]
    level: int
    made: set[Dim]
    unroll: int
    behind: set[LoopGroup] = field(default_factory=set)


Unit = Node | LoopGroup


def fusion_groups(nodes: Sequence[Node]) -> FusionGroups:
    """The groups of the loops of one level, whose nodes are in dependency order."""
    groups = FusionGroups(nodes)
    for node in nodes:
        groups.add(node)
    return groups


class FusionGroups:
    """The groups so far, and the frames that loops can read of each other."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.frames = SharedFrames()
        self._nodes = nodes
        self._place = {node: i for i, node in enumerate(nodes)}
        self._producer = producers(nodes)
        self._maker = {dim: node for node in nodes for dim in node.op.created_dims()}
        self._group: dict[Node, LoopGroup] = {}
        self._depth: dict[Node, int] = {}
        """Of what is no loop that can fuse: the highest level of the loops that it depends on."""
        self._needed: dict[Node, list[Node]] = {}
        self._dependents: dict[Node, list[Node]] = {node: [] for node in nodes}

    def in_order(self) -> Iterator[list[Node]]:
        """Every node that is no loop, and the loops of every group, in dependency order; else in the order as given."""
        done: set[Unit] = set()
        stack: list[tuple[Unit, bool]] = [(self._unit(node), False) for node in reversed(self._nodes)]
        while stack:
            unit, is_ready = stack.pop()
            if unit in done:
                continue
            nodes = _nodes(unit)
            if is_ready:
                done.add(unit)
                yield sorted(nodes, key=self._place.__getitem__)
            else:
                stack.append((unit, True))
                needed = dict.fromkeys(self._unit(other) for node in nodes for other in self._needs(node))
                stack += [(other, False) for other in reversed(needed) if other is not unit]

    def _unit(self, node: Node) -> Unit:
        return self._group.get(node, node)

    def _needs(self, node: Node) -> list[Node]:
        """What must be there before a node, or before the group of a loop."""
        group = self._group.get(node)
        return self._needed[node] if group is None else self._other_needs(node, [group])

    def _level(self, nodes: Iterable[Node]) -> int:
        """The highest level of the loops that nodes depend on, or are; -1 without any."""
        groups = self._group
        return max((groups[n].level if n in groups else self._depth[n] for n in nodes), default=-1)

    def _makers(self, node: Node) -> list[Node]:
        """What makes the dims that a node names; what comes later needs no length of them yet."""
        if not self._maker:
            return []
        named = node.op.named_dims().difference(node.op.created_dims())
        places = {self._place[self._maker[dim]] for dim in named if dim in self._maker}
        return [self._nodes[place] for place in sorted(places) if place < self._place[node]]

    # Groups

    def add(self, node: Node) -> None:
        """Adds a node behind all that it needs."""
        made = [self._producer[value] for value in node.inputs if value in self._producer]
        self._needed[node] = list(dict.fromkeys([*made, *self._makers(node)]))
        for needed in self._needed[node]:
            self._dependents[needed].append(node)
        if isinstance(node.op, Loop) and _takes_plain_steps(node.op):
            self._add_loop(node, node.op)
            return
        self._depth[node] = self._level(self._needed[node])
        self.frames.add(node)

    def _add_loop(self, node: Node, loop: Loop) -> None:
        """Adds a loop, which joins those that it reads where it can, the nearest first."""
        read = dict.fromkeys(self._group[frame.loop] for frame in self.frames.read_by(node).values())
        level = self._level(self._other_needs(node, read)) + 1
        made = {dim for inner in walk(loop.body) for dim in inner.op.created_dims()}
        group = LoopGroup([node], level, made, loop.unroll)
        self._group[node] = group
        for other in sorted(read, key=lambda other: (other.level, self._place[other.loops[-1]]), reverse=True):
            if self._can_join(group, other):
                group = self._join(group, other)
            else:
                group.behind.add(other)
                if group.level <= other.level:
                    group.level = other.level + 1
                    self._raise_above(list(group.loops))
        self.frames.add_loop(node, loop)

    def _other_needs(self, node: Node, groups: Collection[LoopGroup]) -> list[Node]:
        """What a loop needs besides frames of some groups; what these frames were before the first step is of it."""
        frames = self.frames.read_by(node)
        values: list[Value] = []
        for value in node.inputs:
            frame = frames.get(value)
            values += [value] if frame is None or self._group[frame.loop] not in groups else frame.first()
        return [*(self._producer[value] for value in values if value in self._producer), *self._makers(node)]

    def _can_join(self, group: LoopGroup, other: LoopGroup) -> bool:
        """True if no way leads from `other` to the group but by frames, and both are unrolled alike."""
        if other in group.behind or other.unroll != group.unroll or not other.made.isdisjoint(group.made):
            return False
        return group.level <= other.level or not self._leads_to(other, group)

    def _leads_to(self, start: LoopGroup, end: LoopGroup) -> bool:
        """True if anything but frames makes a group depend on another."""
        seen: set[Unit] = {end}
        work = [needed for loop in end.loops for needed in self._other_needs(loop, [start])]
        while work:
            unit = self._unit(work.pop())
            if unit is start:
                return True
            if unit not in seen and self._level(_nodes(unit)[:1]) >= start.level:
                seen.add(unit)
                work += [needed for node in _nodes(unit) for needed in self._needs(node)]
        return False

    def _join(self, group: LoopGroup, other: LoopGroup) -> LoopGroup:
        """Both as one group, of the higher level."""
        into, gone = (other, group) if len(group.loops) <= len(other.loops) else (group, other)
        lower = min(into, gone, key=lambda each: each.level)
        risen = list(lower.loops) if into.level != gone.level else []
        into.level = max(into.level, gone.level)
        into.loops += gone.loops
        into.made |= gone.made
        into.behind |= gone.behind
        self._group |= dict.fromkeys(gone.loops, into)
        self._raise_above(risen)
        return into

    def _raise_above(self, risen: list[Node]) -> None:
        """Raises what depends on nodes whose level has grown."""
        while risen:
            for reader in self._dependents[risen.pop()]:
                group = self._group.get(reader)
                if group is None:
                    level = self._level(self._needed[reader])
                    if self._depth[reader] < level:
                        self._depth[reader] = level
                        risen.append(reader)
                elif group.level <= (level := self._level(self._other_needs(reader, [group]))):
                    group.level = level + 1
                    risen += group.loops


def _nodes(unit: Unit) -> list[Node]:
    return unit.loops if isinstance(unit, LoopGroup) else [unit]


def _takes_plain_steps(loop: Loop) -> bool:
    """True for a loop that takes one step for each frame of its dim, for one hypothesis, all of it in every step."""
    if loop.ending is not None or loop.search is not None:
        return False
    clocks = [element.clock for element in (*loop.elements, *loop.stacks)]
    return not any([*clocks, *(state.clock for state in loop.states), *(node.clock for node in loop.body)])
