"""The step of a Keras cell: a function of inputs, states, weights and seeds, which changes nothing else."""

from __future__ import annotations

import contextlib
import functools
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from returnn_lite.ir.foreign_cells import CellError
from returnn_lite.keras_cells.failures import of_cell
from returnn_lite.keras_cells.states import NestedStates
from returnn_lite.keras_cells.variables import attributes_of, layers_of, weight_names
from returnn_lite.keras_cells.weights import weights_of


@dataclass(frozen=True)
class KerasSeed:
    """A seed generator. What draws masks once and keeps them, as Keras' own cells do, draws them for all steps."""

    name: str
    each_step: bool


BUILT_HERE = "_built_by_returnn_lite"
"""Set on a cell whose weights nobody else has made, so that nobody asks for their values."""


class BuiltCell:
    """A cell for sources of so many features. Raises CellError if it can't be one, or does more than a step can."""

    def __init__(
        self,
        cell: keras.Layer,
        again: Callable[[], keras.Layer] | None,
        features: int,
        states: NestedStates,
        output_size: int,
    ) -> None:
        self.name, self.cell = type(cell).__name__, cell
        self._states, self._sizes = states, states.by_key()
        self._features, self._output_size = features, output_size
        is_ours = not cell.built or hasattr(cell, BUILT_HERE)
        self._build(cell)
        if is_ours:
            setattr(cell, BUILT_HERE, True)
        _require_no_more_than_weights(cell, self.name)
        self.weights = weights_of(cell, None if again is None or not is_ours else functools.partial(self._fresh, again))
        self._layer = StepLayer(cell)
        self._masks = [one for one in layers_of(cell) if hasattr(one, "reset_dropout_mask")]
        generators = [one for one in attributes_of(cell) if isinstance(one.value, keras.random.SeedGenerator)]
        self._seeds = [KerasSeed(one.name, one.layer not in self._masks) for one in generators]
        self._seed_variables = [one.value.state for one in generators]
        self._require_begin_at_zero()

    def seeds(self, training: bool) -> Sequence[KerasSeed]:
        """Those that its step draws with. Raises CellError for a step that fails, or gives what it does not say."""
        return [self._seeds[place] for place in (self._used_in_training if training else self._used)]

    @functools.cached_property
    def _used(self) -> list[int]:
        return self._traced(False)

    @functools.cached_property
    def _used_in_training(self) -> list[int]:
        return self._traced(True)

    def step(
        self, inputs: Any, states: Sequence[Any], weights: Sequence[Any], seeds: Sequence[Any], training: bool
    ) -> tuple[tf.Tensor, ...]:
        """The output [rows, output_size] and the next states [rows, size], of the dtype of the inputs [rows, features].

        `seeds` are those of `seeds`, int32 [2].
        """
        inputs = tf.convert_to_tensor(inputs)
        places = self._used_in_training if training else self._used
        given: dict[int, Any] = dict(zip(places, seeds, strict=True))
        results, _ = self._run(inputs, states, weights, given, training)
        return tuple(tf.cast(result, inputs.dtype) for result in results)

    def _fresh(self, again: Callable[[], keras.Layer]) -> keras.Layer:
        """Another cell, with weights of its own. Raises CellError if there is none."""
        copy = again()
        if copy is self.cell:
            raise CellError(f"{self.name} is always the same object")
        self._build(copy)
        return copy

    def _build(self, cell: keras.Layer) -> None:
        """Has a cell make its weights, by a call on what only has shapes."""
        if cell.built:
            return
        sizes = self._sizes.values()
        x, *states = (keras.KerasTensor((None, size)) for size in (self._features, *sizes))
        with warnings.catch_warnings(), of_cell(cell):
            warnings.simplefilter("ignore")  # of layers inside that Keras can't build: it says more of the call
            cell(x, self._states.nested(states))

    def _run(
        self, inputs: Any, states: Sequence[Any], weights: Sequence[Any], seeds: Mapping[int, Any], training: bool
    ) -> tuple[list[tf.Tensor], list[int]]:
        """The output and the next states, and which of the seeds were drawn with. Raises CellError."""
        given = [tf.cast(value, own.dtype) for value, own in zip(weights, self.cell.weights, strict=True)]
        given += [tf.cast(seeds.get(place, [0, 0]), own.dtype) for place, own in enumerate(self._seed_variables)]
        before = list(zip((*self.cell.weights, *self._seed_variables), given, strict=True))
        dtype = self.cell.compute_dtype
        own_states = self._states.nested([tf.cast(state, dtype) for state in states])
        with _fresh_masks(self._masks), keras.StatelessScope(before, collect_losses=True) as scope:
            now = [scope.get_current_value(variable) for variable, _ in before]
            found = self._layer(tf.cast(inputs, dtype), own_states, training=training)
            changed = [scope.get_current_value(own) is not value for (own, _), value in zip(before, now, strict=True)]
        if scope.losses:
            raise CellError(f"{self.name} adds a loss of its own", "Give a layer a 'loss', or L2, in the config.")
        if any(changed[: len(weights)]) or len(scope.state_mapping) > len(before):
            message = f"{self.name} changes what is no state of it: a weight, or a seed that it does not have"
            hint = "Keep it in a state; draw with a keras.random.SeedGenerator that is an attribute of the cell."
            raise CellError(message, hint)
        return self._results(found), [place for place, one in enumerate(changed[len(weights) :]) if one]

    def _results(self, found: object) -> list[tf.Tensor]:
        """What `call` returns, as the output and the states. Raises CellError if it is something else."""
        if not isinstance(found, list | tuple) or len(found) != 2:
            raise CellError(f"{self.name}: call returns no pair of output and states", "Return both.")
        results = [found[0], *self._states.flat(found[1])]
        said = "output_size" if hasattr(self.cell, "output_size") else "state_size"
        output = ("the output", said, self._output_size)
        states = [(f"the state '{key}'", "state_size", size) for key, size in self._sizes.items()]
        for (name, says, size), result in zip((output, *states), results, strict=True):
            shape = list(getattr(result, "shape", ()))
            if len(shape) != 2 or shape[1] not in (size, None):
                message = f"{self.name}: call returns {name} with the shape {shape}, but {says} says {size} features"
                raise CellError(message, "Say in state_size and output_size what call returns.")
            if not tf.as_dtype(result.dtype).is_floating:
                raise CellError(f"{self.name}: {name} is {result.dtype}, but must be of floats", "Cast it.")
        return results

    def _traced(self, training: bool) -> list[int]:
        """Which of the seeds a step draws with, seen by tracing one. Raises CellError for a step that fails."""
        sizes = (self._features, *self._sizes.values())
        rows = [tf.TensorSpec([None, size], tf.float32) for size in sizes]
        weights = [tf.TensorSpec(one.shape, tf.float32) for one in self.weights]
        seeds = [tf.TensorSpec([2], tf.int32)] * len(self._seeds)
        used: list[int] = []

        def run(rows: Sequence[tf.Tensor], weights: Sequence[tf.Tensor], seeds: Sequence[tf.Tensor]) -> list[tf.Tensor]:
            results, drawn = self._run(rows[0], rows[1:], weights, dict(enumerate(seeds)), training)
            used.extend(drawn)
            return results

        with of_cell(self.cell, ".call"):
            tf.function(run, autograph=False).get_concrete_function(rows, weights, seeds)
        return used

    def _require_begin_at_zero(self) -> None:
        """Raises CellError for a cell that says another first state: a layer's option says it here."""
        begin = getattr(self.cell, "get_initial_state", None)
        if begin is None:
            return
        nothing = [
            (variable, tf.cast(np.full(variable.shape, np.nan), variable.dtype)) for variable in self.cell.weights
        ]
        with of_cell(self.cell, ".get_initial_state"), keras.StatelessScope(nothing):
            states = [tf.convert_to_tensor(one).numpy() for one in keras.tree.flatten(begin(batch_size=2))]
        if any((state != 0).any() for state in states):
            message = f"{self.name}: get_initial_state gives something else than zeros"
            hint = "Leave it out, and say it with the layer's 'initial_state': a number, 'var', or a layer."
            raise CellError(message, hint)


class StepLayer(keras.Layer):  # type: ignore[misc]  # Keras has no types
    """Calls a cell, so that layers inside of it know whether this is training."""

    def __init__(self, cell: keras.Layer) -> None:
        super().__init__(dtype=cell.dtype_policy)
        self.cell = cell
        self._takes_training = "training" in inspect.signature(cell.call).parameters

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        return self.cell(inputs, states, training=training) if self._takes_training else self.cell(inputs, states)


@contextlib.contextmanager
def _fresh_masks(cells: Sequence[keras.Layer]) -> Iterator[None]:
    """Has cells draw the masks that they keep anew: those of one graph are nothing in another."""

    def forget() -> None:
        for cell in cells:
            cell.reset_dropout_mask()
            cell.reset_recurrent_dropout_mask()

    forget()
    try:
        yield
    finally:
        forget()


def _require_no_more_than_weights(cell: keras.Layer, name: str) -> None:
    """Raises CellError for regularisers and constraints, which Keras' own training would see to."""
    for layer in layers_of(cell):
        if layer.activity_regularizer is not None:
            raise CellError(f"{name} has an activity_regularizer", "Leave it out; give a layer a 'loss'.")
    for of, weight in zip(weight_names(cell), cell.weights, strict=True):
        if weight.regularizer is not None:
            raise CellError(f"{name} has a regularizer of '{of}'", "Leave it out; give the layer 'L2'.")
        if weight.constraint is not None:
            raise CellError(f"{name} has a constraint of '{of}', which is not kept here", "Leave it out.")
