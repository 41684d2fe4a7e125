"""Parameters by name, as a user has them somewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class ParameterSet:
    """Parameters by name, and where they are from. `forget_biases` is what a network adds to the forget gate at run
    time, by the name of the bias, where the network is known."""

    arrays: Mapping[str, NDArray[Any]]
    origin: str
    forget_biases: Mapping[str, float] = field(default_factory=dict)
