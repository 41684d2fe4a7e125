"""The network of a plan by Keras' own layers, with our cells in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from returnn_lite.cells import Cell
from returnn_lite.config.options import is_network
from tools.cells.case import Array
from tools.cells.plan import Net, Plan
from tools.cells.run import Values

DATA = "data:"
WAYS = ("forward", "backward")


class NotInKerasError(ValueError):
    """A case of which Keras' layers can't run the network, and why."""


@dataclass(frozen=True)
class Sequences:
    """Values with the frames that count [B, T]; None: all, or there are none."""

    value: Any
    real: Any = None


@dataclass
class KerasNetwork:
    """Layers are made when they are first computed: once with zeros, before parameters are known."""

    plan: Plan
    params: dict[str, Any] = field(default_factory=dict)
    training: bool = False
    _layers: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, arrays: Mapping[str, Any]) -> KerasNetwork:
        """Made for recorded arrays. Raises NotInKerasError."""
        network = cls(plan)
        recorded = {key: tf.constant(array) for key, array in arrays.items() if array.dtype.kind in "fib"}
        value = network.values({key: made(recorded) for key, made in plan.feeds.items()})
        for shown in plan.shown.values():
            for layer in shown.layers:
                value(layer)
        network.training = True
        return network

    @property
    def draws(self) -> Mapping[str, Array]:
        """Keras' loop computes its first step once before, to see what it gives."""
        masks = self.plan.draws
        return {name: np.concatenate([one[:, :1], one], 1) if one.ndim > 2 else one for name, one in masks.items()}

    def fed(self, feeds: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        return {key: tf.convert_to_tensor(value) for key, value in feeds.items()}

    def values(self, feeds: Mapping[str, Any]) -> Values:
        run = _Run(self, feeds)
        return lambda name: run.layer(name).value

    def first_state(self, name: str, size: int) -> tf.Tensor:
        """A trained one, the same for all sequences."""
        if name not in self.params:
            self.params[name] = tf.Variable(tf.zeros([size]))
        return tf.convert_to_tensor(self.params[name])

    def recurrent(self, name: str, options: Net, source: Any) -> Any:
        """The layer of a unit, or in both directions; of a stack of these one for each of them."""
        if name not in self._layers:
            made = self._layers[name] = _made(options, source)
            made.build(source.shape)
            pairs = zip(WAYS, (made.forward_layer, made.backward_layer), strict=True) if _is_both(options) else []
            scope, _, place = name.partition("#")
            parts = {f"{way}/{place}/" if place else f"{way}/": layer.cell for way, layer in pairs} or {"": made.cell}
            for below, cell in parts.items():
                for weight in cell.parameters():
                    parameter = weight.removeprefix("rec/")
                    self.params[f"{scope}/rec/{below}{parameter}"] = cell.variable(weight)
        return self._layers[name]


@dataclass
class _Run:
    """One evaluation: what the layers have given so far."""

    network: KerasNetwork
    feeds: Mapping[str, Any]
    found: dict[str, Sequences] = field(default_factory=dict)

    def layer(self, name: str) -> Sequences:
        """The value of a layer or a data key. Raises NotInKerasError."""
        if name in ("data", f"{DATA}data") or name.startswith(DATA):
            return self._data(name.removeprefix(DATA))
        above, _, part = name.rpartition("/")
        if part in WAYS:
            self.layer(above)
        if name not in self.found:
            self.found[name] = self._computed(name, self._options(name))
        return self.found[name]

    def _options(self, name: str) -> Net:
        above = name.partition("/")[0]
        if is_network(self.network.plan.network[above].get("unit")):
            raise NotInKerasError("a loop over a network: more than one cell, or its states at all frames")
        found: Net = self.network.plan.network[name]
        return found

    def _data(self, key: str) -> Sequences:
        value = tf.convert_to_tensor(self.feeds[key])
        lengths = self.network.plan.lengths
        axes = self.network.plan.extern_data[key]
        if axes.get("time_dim_axis", 0) is None:
            return Sequences(value)
        known = lengths.get(key, next(iter(lengths.values())))
        frames = int(value.shape[1])
        real = None if (np.asarray(known) == frames).all() else np.arange(frames) < np.asarray(known)[:, None]
        return Sequences(value, real)

    def _computed(self, name: str, options: Net) -> Sequences:
        kind = options["class"]
        if kind == "rec":
            return self._recurrence(name, options, None)
        if kind == "masked_computation":
            mask = tf.cast(self.layer(options["mask"]).value, tf.bool)
            return self._recurrence(name, {**options["unit"], "from": options["from"]}, mask)
        if kind in ("copy", "unmask"):
            return self.layer(options["from"])
        if kind == "get_last_hidden_state":
            self.layer(options["from"])
            return self.found[f"{options['from']}:{options['key']}"]
        if kind == "scaled_grad" and options["scale"] == 0:
            return Sequences(tf.stop_gradient(self.layer(options["from"]).value))
        raise NotInKerasError(f"there is no layer of Keras for the class {kind}")

    def _recurrence(self, name: str, options: Net, mask: Any) -> Sequences:
        source = self._joined(options["from"])
        real = source.real if mask is None else mask
        if _is_both(options) and isinstance(options["unit"], list):
            return self._stack(name, options, source, real)
        return self._one(name, name, options, source.value, real, "")

    def _stack(self, name: str, options: Net, source: Sequences, real: Any) -> Sequences:
        """A stack of both directions: each reads both of the one below."""
        value, last = source.value, len(options["unit"]) - 1
        for place, (forward, backward) in enumerate(zip(options["unit"], options["unit_backward"], strict=True)):
            merge = options["merge"] if place == last else "concat"
            one = {**options, "unit": forward, "unit_backward": backward, "merge": merge}
            found = self._one(name, f"{name}#{place}", one, value, real, f"/{place}")
            value = found.value
        return found

    def _one(self, name: str, layer_name: str, options: Net, source: Any, real: Any, below: str) -> Sequences:
        layer = self.network.recurrent(layer_name, options, source)
        both = _is_both(options)
        runs = {f"{way}{below}/": part for way, part in zip(WAYS, _parts(layer), strict=True)} if both else {"": layer}
        keys = [f"{way}{key}" for way, run in runs.items() for key in run.cell.state_names]
        first = self._first_states(name, options, keys, source.shape[0], layer)
        given = {"mask": real, "training": self.network.training}
        if both:
            outputs, states = _of_both(layer, source, first, given)
        else:
            output, *states = layer(source, initial_state=first, **given)
            outputs = [tf.reverse(output, [1]) if options.get("direction") == -1 else output]
        outputs = [_without_padding(one, real) for one in outputs]
        for key, state in zip(keys, states, strict=True):
            self.found[f"{name}:{key}"] = Sequences(state)
        if both:
            for way, one in zip(WAYS, outputs, strict=True):
                self.found[f"{name}/{way}"] = Sequences(one, real)
        return Sequences(_merged(options["merge"], outputs) if both else outputs[0], real)

    def _first_states(self, name: str, options: Net, keys: Sequence[str], batch: int, layer: Any) -> list[Any] | None:
        given = options.get("initial_state")
        if given is None:
            return None
        if given == "var":
            names = [f"{name}/rec/initial_{key}" for key in keys]
            found = [self.network.first_state(*one) for one in zip(names, layer.cell.state_size, strict=True)]
            return [tf.repeat(one[None], batch, 0) for one in found]
        return [self.layer(given[key]).value for key in keys]

    def _joined(self, sources: str | list[str]) -> Sequences:
        """All sources along their features; labels with a feature axis."""
        found = [self.layer(one) for one in ([sources] if isinstance(sources, str) else sources)]
        values = [one.value[..., None] if len(one.value.shape) == 2 else one.value for one in found]
        joined = values[0] if len(values) == 1 else tf.concat([tf.cast(one, values[-1].dtype) for one in values], -1)
        return Sequences(joined, found[0].real)


def _is_both(options: Net) -> bool:
    return options.get("direction") == "both"


def _parts(layer: Any) -> tuple[Any, Any]:
    return layer.forward_layer, layer.backward_layer


def _of_both(layer: Any, source: Any, first: list[Any] | None, given: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """The outputs forwards and backwards, and all states. Bidirectional gives each direction half of the first states:
    where one has more of them than the other, its two layers run by themselves."""
    parts = _parts(layer)
    counts = [len(part.cell.state_names) for part in parts]
    if first is None or counts[0] == counts[1]:
        forward, backward, *states = layer(source, initial_state=first, **given)
        return [forward, backward], states
    forward, *after = parts[0](source, initial_state=first[: counts[0]], **given)
    backward, *before = parts[1](source, initial_state=first[counts[0] :], **given)
    return [forward, tf.reverse(backward, [1])], [*after, *before]


def _made(options: Net, source: Any) -> Any:
    """Keras' layer with our cell or cells. Raises NotInKerasError where another layer is read."""
    shape, sequences = tuple(source.shape[2:]), {"return_sequences": True, "return_state": True}
    if not _is_both(options):
        backwards = options.get("direction") == -1
        return keras.layers.RNN(_cell(options["unit"], shape), go_backwards=backwards, **sequences)
    forward = keras.layers.RNN(_cell(options["unit"], shape), **sequences)
    backward = keras.layers.RNN(_cell(options["unit_backward"], shape), go_backwards=True, **sequences)
    return keras.layers.Bidirectional(forward, merge_mode=None, backward_layer=backward)


def _cell(unit: Any, shape: tuple[int, ...]) -> Cell:
    if "encoder" in unit:
        raise NotInKerasError("a loop of Keras gives a cell nothing but its source, no encoder")
    return Cell(unit, input_shape=shape)


def _merged(merge: str, outputs: Sequence[Any]) -> Any:
    merged = {"sum": tf.add_n, "concat": lambda both: tf.concat(both, -1), "ave": lambda both: tf.add_n(both) / 2}
    return tf.multiply(*outputs) if merge == "mul" else merged[merge](list(outputs))


def _without_padding(frames: Any, real: Any) -> Any:
    """Frames that do not count as 0, as ours are."""
    if real is None:
        return frames
    return tf.where(tf.reshape(real, (*real.shape, *[1] * (len(frames.shape) - 2))), frames, 0.0)
