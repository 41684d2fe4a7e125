"""The states of a Keras cell: nested as `state_size` says, and one after the other under their keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from returnn_lite.ir.foreign_cells import CellError

Nested = Any
"""A state, or a list, tuple or dict of nested states."""


@dataclass(frozen=True)
class NestedStates:
    """`sizes` is an int, or ints in lists, tuples and dicts. The key of a state is its path, such as `0` or `0/h`."""

    sizes: Nested
    cell: str
    """What messages call the cell."""

    def by_key(self) -> dict[str, int]:
        """The sizes by key, in order; that of a single state is `0`. Raises CellError for what are no sizes."""
        return {"/".join(path) or "0": size for path, size in self._leaves(self.sizes, ())}

    def _leaves(self, sizes: Nested, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
        if isinstance(sizes, Mapping | list | tuple):
            for key, inside in _items(sizes):
                yield from self._leaves(inside, (*path, str(key)))
        else:
            yield path, whole_number(sizes, self.cell, "state_size")

    def nested(self, states: Sequence[Any]) -> list[Nested]:
        """States as `call` gets them: a list, a single one too; inside it nested as the sizes are."""
        left = iter(states)

        def part(sizes: Nested) -> Nested:
            if isinstance(sizes, Mapping):
                return {key: part(inside) for key, inside in sizes.items()}
            if isinstance(sizes, list | tuple):
                inside = [part(one) for one in sizes]
                return tuple(inside) if type(sizes) is tuple else inside
            return next(left)

        found = part(self.sizes)
        return list(found) if isinstance(found, list | tuple) else [found]

    def flat(self, states: Nested) -> list[Any]:
        """The states that `call` returns, in order. Raises CellError if they are nested in another way."""
        found: list[Any] = []

        def visit(sizes: Nested, given: Nested) -> None:
            if isinstance(sizes, int | Integral):
                one = given[0] if isinstance(given, list | tuple) and len(given) == 1 else given
                require(hasattr(one, "shape"))
                found.append(one)
                return
            require(isinstance(given, Mapping) == isinstance(sizes, Mapping) and hasattr(given, "__len__"))
            require(len(given) == len(sizes))
            for key, inside in _items(sizes):
                require(not isinstance(given, Mapping) or key in given)
                visit(inside, given[key])

        def require(holds: bool) -> None:
            if not holds:
                message = f"{self.cell}: state_size is {self.sizes!r}, but call returns the states {_shown(states)}"
                raise CellError(message, "Return the output and the states, nested like state_size.")

        # A cell whose states are a dict gets them in a list, and may return them so.
        is_wrapped = isinstance(self.sizes, Mapping) and isinstance(states, list | tuple) and len(states) == 1
        visit(self.sizes, states[0] if is_wrapped else states)
        return found


def whole_number(size: object, cell: str, name: str) -> int:
    """A size of a cell. Raises CellError for what is none."""
    if isinstance(size, bool) or not isinstance(size, Integral) or int(size) < 1:
        hint = "Give an int, or ints in lists, tuples or dicts." if name == "state_size" else "Give an int."
        raise CellError(f"{cell}: {name} has {size!r}, which is no size of features", hint)
    return int(size)


def _items(sizes: Mapping[Any, Nested] | Sequence[Nested]) -> list[tuple[Any, Nested]]:
    return list(sizes.items() if isinstance(sizes, Mapping) else enumerate(sizes))


def _shown(states: Nested) -> str:
    if isinstance(states, Mapping):
        return "{" + ", ".join(f"{key!r}: {_shown(one)}" for key, one in states.items()) + "}"
    if isinstance(states, list | tuple):
        return "[" + ", ".join(map(_shown, states)) + "]"
    return f"tensor{tuple(states.shape)}" if hasattr(states, "shape") else repr(states)
