"""Minimum cuts: the fewest ways, by what they count, without which nothing leads from one place to another.

By augmenting shortest ways (Ford and Fulkerson 1956, Edmonds and Karp 1972).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import pairwise

UNCUT = 1 << 40
"""The capacity of what can't be cut."""


class Flow:
    """Capacities of ways between places. Copies share what neither has changed."""

    def __init__(self, rest: Mapping[int, dict[int, int]] | None = None) -> None:
        self._rest: dict[int, dict[int, int]] = dict(rest or {})
        self._own: set[int] = set()

    def add(self, start: int, end: int, capacity: int) -> None:
        """A way from `start` to `end`; one that is there already stays as wide as the wider."""
        ways = self._ways_of(start)
        ways[end] = max(ways.get(end, 0), capacity)
        self._ways_of(end).setdefault(start, 0)

    def copy(self) -> Flow:
        """One that can be changed without changing this one, which must not be changed any more."""
        return Flow(self._rest)

    def move_ways(self, start: int, to: int | None) -> None:
        """Makes the ways from `start` those from `to`; without `to` there are none any more."""
        if to is not None:
            self._rest[to] = dict(self._rest.get(start, {}))
            self._own.add(to)
        self._rest[start] = {}
        self._own.add(start)

    def reached_after_cut(self, source: int, sink: int) -> Mapping[int, int]:
        """What a minimum cut leaves on the side of the source; nothing if a way that can't be cut leads to the sink."""
        if source not in self._rest or sink not in self._rest:
            return {}
        while sink in (reached := self._reached(source, sink)):
            steps = list(pairwise(_way(reached, source, sink)))
            width = min(self._rest[start][end] for start, end in steps)
            if width >= UNCUT // 2:
                return {}
            for start, end in steps:
                self._ways_of(start)[end] -= width
                back = self._ways_of(end)
                back[start] = back.get(start, 0) + width
        return reached

    def _ways_of(self, place: int) -> dict[int, int]:
        """The ways from a place, to be changed."""
        if place not in self._own:
            self._rest[place] = dict(self._rest.get(place, {}))
            self._own.add(place)
        return self._rest[place]

    def _reached(self, source: int, sink: int) -> dict[int, int]:
        """What can be reached with capacity that is left, and from where; no more once the sink is."""
        reached: dict[int, int] = {source: source}
        queue: deque[int] = deque([source])
        while queue:
            place = queue.popleft()
            for following, capacity in self._rest[place].items():
                if capacity > 0 and following not in reached:
                    reached[following] = place
                    if following == sink:
                        return reached
                    queue.append(following)
        return reached


def _way(reached: Mapping[int, int], source: int, sink: int) -> list[int]:
    way = [sink]
    while way[-1] != source:
        way.append(reached[way[-1]])
    return way[::-1]
