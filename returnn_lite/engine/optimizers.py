"""Keras' optimizers behind RETURNN's config keys."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from returnn_lite.engine.errors import EngineError
from returnn_lite.engine.fused_adam import FusedAdam
from returnn_lite.engine.optimizer_options import OPTIMIZERS, OptimizerOptions, resolved
from returnn_lite.net.common_options import UPDATER_OPTS

_CLASSES: Mapping[str, type[keras.optimizers.Optimizer]] = {
    "adadelta": keras.optimizers.Adadelta,
    "adagrad": keras.optimizers.Adagrad,
    "adam": FusedAdam,
    "adamax": keras.optimizers.Adamax,
    "adamw": keras.optimizers.AdamW,
    "ftrl": keras.optimizers.Ftrl,
    "lamb": keras.optimizers.Lamb,
    "lion": keras.optimizers.Lion,
    "nadam": keras.optimizers.Nadam,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": keras.optimizers.SGD,
}


def make_optimizer(described: Mapping[str, Any], epsilon: float) -> keras.optimizers.Optimizer:
    """The optimizer of a dict with its class and options, under RETURNN's or Keras' names.

    Its learning rate is set for each epoch later. AdamW has Keras' meaning: the decay is multiplied with the learning
    rate. Raises EngineError for an unknown class or option.
    """
    name, arguments = resolved(described)
    if "epsilon" in OPTIMIZERS[name]:
        arguments.setdefault("epsilon", epsilon)
    cls = _CLASSES[name]
    try:
        return cls(learning_rate=0.0, **arguments)
    except (TypeError, ValueError) as error:
        raise EngineError(f"optimizer: {name}: {error}") from error


@dataclass(frozen=True)
class _Group:
    """Parameters that share an optimizer, and how much faster than others they learn."""

    optimizer: keras.optimizers.Optimizer
    names: tuple[str, ...]
    multiplier: float


class Optimizers:
    """The optimizers of a network: one for each distinct `updater_opts` of its layers.

    `params` are the variables by name, `trainable` the names of those to update.
    """

    def __init__(
        self,
        options: OptimizerOptions,
        params: Mapping[str, tf.Variable],
        trainable: Sequence[str],
        updater_opts: Mapping[str, Mapping[str, object]],
    ) -> None:
        self._params = params
        members: dict[str, list[str]] = {}
        for name in sorted(trainable):
            members.setdefault(json.dumps(updater_opts.get(name, {}), sort_keys=True, default=str), []).append(name)
        self._groups = [self._group(options, updater_opts.get(names[0], {}), names) for names in members.values()]

    def _group(self, options: OptimizerOptions, own: Mapping[str, Any], names: list[str]) -> _Group:
        for key in own:
            if key not in UPDATER_OPTS:
                raise EngineError(
                    f"updater_opts of '{names[0]}': '{key}' is not supported per layer; there are {list(UPDATER_OPTS)}"
                )
        optimizer = make_optimizer(own.get("optimizer") or options.described(), options.optimizer_epsilon)
        optimizer.build([self._params[name] for name in names])
        return _Group(optimizer, tuple(names), float(own.get("learning_rate_multiplier", 1.0)))

    def set_learning_rate(self, rate: float) -> None:
        """Sets the learning rate of all, times each one's multiplier."""
        for group in self._groups:
            group.optimizer.learning_rate.assign(rate * group.multiplier)

    def apply(self, gradients: Mapping[str, tf.Tensor]) -> None:
        """Updates the parameters; to be called while a `tf.function` is traced. A layer without gradient is left."""
        for group in self._groups:
            group.optimizer.apply([gradients[name] for name in group.names])

    def state(self) -> dict[str, Any]:
        """The variables that a run needs to go on, under `optimizer/<parameter>/<slot>`, or `optimizer/<number>/...`
        for what an optimizer has once."""
        found: dict[str, Any] = {}
        for number, group in enumerate(self._groups):
            found |= self._state_of(group, number)
        return found

    def _state_of(self, group: _Group, number: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for variable in group.optimizer.variables:
            if variable is group.optimizer.learning_rate:
                continue
            tail = variable.path.partition("/")[2]
            # Keras names a slot after its parameter; those that share a name come in the order of the parameters.
            for name in group.names:
                written = re.sub("[/:]", "_", self._params[name].name) + "_"
                slot = f"optimizer/{name}/{tail.removeprefix(written)}"
                if tail.startswith(written) and slot not in found and self._params[name].shape == variable.shape:
                    found[slot] = variable
                    break
            else:
                found[f"optimizer/{number}/{tail or 'variable'}"] = variable  # Nadam's has no name
        return found
