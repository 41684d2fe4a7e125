"""A Keras cell of a config: what it says of its sizes, and that it is a cell at all."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import keras

from returnn_lite.ir.foreign_cells import CellError
from returnn_lite.keras_cells.states import NestedStates, whole_number
from returnn_lite.keras_cells.step import BuiltCell


class KerasCell:
    """A cell of a config. `again` makes another like it, None if nothing does. Raises CellError for what is no cell,
    and under another backend than TensorFlow."""

    def __init__(self, cell: keras.Layer, again: Callable[[], keras.Layer] | None) -> None:
        self.name = type(cell).__name__
        self._cell, self._again = cell, again
        _require_cell(cell, self.name)
        self._states = NestedStates(cell.state_size, self.name)
        self.state_sizes: Mapping[str, int] = self._states.by_key()
        if not self.state_sizes:
            raise CellError(f"{self.name} has no states", "Use a layer for what has none.")
        size = getattr(cell, "output_size", None)
        first = next(iter(self.state_sizes.values()))
        self.output_size = first if size is None else whole_number(size, self.name, "output_size")
        self._built: dict[int, BuiltCell] = {}

    def on(self, features: int) -> BuiltCell:
        """The cell on sources of so many features, the same object each time. Raises CellError."""
        for before in self._built:
            if before != features:
                message = f"{self.name} is a cell for {before} features, and can't be one for {features}, too"
                raise CellError(message, "Make one for each.")
        if features not in self._built:
            self._built[features] = BuiltCell(self._cell, self._again, features, self._states, self.output_size)
        return self._built[features]


def _require_cell(cell: object, name: str) -> None:
    """Raises CellError for what is no cell of Keras, or is one that it can't run with TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        message = f"Keras runs on {keras.backend.backend()}, but its cells can be units on TensorFlow only"
        raise CellError(message, "Set KERAS_BACKEND=tensorflow before Keras is imported.")
    if isinstance(cell, keras.layers.RNN):
        inside = type(cell.cell).__name__
        raise CellError(f"{name} is a layer over sequences, no cell", f"Give its cell, such as keras.layers.{inside}.")
    if not isinstance(cell, keras.Layer) or not hasattr(cell, "state_size"):
        hint = "A cell is a keras.layers.Layer with call(inputs, states) and state_size."
        raise CellError(f"{name} is no cell: it has no state_size", hint)
    if len(inspect.signature(cell.call).parameters) < 2:
        raise CellError(f"{name}: call takes no states", "Write call(self, inputs, states).")
