"""The layout of a graph in ranks, edges downwards (Sugiyama, Tagawa and Toda 1981), without boxes.

Ranks by longest paths; links over several ranks through points of their own; the order in a rank by barycenters of
neighbours; places by least squares with that order kept (isotonic regression).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Key = Hashable
Point = tuple[float, float]
GAP_X, GAP_Y = 26.0, 34.0
BEND_WIDTH = 6.0
ORDER_SWEEPS, PLACE_SWEEPS = 12, 8


@dataclass(frozen=True)
class Block:
    """Something to place. `ports` are points of its border, relative to its upper left corner, where links may end;
    `edge` says that it belongs in the first or last rank."""

    width: float
    height: float
    ports: Mapping[Key, float] = field(default_factory=dict)
    edge: str = ""


@dataclass(frozen=True)
class Link:
    """From one block to another, by ports of these (their middle, where they have no such port). A `back` link does not
    say who is above."""

    start: Key
    end: Key
    start_port: Key = None
    end_port: Key = None
    back: bool = False


@dataclass
class Layered:
    """The layout of blocks: `x` and `y` are upper left corners."""

    blocks: dict[Key, Block]
    links: Sequence[Link]
    rank: dict[Key, int] = field(default_factory=dict)
    rows: list[list[Key]] = field(default_factory=list)
    bends: dict[Link, list[Key]] = field(default_factory=dict)
    x: dict[Key, float] = field(default_factory=dict)
    y: dict[Key, float] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0

    def __post_init__(self) -> None:
        self.links = list(dict.fromkeys(self.links))
        self._find_ranks()
        self._add_bends()
        self._find_orders()
        self._find_places()

    def way(self, link: Link) -> list[Point]:
        """The points of a link, from its start to its end."""
        upward = self.rank[link.start] > self.rank[link.end]
        level = self.rank[link.start] == self.rank[link.end]
        top, bottom = (link.end, link.start) if upward else (link.start, link.end)
        top_port, bottom_port = (link.end_port, link.start_port) if upward else (link.start_port, link.end_port)
        points = [(self._end_x(top, top_port, link), self.y[top] + self.blocks[top].height)]
        if level:
            last = (self._end_x(bottom, bottom_port, link), self.y[bottom] + self.blocks[bottom].height)
            low = max(points[0][1], last[1]) + GAP_Y / 2
            return [points[0], ((points[0][0] + last[0]) / 2, low), last]
        for bend in self.bends[link]:
            height = max(self.blocks[key].height for key in self.rows[self.rank[bend]])
            x = self.x[bend] + BEND_WIDTH / 2
            points += [(x, self.y[bend]), (x, self.y[bend] + height)]
        points.append((self._end_x(bottom, bottom_port, link), self.y[bottom]))
        return points[::-1] if upward else points

    def _end_x(self, key: Key, port: Key, link: Link) -> float:
        """Where a link meets a block. Back links do so beside the middle: two blocks may be linked both ways."""
        block = self.blocks[key]
        beside = link.back and port not in block.ports
        return self._port_x(key, port) + (min(9.0, block.width / 4) if beside else 0.0)

    def _port_x(self, key: Key, port: Key) -> float:
        block = self.blocks[key]
        return self.x[key] + block.ports.get(port, block.width / 2)

    # Ranks

    def _find_ranks(self) -> None:
        inner = [key for key, block in self.blocks.items() if not block.edge]
        below: dict[Key, list[Key]] = {key: [] for key in inner}
        for link in sorted(self.links, key=lambda link: link.back):
            both_inside = link.start in below and link.end in below and link.start != link.end
            if both_inside and not (link.back and reaches(below, link.end, link.start)):
                below[link.start].append(link.end)
        order = _without_cycles(below)
        rank = dict.fromkeys(inner, 0)
        above = dict.fromkeys(inner, 0)
        for key in order:
            for following in below[key]:
                rank[following] = max(rank[following], rank[key] + 1)
                above[following] += 1
        for key in reversed(order):
            if below[key] and above[key] <= len(below[key]):  # short links: near to what reads it
                rank[key] = min(rank[following] for following in below[key]) - 1
        first = 1 if any(block.edge == "first" for block in self.blocks.values()) else 0
        last = max(rank.values(), default=0) + first + 1
        self.rank = {key: rank[key] + first for key in inner}
        self.rank |= {k: 0 if b.edge == "first" else last for k, b in self.blocks.items() if b.edge}

    def _add_bends(self) -> None:
        self.rows = [[] for _ in range(max(self.rank.values(), default=0) + 1)]
        for key in self.blocks:
            self.rows[self.rank[key]].append(key)
        for link in self.links:
            low, high = sorted((self.rank[link.start], self.rank[link.end]))
            self.bends[link] = []
            for rank in range(low + 1, high):
                bend = ("bend", link, rank)
                self.blocks[bend] = Block(BEND_WIDTH, 0.0)
                self.rank[bend] = rank
                self.rows[rank].append(bend)
                self.bends[link].append(bend)

    # Orders

    def _neighbours(self) -> tuple[dict[Key, list[tuple[Key, Key, Key]]], dict[Key, list[tuple[Key, Key, Key]]]]:
        """For each block those above and those below, with both ports."""
        above: dict[Key, list[tuple[Key, Key, Key]]] = {key: [] for key in self.blocks}
        below: dict[Key, list[tuple[Key, Key, Key]]] = {key: [] for key in self.blocks}
        for link in self.links:
            if self.rank[link.start] == self.rank[link.end]:
                continue
            ends = [(link.start, link.start_port), (link.end, link.end_port)]
            if self.rank[link.start] > self.rank[link.end]:
                ends.reverse()
            chain = [ends[0], *((bend, None) for bend in self.bends[link]), ends[1]]
            for (upper, upper_port), (lower, lower_port) in pairwise(chain):
                below[upper].append((lower, upper_port, lower_port))
                above[lower].append((upper, lower_port, upper_port))
        return above, below

    def _find_orders(self) -> None:
        self._above, self._below = self._neighbours()
        best = self._crossings(), [list(row) for row in self.rows]
        for sweep in range(ORDER_SWEEPS):
            neighbours = self._above if sweep % 2 == 0 else self._below
            place = {key: float(index) for row in self.rows for index, key in enumerate(row)}
            for row in self.rows if sweep % 2 == 0 else reversed(self.rows):
                middle = {
                    key: sum(place[other] for other, _, _ in neighbours[key]) / len(neighbours[key])
                    if neighbours[key]
                    else place[key]
                    for key in row
                }
                row.sort(key=lambda key: middle[key])
                place.update((key, float(index)) for index, key in enumerate(row))
            crossings = self._crossings()
            if crossings < best[0]:
                best = crossings, [list(row) for row in self.rows]
        self.rows = best[1]

    def _crossings(self) -> int:
        place = {key: index for row in self.rows for index, key in enumerate(row)}
        count = 0
        for row in self.rows:
            pairs = [(place[key], place[other]) for key in row for other, _, _ in self._below[key]]
            pairs.sort()
            count += sum(later[1] < one[1] for index, one in enumerate(pairs) for later in pairs[index + 1 :])
        return count

    # Places

    def _find_places(self) -> None:
        y = 0.0
        for row in self.rows:
            self.y.update(dict.fromkeys(row, y))
            height = max((self.blocks[key].height for key in row), default=0.0)
            y += height + (GAP_Y if height else 0.0)
            self.x.update(zip(row, self._spread(row, [0.0] * len(row)), strict=True))
        self.height = max(y - GAP_Y, 0.0) if self.rows and any(self.blocks[k].height for k in self.rows[-1]) else y
        for sweep in range(PLACE_SWEEPS):
            for row in self.rows if sweep % 2 == 0 else reversed(self.rows):
                wanted = [self._wanted(key, (self._above, self._below)[sweep % 2][key]) for key in row]
                self.x.update(zip(row, self._spread(row, wanted), strict=True))
        for row in self.rows:
            wanted = [self._wanted(key, [*self._above[key], *self._below[key]]) for key in row]
            self.x.update(zip(row, self._spread(row, wanted), strict=True))
        left = min(self.x.values(), default=0.0)
        self.x = {key: x - left for key, x in self.x.items()}
        self.width = max((self.x[key] + self.blocks[key].width for key in self.x), default=0.0)

    def _wanted(self, key: Key, neighbours: Sequence[tuple[Key, Key, Key]]) -> float:
        """Where the middle of a block would be if its links went straight."""
        half = self.blocks[key].width / 2
        shifts = [
            self._port_x(other, other_port) - (self._port_x(key, own_port) - self.x[key]) + half
            for other, own_port, other_port in neighbours
        ]
        return sum(shifts) / len(shifts) if shifts else self.x[key] + half

    def _spread(self, row: Sequence[Key], wanted: Sequence[float]) -> list[float]:
        """Left edges as near to the wanted middles as order and gaps allow: pool adjacent violators."""
        offsets: list[float] = []
        for index, key in enumerate(row):
            half = self.blocks[key].width / 2
            previous = self.blocks[row[index - 1]].width / 2 + GAP_X if index else 0.0
            offsets.append(offsets[-1] + previous + half if index else 0.0)
        pools: list[tuple[float, float, int]] = []
        for index, key in enumerate(row):
            weight = 4.0 if not self.blocks[key].height else 1.0
            pools.append(((wanted[index] - offsets[index]) * weight, weight, 1))
            while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
                total, weight, count = pools.pop()
                pools[-1] = (pools[-1][0] + total, pools[-1][1] + weight, pools[-1][2] + count)
        middles = [total / weight for total, weight, count in pools for _ in range(count)]
        return [
            middle + offset - self.blocks[key].width / 2
            for key, middle, offset in zip(row, middles, offsets, strict=True)
        ]


def reaches(below: Mapping[Key, Sequence[Key]], start: Key, end: Key) -> bool:
    """True if a way leads from one key to another."""
    seen = {start}
    waiting = [start]
    while waiting:
        key = waiting.pop()
        if key == end:
            return True
        fresh = [following for following in below[key] if following not in seen]
        seen.update(fresh)
        waiting += fresh
    return False


def _without_cycles(below: dict[Key, list[Key]]) -> list[Key]:
    """Removes links that close cycles, in the order of a depth-first search; the keys in topological order."""
    state: dict[Key, int] = {}
    order: list[Key] = []
    for root in below:
        stack = [(root, 0)] if root not in state else []
        while stack:
            key, position = stack.pop()
            state[key] = 1
            while position < len(below[key]):
                following = below[key][position]
                if state.get(following) == 1:
                    del below[key][position]
                    continue
                position += 1
                if following not in state:
                    stack += [(key, position), (following, 0)]
                    break
            else:
                state[key] = 2
                order.append(key)
    return order[::-1]
