"""A case in TensorFlow: our network, and the objective of the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from returnn_lite.compiler import Compiled
from returnn_lite.config.diagnostics import ConfigError, Diagnostic
from returnn_lite.dims import Dim, DimKind
from tools.cells.case import Array, Case
from tools.cells.draws import given_masks
from tools.cells.plan import Plan


def results(case: Case, plan: Plan, compiled: Compiled) -> tuple[dict[str, Array], dict[str, Array]]:
    """What was recorded, from ours: outputs and states by their keys, and gradients by what they are with respect to.

    Raises ConfigError where the parameters are not those that there are.
    """
    executable = compiled.executable
    recorded = {key: tf.constant(array) for key, array in case.arrays.items() if array.dtype.kind in "fib"}
    sought = {key.removeprefix("grad/"): array for key, array in case.arrays.items() if key.startswith("grad/")}
    with tf.GradientTape() as tape:
        tape.watch([recorded[key] for key in sought])
        parameters = _known(plan.parameters(recorded), executable.params)
        feeds = {key: made(recorded) for key, made in plan.feeds.items()}
    for name, value in parameters.items():
        executable.params[name].assign(value)
    batch = compiled.checked_batch({key: np.asarray(value) for key, value in feeds.items()}, dict(plan.lengths))
    fed, lengths = executable._fed(batch.arrays, batch.lengths)
    found, of_parameters, of_feeds = _run(case, plan, compiled, fed, lengths, list(parameters))
    smooth = [key for key in fed if feeds[key].dtype.is_floating]
    ours = [*parameters.values(), *(feeds[key] for key in smooth)]
    slopes = [tf.constant(one) for one in [*of_parameters, *(of_feeds[key] for key in smooth)]]
    back = tape.gradient(ours, {key: recorded[key] for key in sought}, slopes, tf.UnconnectedGradients.ZERO)
    return found, {key: np.asarray(tf.convert_to_tensor(value)) for key, value in back.items()}


def _known(mine: dict[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    if set(mine) != set(known):
        message = f"the parameters are {', '.join(known)}, not {', '.join(mine)}"
        raise ConfigError([Diagnostic(None, (), message, "Mend the layout.")])
    return mine


def _run(
    case: Case,
    plan: Plan,
    compiled: Compiled,
    feeds: Mapping[str, tf.Tensor],
    lengths: Mapping[str, tf.Tensor],
    names: list[str],
) -> tuple[dict[str, Array], list[Array], dict[str, Array]]:
    """Values, and the gradients of the objective with respect to parameters and data."""
    executable, graph = compiled.executable, compiled.graph

    @tf.function(autograph=False)
    def body(feeds: Mapping[str, tf.Tensor], lengths: Mapping[str, tf.Tensor]) -> Any:
        outputs = executable.call(feeds, lengths, tf.constant(1)).outputs

        def value(layer: str) -> Any:
            name = f"layer:{layer}"
            return outputs[name].in_order(_recorded(graph.axes(name)))

        found = {key: shown.made(*(value(layer) for layer in shown.layers)) for key, shown in plan.shown.items()}
        objective = tf.add_n([_weighted(case, key, found[key], shown.real) for key, shown in plan.shown.items()])
        variables = [executable.params[name] for name in names]
        back = tf.gradients(objective, [*variables, *feeds.values()], unconnected_gradients="zero")
        return found, back

    with given_masks(plan.draws):
        found, back = body(feeds, lengths)
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
