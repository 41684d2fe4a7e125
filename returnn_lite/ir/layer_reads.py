"""What the layers of a config read and make: the link from a graph back to the network that a user wrote."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Read:
    """A reference from one layer to another by path, or to a data key (`data:KEY`). `previous`: of the step before."""

    path: str
    previous: bool = False


@dataclass(frozen=True)
class LayerRecord:
    """One layer as built: the layer whose value it has, itself if it makes one; its class, and what it reads."""

    of: str
    kind: str
    reads: tuple[Read, ...]
