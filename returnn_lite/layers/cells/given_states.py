"""What the options `initial_state` and `state` of a layer say of each of its states."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from returnn_lite.layers.builder import LayerBuilder


@dataclass(frozen=True)
class GivenStates:
    """The options of a layer: before the first step (`initial_state`), before each (`state`); and the keys of all its
    states, of which those of a cell inside have its name before theirs: `forward/0/cell/h`. With `streams`, the layer
    that numbers them, the states before the first step are those at which the batch before ended, and the initial
    ones where a stream begins."""

    initial: Any = None
    each: Any = None
    keys: tuple[str, ...] = ()
    streams: str | None = None


@dataclass(frozen=True)
class Entry:
    """The value for one state, and the keys of all states that it is for."""

    value: Any
    group: tuple[str, ...]


def entry_of(b: LayerBuilder, given: Any, key: str, keys: Sequence[str], option: str) -> Entry:
    """What an option says of the state `key`.

    A dict has entries by path, whole (`0/cell/h`) or in steps; a list one for each cell inside, in their order, or for
    each state of one (c, h). A cell that is the only one inside of another is left out of a list. All else is for all
    states. Raises LayerError.
    """
    return _entry(b, given, "", key, keys, option)


def _entry(b: LayerBuilder, given: Any, path: str, key: str, keys: Sequence[str], option: str) -> Entry:
    """The entry for a key below a path, among the keys there; `given` is for that path."""
    below = [one for one in keys if one.startswith(path)]
    if isinstance(given, Mapping):
        _require_known(b, [f"{path}{name}" for name in given], below, option)
        for name, value in given.items():
            inside = f"{path}{name}"
            if inside == key:
                return Entry(value, (key,))
            if key.startswith(f"{inside}/"):
                return _entry(b, value, f"{inside}/", key, keys, option)
        return Entry(None, tuple(below))
    if not isinstance(given, list | tuple):
        return Entry(given, tuple(below))
    listed = listed_states(below, path)
    if len(given) != len(listed):
        inside = listed[0].rpartition("/")[0] if listed else ""
        under = f" below '{inside}'" if inside else ""
        b.fail(f"{option} has {len(given)} entries for {len(listed)} states{under}", "", option)
    place, own = next((place, own) for place, own in enumerate(listed) if f"{key}/".startswith(f"{own}/"))
    return _entry(b, {own.removeprefix(path): given[place]}, path, key, keys, option)


def listed_states(keys: Sequence[str], path: str = "") -> list[str]:
    """What a list has entries for, in its order: the states of a cell (c, h), or the paths of the cells inside."""
    below = [one for one in keys if one.startswith(path)]
    parts = list(dict.fromkeys(one.removeprefix(path).partition("/")[0] for one in below))
    if len(parts) == 1 and below[0] != f"{path}{parts[0]}":
        return listed_states(below, f"{path}{parts[0]}/")
    found = [f"{path}{part}" for part in parts]
    return sorted(found) if all(one in below for one in found) else found


def _require_known(b: LayerBuilder, names: Collection[str], keys: Sequence[str], option: str) -> None:
    unknown = sorted(name for name in names if not any(f"{key}/".startswith(f"{name}/") for key in keys))
    if unknown:
        b.fail(f"{option}: the unit has no state '{unknown[0]}'", f"It has {', '.join(keys)}.", option)
