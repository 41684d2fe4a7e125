"""Recurrent cells that other systems run: what the compiler asks of one, and no system in particular."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np


class CellError(ValueError):
    """A cell that can't be taken as it is: what is wrong, and what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class FirstValue(Protocol):
    """What a parameter is at first, where another system says it."""

    @property
    def owner(self) -> object:
        """What has the value there: of two parameters with one owner, only one can be meant."""

    def array(self, generator: np.random.Generator) -> np.ndarray:
        """The value, of whose random numbers the generator decides, as far as the system leaves them open."""


class CellWeight(Protocol):
    """A weight of a cell."""

    @property
    def name(self) -> str:
        """Its name below the cell, such as `kernel` or `cells/0/kernel`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def trainable(self) -> bool: ...

    @property
    def first(self) -> FirstValue: ...


class CellSeed(Protocol):
    """What a cell draws random numbers with."""

    @property
    def name(self) -> str: ...

    @property
    def each_step(self) -> bool:
        """Whether each step draws numbers of its own; else all steps of a batch share them."""


class StepFunction(Protocol):
    """A cell on as many features as it was built for; a function of its operands alone."""

    @property
    def weights(self) -> Sequence[CellWeight]: ...

    def seeds(self, training: bool) -> Sequence[CellSeed]:
        """What its step draws with. Raises CellError for a step that is not what the cell says of itself."""

    def step(
        self, inputs: Any, states: Sequence[Any], weights: Sequence[Any], seeds: Sequence[Any], training: bool
    ) -> tuple[Any, ...]:
        """The output [rows, output_size] and the next states [rows, size], of the dtype of the inputs [rows, features].

        Each row is one of a sequence or hypothesis. `seeds` are int32 [2], as many as `seeds` says.
        """


class ForeignCell(Protocol):
    """A cell of another system."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def state_sizes(self) -> Mapping[str, int]:
        """The sizes of the states by their keys, in the order of the cell."""

    @property
    def output_size(self) -> int: ...

    def on(self, features: int) -> StepFunction:
        """The cell on sources of so many features, the same object each time. Raises CellError."""
