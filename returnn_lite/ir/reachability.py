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
