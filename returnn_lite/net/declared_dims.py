"""The dims that a config declares (`rl.Dim`) as dims of one network.

What the length of a dynamic one varies over is known only in a network: the batch, or what a layer makes it of. So each
network has copies of its own, and a config's dims can be used in many.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from returnn_lite.dims import Declared, Dim, DimKind


def own_dims(config: Mapping[str, Any], batch: Dim) -> tuple[Mapping[str, Any], Mapping[Dim, Dim]]:
    """The config with this network's dims in place of those declared, and which is which.

    A batch dim is the one of the network; dims of a known size stay, as they are the same in all networks.
    """
    own: dict[Dim, Dim] = {}
    for dim in _declared(config):
        if dim.kind is DimKind.BATCH:
            own[dim] = batch
        elif isinstance(dim, Declared) and dim.size is None:
            own[dim] = Declared(dim.name, dim.kind)
    for dim, copy in own.items():
        if isinstance(copy, Declared) and dim.over:
            copy.settle(tuple(over.substitute(own) for over in dim.over))
    return (_replaced(config, own) if own else config), own


def _declared(config: Mapping[str, Any]) -> Iterator[Dim]:
    """The dims in a config, and those that they are computed from and vary over."""
    pending: list[Any] = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, Dim):
            yield value
            pending += [*value.parts(), *value.over]
        elif isinstance(value, Mapping):
            pending += value.values()
            pending += [key for key in value if isinstance(key, Dim)]
        elif isinstance(value, list | tuple | set | frozenset):
            pending += value


def _replaced(config: Mapping[str, Any], own: Mapping[Dim, Dim]) -> Mapping[str, Any]:
    """The config with dims replaced. Networks may be nested deeper than Python recurses."""
    result: dict[Any, Any] = {}
    pending: list[tuple[Any, Any]] = [(config, result)]

    def copy(value: Any) -> Any:
        if isinstance(value, Dim):
            return value.substitute(own)
        if isinstance(value, tuple | set | frozenset):
            return type(value)(map(copy, value)) if type(value) in (tuple, set, frozenset) else value
        if isinstance(value, Mapping | list):
            made: Any = [] if isinstance(value, list) else {}
            pending.append((value, made))
            return made
        return value

    while pending:
        source, made = pending.pop()
        if isinstance(source, list):
            made.extend(map(copy, source))
        else:
            made.update((copy(key) if isinstance(key, Dim) else key, copy(item)) for key, item in source.items())
    return result
