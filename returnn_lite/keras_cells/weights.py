"""The weights of a Keras cell as parameters: their names, and what they are at first."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import numpy as np

from returnn_lite.ir.foreign_cells import CellError
from returnn_lite.keras_cells.variables import weight_names


@dataclass(frozen=True)
class KerasValue:
    """What a weight is at first. `fresh` makes and builds another cell like this one, if there is a way."""

    cell: keras.Layer
    place: int
    fresh: Callable[[], keras.Layer] | None

    @property
    def owner(self) -> tuple[keras.Layer, int]:
        """The cell, and which of its weights."""
        return (self.cell, self.place)

    def array(self, generator: np.random.Generator) -> np.ndarray:
        """The weight of a copy that is built anew, for which initialisers without a seed draw by the generator; the
        cell's own where it was there before, or there is no way to make a copy."""
        own = _numbers(self.cell.weights[self.place])
        if self.fresh is None:
            return own
        with _seeded(int(generator.integers(1 << 31))):
            try:
                copy = self.fresh()
            except CellError:  # it does not say how it is made
                return own
        found = [_numbers(one) for one in copy.weights]
        same = [one.shape for one in found] == [tuple(one.shape) for one in self.cell.weights]
        return found[self.place] if same else own


@dataclass(frozen=True)
class KerasWeight:
    """A weight under its name below the cell."""

    name: str
    shape: tuple[int, ...]
    trainable: bool
    first: KerasValue


def weights_of(cell: keras.Layer, fresh: Callable[[], keras.Layer] | None) -> list[KerasWeight]:
    """Those of a cell that is built, in Keras' order."""
    return [
        KerasWeight(name, tuple(weight.shape), bool(weight.trainable), KerasValue(cell, place, fresh))
        for place, (name, weight) in enumerate(zip(weight_names(cell), cell.weights, strict=True))
    ]


def _numbers(weight: keras.Variable) -> np.ndarray:
    return np.asarray(weight.value.numpy())


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Has initialisers without a seed take theirs from this one: Keras asks Python's generator for it."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
