"""How other systems keep the parameters and the states of a cell, and how ours are made of them.

A layout goes from what was recorded to ours, as TensorFlow operations: so gradients of ours come back as theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

Tensors = Mapping[str, Any]
Convert = Callable[[Mapping[str, Any], Tensors], dict[str, Any]]
"""From the options of a cell and what is recorded below its scope, to ours below the cell."""


def as_they_are(options: Mapping[str, Any], recorded: Tensors) -> dict[str, Any]:
    """Under the same names; shards are joined along rows."""
    found: dict[str, Any] = {}
    for name in recorded:
        whole, _, part = name.partition("/part_")
        if not part:
            found[name] = recorded[name]
        elif part == "0":
            shards = [one for one in recorded if one.startswith(f"{whole}/part_")]
            found[whole] = tf.concat([recorded[f"{whole}/part_{i}"] for i in range(len(shards))], 0)
    return found


Masks = Mapping[str, Sequence[str]]
"""By the name of a random draw of our cell (`CellBuilder.seed`), what its mask may be called where it was recorded."""


def no_masks(options: Mapping[str, Any], states: Sequence[str]) -> Masks:
    """For cells that draw nothing."""
    return {}


def options_as_they_are(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Our units take the options of the other system."""
    return options


@dataclass(frozen=True)
class StateLayout:
    """How recorded states and ours are made of each other, both in their order, where they are not one for one."""

    ours: Callable[[Mapping[str, Any], Sequence[Any]], list[Any]]
    theirs: Callable[[Mapping[str, Any], Sequence[Any]], list[Any]]


@dataclass(frozen=True)
class Layout:
    """Of one class of another system. `states` are our keys in its order; `inner` the option that has the cell, or the
    cells, inside."""

    states: tuple[str, ...] | Callable[[Mapping[str, Any]], tuple[str, ...]] = ("h",)
    """By the options of a cell, where these say how many there are."""
    parameters: Convert = as_they_are
    inner: str = ""
    inner_scope: Callable[[int], str] = lambda i: ""
    """Where the parameters of the i-th inner cell are, below those of this one."""
    inner_suffix: Callable[[int], str] = lambda i: ""
    """What the names of its parameters end with."""
    own: tuple[str, ...] = ()
    """The parameters of a cell around others that are not theirs: names, or what they begin with up to a slash."""
    folder: str = ""
    """What our names of its parameters begin with."""
    masks: Callable[[Mapping[str, Any], Sequence[str]], Masks] = no_masks
    """From the options of a cell and the keys of its states, the dropout masks that it uses."""
    options: Callable[[Mapping[str, Any]], Mapping[str, Any]] = options_as_they_are
    """From the recorded constructor to one that a config can have."""
    sizes: Callable[[Mapping[str, Any]], Sequence[int]] | None = None
    """From the options of a cell, how many features each of its own states has; else as many as it has units."""
    of_states: StateLayout | None = None

    def keys(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Our keys of its states."""
        return self.states(options) if callable(self.states) else self.states
