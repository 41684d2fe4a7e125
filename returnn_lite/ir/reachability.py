"""What can be reached in a graph that is given by what each vertex leads to."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

V = TypeVar("V", bound=Hashable)


def reachable(starts: Iterable[V], following: Callable[[V], Iterable[V]]) -> Iterator[V]:
    """The starts and all that they lead to, each once, depth first and without recursion.

    What a vertex leads to is asked for once it has been taken from the iterator.
    """
    found: set[V] = set()
    stack = list(starts)
    while stack:
        vertex = stack.pop()
        if vertex not in found:
            found.add(vertex)
            yield vertex
            stack.extend(following(vertex))


def postorder(starts: Iterable[V], following: Callable[[V], Iterable[V]]) -> list[V]:
    """The starts and all that they lead to, each after what it leads to; where that is a cycle, it is cut."""
    order: dict[V, None] = {}
    for start in starts:
        if start in order:
            continue
        stack = [(start, iter(following(start)))]
        entered = {start}
        while stack:
            vertex, rest = stack[-1]
            first = next((one for one in rest if one not in order and one not in entered), None)
            if first is None:
                order[vertex] = None
                stack.pop()
            else:
                entered.add(first)
                stack.append((first, iter(following(first))))
    return list(order)
