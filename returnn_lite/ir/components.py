"""Strongly connected components of a graph given as successor lists (Tarjan 1972), without recursion; and cycles."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def strongly_connected_components(successors: Sequence[Sequence[int]]) -> list[list[int]]:
    """The components of vertices 0..n-1, each after all components that its vertices point to."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    open_vertices: list[int] = []
    is_open: set[int] = set()
    components: list[list[int]] = []
    for root in range(len(successors)):
        if root in index:
            continue
        work = [(root, 0)]
        while work:
            vertex, position = work.pop()
            if position == 0:
                index[vertex] = low[vertex] = len(index)
                open_vertices.append(vertex)
                is_open.add(vertex)
            elif successors[vertex][position - 1] in is_open:
                low[vertex] = min(low[vertex], low[successors[vertex][position - 1]])
            while position < len(successors[vertex]):
                following = successors[vertex][position]
                position += 1
                if following not in index:
                    work.append((vertex, position))
                    work.append((following, 0))
                    break
                if following in is_open:
                    low[vertex] = min(low[vertex], index[following])
            else:
                if low[vertex] == index[vertex]:
                    component: list[int] = []
                    while not component or component[-1] != vertex:
                        component.append(open_vertices.pop())
                        is_open.discard(component[-1])
                    components.append(sorted(component))
    return components


def shortest_cycle(successors: Sequence[Sequence[int]], start: int, within: Collection[int]) -> list[int]:
    """A shortest way along vertices of `within` from a vertex to itself, both ends included; that one alone if none is
    there."""
    before: dict[int, int] = {}
    queue = [start]
    for vertex in queue:
        for following in successors[vertex]:
            if following in within and following not in before:
                before[following] = vertex
                queue.append(following)
    way = [start]
    while way[-1] in before and (len(way) == 1 or way[-1] != start):
        way.append(before[way[-1]])
    return way[::-1]
