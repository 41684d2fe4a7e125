"""A case in TensorFlow: values and gradients of what runs its network, and the objective of the records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from returnn_lite.compiled import Compiled
from returnn_lite.config.diagnostics import ConfigError, Diagnostic
from returnn_lite.dims import Dim, DimKind
from tools.cells.case import Array, Case
from tools.cells.draws import given_masks
from tools.cells.plan import Plan

Values = Callable[[str], Any]
"""From the name of a layer to its value: sequences, frames, and what each frame has."""


class Network(Protocol):
    """What runs the network of a plan."""

    @property
    def params(self) -> Mapping[str, Any]:
        """The variables by our names."""

    @property
    def draws(self) -> Mapping[str, Array]:
        """Recorded dropout masks, by what is drawn in their place, with a frame for each step that is computed."""

    def fed(self, feeds: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """Of the feeds those that it reads, as it reads them."""

    def values(self, feeds: Mapping[str, tf.Tensor]) -> Values:
        """The layers, while a graph is built."""


def results(case: Case, plan: Plan, network: Network) -> tuple[dict[str, Array], dict[str, Array]]:
    """What was recorded, from ours: outputs and states by their keys, and gradients by what they are with respect to.

    Raises ConfigError where the parameters are not those that there are.
    """
    recorded = {key: tf.constant(array) for key, array in case.arrays.items() if array.dtype.kind in "fib"}
    sought = {key.removeprefix("grad/"): array for key, array in case.arrays.items() if key.startswith("grad/")}
    with tf.GradientTape() as tape:
        tape.watch([recorded[key] for key in sought])
        parameters = _known(plan.parameters(recorded), network.params)
        feeds = {key: made(recorded) for key, made in plan.feeds.items()}
    for name, value in parameters.items():
        network.params[name].assign(value)
    fed = network.fed(feeds)
    found, of_parameters, of_feeds = _run(case, plan, network, fed, list(parameters))
    smooth = [key for key in fed if feeds[key].dtype.is_floating]
    ours = [*parameters.values(), *(feeds[key] for key in smooth)]
    slopes = [tf.constant(one) for one in [*of_parameters, *(of_feeds[key] for key in smooth)]]
    back = tape.gradient(ours, {key: recorded[key] for key in sought}, slopes, tf.UnconnectedGradients.ZERO)
    return found, {key: np.asarray(tf.convert_to_tensor(value)) for key, value in back.items()}


@dataclass(frozen=True)
class CompiledNetwork:
    """A network that we have compiled."""

    plan: Plan
    compiled: Compiled
    _lengths: dict[str, tf.Tensor]

    @classmethod
    def of(cls, plan: Plan, compiled: Compiled) -> CompiledNetwork:
        return cls(plan, compiled, {})

    @property
    def params(self) -> Mapping[str, Any]:
        return self.compiled.executable.params

    @property
    def draws(self) -> Mapping[str, Array]:
        return self.plan.draws

    def fed(self, feeds: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        arrays = {key: np.asarray(value) for key, value in feeds.items()}
        batch = self.compiled.checked_batch(arrays, dict(self.plan.lengths))
        found, lengths = self.compiled.executable._fed(batch.arrays, batch.lengths)
        self._lengths.update(lengths)
        return found

    def values(self, feeds: Mapping[str, tf.Tensor]) -> Values:
        outputs = self.compiled.executable.call(feeds, self._lengths, tf.constant(1)).outputs

        def value(layer: str) -> Any:
            name = f"layer:{layer}"
            return outputs[name].in_order(_recorded(self.compiled.graph.axes(name)))

        return value


def _known(mine: dict[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    if set(mine) != set(known):
        message = f"the parameters are {', '.join(known)}, not {', '.join(mine)}"
        raise ConfigError([Diagnostic(None, (), message, "Mend the layout.")])
    return mine


def _run(
    case: Case, plan: Plan, network: Network, feeds: Mapping[str, tf.Tensor], names: list[str]
) -> tuple[dict[str, Array], list[Array], dict[str, Array]]:
    """Values, and the gradients of the objective with respect to parameters and data."""

    @tf.function(autograph=False)
    def body(feeds: Mapping[str, tf.Tensor]) -> Any:
        value = network.values(feeds)
        found = {key: shown.made(*(value(layer) for layer in shown.layers)) for key, shown in plan.shown.items()}
        objective = tf.add_n([_weighted(case, key, found[key], shown.real) for key, shown in plan.shown.items()])
        variables = [network.params[name] for name in names]
        back = tf.gradients(objective, [*variables, *feeds.values()], unconnected_gradients="zero")
        return found, back

    with given_masks(network.draws):
        found, back = body(feeds)
    slopes = [np.asarray(tf.convert_to_tensor(value)) for value in back]
    arrays = {key: np.asarray(value) for key, value in found.items()}
    return arrays, slopes[: len(names)], dict(zip(feeds, slopes[len(names) :], strict=True))


def _recorded(axes: Sequence[Dim]) -> list[Dim]:
    """Axes in the order of records: sequences, frames, and what each frame has."""
    return sorted(axes, key=lambda dim: (dim.kind is not DimKind.BATCH, not dim.is_ragged))


def _weighted(case: Case, key: str, value: Any, real: Array | None) -> Any:
    """The part of the objective that is of an output: times its weights, of the frames that count."""
    weights = case.arrays.get(f"w/{key.removeprefix('out/')}") if key.startswith("out/") else None
    if weights is None:
        return tf.constant(0.0)
    product = value * tf.constant(weights)
    if real is not None:
        product = tf.where(real.reshape(real.shape + (1,) * (weights.ndim - 2)), product, 0.0)
    return tf.reduce_sum(product)
