"""Every unit of `rec` as an object that is a Keras 3 cell and a TensorFlow cell at once."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell  # what `keras.layers.RNN` asks for: not public

from returnn_lite.cells.computation import Computation, weights_of
from returnn_lite.cells.specs import decoded, mistake, refuse, spec_of
from returnn_lite.cells.step import OUTPUT, SCOPE, SOURCE, Step, shapes_on_any_source, step_of
from returnn_lite.config.options import Init
from returnn_lite.layers.cells.inits import Inits
from returnn_lite.layers.errors import LayerError


@keras.saving.register_keras_serializable("returnn_lite")
class Cell(keras.layers.Layer, DropoutRNNCell):  # type: ignore[misc]
    """A recurrent cell of returnn_lite for `keras.layers.RNN`, `Bidirectional` and `StackedRNNCells`, or a loop of
    one's own.

    Cell("lstm", units=64, peephole=True)
    Cell([{"class": "lstm", "units": 64}, {"class": "gru", "units": 32}])
    Cell({"class": "residual", "cell": {"class": "lstm", "units": 64}})

    `unit` is what the option `unit` of a `rec` layer may be, but for networks; cells inside of it may be such objects,
    too. Options beside a name are those of the unit.

    The states are a flat list in the order of `state_names`; a single one may come bare or in a list, and goes back the
    same way. A source [batch, .., features] may have spatial dims, as units say; those of a unit that reads several
    inputs (phased LSTM: time, x) are joined along the features, all but the last with one. What a mask of Keras leaves
    out holds the states.

    `input_shape` is the shape of a step's source without the batch: for units whose states depend on it (convolutional
    and time-frequency LSTMs), as Keras asks for `state_size` first. `seed` is that of the first weights and of dropout
    masks. Raises ConfigError for a mistake in the unit, and for what no loop of Keras can run.
    """

    def __init__(
        self,
        unit: Any,
        *,
        input_shape: Sequence[int] | None = None,
        seed: int | None = None,
        forward_weights_init: Init | None = None,
        recurrent_weights_init: Init | None = None,
        bias_init: Init | None = None,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        if keras.backend.backend() != "tensorflow":
            refuse((), f"cells run in TensorFlow, but Keras has {keras.backend.backend()}", "Set KERAS_BACKEND.")
        inits = Inits(forward_weights_init, recurrent_weights_init, bias_init)
        shape = None if input_shape is None else tuple(map(int, input_shape))
        self._given = _Given(spec_of(unit, options), shape, seed, inits)
        self._cell = decoded(self.unit)
        self._computations: dict[bool, Computation] = {}
        self._values: dict[str, Any] = {}
        self._sequence: _Sequence | None = None
        self._shapes: Mapping[str, tuple[int, ...]] = {}
        self._why_unknown = ""
        try:
            self._shapes = shapes_on_any_source(self._cell)
        except LayerError as error:
            self._why_unknown = error.message
        if shape is not None:
            self._shapes = self._step(shape, training=False).shapes

    @property
    def unit(self) -> Any:
        """The value of the option `unit` of a `rec` layer that computes the same."""
        return self._given.unit

    # Sizes

    @property
    def state_names(self) -> tuple[str, ...]:
        """The keys of the states, as `initial_state` of a `rec` layer has them."""
        return tuple(name for name in self._known_shapes if name not in (SOURCE, OUTPUT))

    @property
    def state_size(self) -> Any:
        """The size of the state, or a list with that of each; with spatial dims a shape. Raises ConfigError where it
        depends on a source that is not known yet."""
        sizes = [_size(self._known_shapes[name]) for name in self.state_names]
        return sizes[0] if self._is_bare else sizes

    @property
    def output_size(self) -> Any:
        """The size of the output; with spatial dims a shape."""
        return _size(self._known_shapes[OUTPUT])

    @property
    def _known_shapes(self) -> Mapping[str, tuple[int, ...]]:
        if not self._shapes:
            hint = "Give units; or input_shape, the shape of a step's source without the batch."
            refuse(("unit",), f"the sizes of states and output are not known: {self._why_unknown}", hint)
        return self._shapes

    @property
    def _is_bare(self) -> bool:
        """Whether the state is one tensor without a list around."""
        return len(self.state_names) == 1 and len(self._known_shapes[self.state_names[0]]) == 1

    def get_initial_state(self, inputs: Any = None, batch_size: Any = None, dtype: Any = None) -> Any:
        """Zeros for each state. Raises ConfigError if nothing says how many sequences there are."""
        if batch_size is None and inputs is None:
            refuse((), "nothing says how many sequences there are", "Give batch_size.")
        size = keras.ops.shape(inputs)[0] if batch_size is None else batch_size
        shapes = [self._known_shapes[name] for name in self.state_names]
        states = [keras.ops.zeros((size, *shape), dtype or self.compute_dtype) for shape in shapes]
        return states[0] if self._is_bare else states

    def zero_state(self, batch_size: Any, dtype: Any = None) -> Any:
        """The same, as TensorFlow's cells call it."""
        return self.get_initial_state(batch_size=batch_size, dtype=dtype)

    # Weights

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Makes the weights for a source [batch, .., features]. Raises ConfigError for one that the unit can't take."""
        shape = tuple(size for size in input_shape[1:] if size is not None)
        if len(shape) != len(input_shape) - 1 or not shape:
            refuse(("unit",), f"a step needs a source of known size, not {tuple(input_shape)}", "Give its shape.")
        known = self._shapes.get(SOURCE, shape)
        if known != shape:
            refuse(("input_shape",), f"the cell is for {known}, not {shape}", "Make another one for that.")
        if self._computations:
            return
        steps = {training: self._step(shape, training=training) for training in (False, True)}
        self._shapes = steps[False].shapes
        self._computations = {mode: Computation(step, self.compute_dtype) for mode, step in steps.items()}
        first = random.randrange(2**31) if self._given.seed is None else self._given.seed
        for weight in weights_of(steps[False], self.variable_dtype, first):
            self._values[weight.name] = self.add_weight(
                name=weight.name.removeprefix(f"{SCOPE}/").replace("/", "."),
                shape=weight.shape,
                initializer=_Fixed(weight.first),
                trainable=weight.trainable,
            )
        if steps[True].draws:
            self.seed_generator = keras.random.SeedGenerator(self._given.seed)
        self.built = True

    def _step(self, shape: Sequence[int], *, training: bool) -> Step:
        try:
            return step_of(self._cell, shape, self._given.inits, training=training, labels=self._cell.reads_labels())
        except LayerError as error:
            raise mistake(error) from error

    def parameters(self, layer: str = "") -> dict[str, np.ndarray]:
        """The weights under the names, and in the layout, that a `rec` layer of this name has them: `output/rec/W`.
        Without a layer the names below it."""
        scope = f"{layer}/" if layer else ""
        return {f"{scope}{name}": value.value.numpy() for name, value in self._values.items()}

    def variable(self, name: str) -> tf.Variable:
        """The variable of a weight by its name in `parameters`."""
        return self._values[name].value

    def set_parameters(self, values: Mapping[str, Any], layer: str = "") -> None:
        """Sets all weights from arrays or variables, such as `params` of a compiled network, by the names of
        `parameters`; of others than those of the layer nothing is read. Raises ConfigError if one is missing, is not
        known, or has another shape."""
        scope = f"{layer}/" if layer else ""
        found = {name.removeprefix(scope): value for name, value in values.items() if name.startswith(scope)}
        if set(found) != set(self._values):
            other = ", ".join(sorted(set(found) ^ set(self._values)))
            where = f"below '{layer}'" if layer else "given"
            refuse((), f"the cell and what is {where} do not have the same parameters: {other}", "Build it first.")
        for name, value in found.items():
            array, own = np.asarray(value), self._values[name]
            if array.shape != tuple(own.shape):
                refuse((name,), f"the shape is {array.shape}, not {tuple(own.shape)}", "Take the same unit.")
            own.assign(array)

    # A step

    def call(self, inputs: Any, states: Any, training: bool | None = False) -> tuple[Any, Any]:
        """The output and the next states of a step, in the form in which the states came.

        Raises ValueError for more or fewer of them: Keras adds its own to the message.
        """
        given = list(states) if isinstance(states, list | tuple) else [states]
        if len(given) != len(self.state_names):
            named = ", ".join(self.state_names)
            raise ValueError(f"the unit has the states {named}, but gets {len(given)}. Give one for each.")
        computation = self._computations[bool(training)]
        dtype = "int32" if self._cell.reads_labels() else self.compute_dtype
        weights = {name: tf.cast(value, self.compute_dtype) for name, value in self._values.items()}
        sequence = self._sequence_at_hand() if computation.step.draws else _Sequence(tf.constant(0), tf.constant(0))
        number = sequence.steps_since(self.seed_generator) if computation.step.draws_anew else tf.constant(0)
        before = [tf.cast(state, self.compute_dtype) for state in given]
        output, after = computation(tf.cast(inputs, dtype), before, weights, sequence.seed, number)
        if isinstance(states, list | tuple):
            return output, type(states)(after)
        return output, after[0]

    # Dropout masks, as Keras asks for them before the first step and after the last

    def get_dropout_mask(self, step_input: Any) -> None:
        """Begins a sequence: the masks are inside of the unit, the same at all of its steps or new at each."""
        if self._computations and self._computations[True].step.draws:
            self._sequence_at_hand()

    def get_recurrent_dropout_mask(self, step_input: Any) -> None:
        """The same."""
        self.get_dropout_mask(step_input)

    def reset_dropout_mask(self) -> None:
        """Ends a sequence: the next step in training has other masks. A loop of one's own calls it before each."""
        self._sequence = None

    def reset_recurrent_dropout_mask(self) -> None:
        """The same."""
        self.reset_dropout_mask()

    def _sequence_at_hand(self) -> _Sequence:
        if self._sequence is None:
            self._sequence = _Sequence.next_of(self.seed_generator)
        return self._sequence

    # Keeping it

    def get_config(self) -> dict[str, Any]:
        """Plain data that `from_config` makes an equal cell of."""
        inits = self._given.inits
        return {
            **super().get_config(),
            "unit": self._given.unit,
            "input_shape": None if self._given.input_shape is None else list(self._given.input_shape),
            "seed": self._given.seed,
            "forward_weights_init": inits.given_input,
            "recurrent_weights_init": inits.given_recurrent,
            "bias_init": inits.given_bias,
        }


@dataclass(frozen=True)
class _Given:
    """What a cell is made of."""

    unit: Any
    input_shape: tuple[int, ...] | None
    seed: int | None
    inits: Inits


@dataclass(frozen=True)
class _Sequence:
    """The random numbers of a sequence: their seed, and what Keras' generator had counted when it began."""

    seed: tf.Tensor
    begin: tf.Tensor

    @classmethod
    def next_of(cls, generator: Any) -> _Sequence:
        seed, count = tf.unstack(tf.cast(generator.next(), tf.int32))
        return cls(seed * 1_000_003 + count, count + 1)

    def steps_since(self, generator: Any) -> tf.Tensor:
        """The number of the step, each time that it is asked for."""
        _, count = tf.unstack(tf.cast(generator.next(), tf.int32))
        return count - self.begin


class _Fixed:
    """An initialiser with the values that a network of ours starts with."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        return tf.constant(self._values, tf.as_dtype(dtype or "float32"), list(shape))


def _size(shape: tuple[int, ...]) -> Any:
    return shape[0] if len(shape) == 1 else tf.TensorShape(shape)
