"""What the layers of a config read and make: the link from a graph back to the network that a user wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Read:
    """A reference from one layer to another by path, or to a data key (`data:KEY`). `previous`: of the step before."""

    path: str
    previous: bool = False


@dataclass(frozen=True)
class CellRecord:
    """A recurrent cell of a layer as decoded: its path in the unit (`1/cell`, "" for the unit itself), its name, the
    options that differ from their defaults, and the keys of its own states; where below the layer the config describes
    it, and each of its options."""

    path: str
    name: str
    options: Mapping[str, object]
    states: tuple[str, ...]
    at: tuple[str | int, ...]
    options_at: Mapping[str, tuple[str | int, ...]]


@dataclass(frozen=True)
class LayerRecord:
    """One layer as built: the layer whose value it has, itself if it makes one; its class, what it reads, and the cells
    of its unit, each before those inside of it."""

    of: str
    kind: str
    reads: tuple[Read, ...]
    cells: tuple[CellRecord, ...] = ()
