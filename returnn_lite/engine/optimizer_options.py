"""The config's keys about the optimizer; free of Keras, so that a config can be checked without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from returnn_lite.config.decode import decode_value, describe
from returnn_lite.config.diagnostics import nearest_hint
from returnn_lite.config.options import option
from returnn_lite.engine.errors import EngineError

_COMMON: Mapping[str, Any] = {
    "weight_decay": float | None,
    "use_ema": bool,
    "ema_momentum": float,
    "ema_overwrite_frequency": int | None,
}
_BETAS: Mapping[str, Any] = {"beta_1": float, "beta_2": float}
_EPSILON: Mapping[str, Any] = {"epsilon": float}
OPTIMIZERS: Mapping[str, Mapping[str, Any]] = {
    "adadelta": {"rho": float, **_EPSILON, **_COMMON},
    "adagrad": {"initial_accumulator_value": float, **_EPSILON, **_COMMON},
    "adam": {**_BETAS, **_EPSILON, "amsgrad": bool, **_COMMON},
    "adamax": {**_BETAS, **_EPSILON, **_COMMON},
    "adamw": {**_BETAS, **_EPSILON, "amsgrad": bool, **_COMMON},
    "ftrl": {
        "learning_rate_power": float,
        "initial_accumulator_value": float,
        "l1_regularization_strength": float,
        "l2_regularization_strength": float,
        "l2_shrinkage_regularization_strength": float,
        "beta": float,
        **_COMMON,
    },
    "lamb": {**_BETAS, **_EPSILON, **_COMMON},
    "lion": {**_BETAS, **_COMMON},
    "nadam": {**_BETAS, **_EPSILON, **_COMMON},
    "rmsprop": {"rho": float, "momentum": float, **_EPSILON, "centered": bool, **_COMMON},
    "sgd": {"momentum": float, "nesterov": bool, **_COMMON},
}
"""Keras' optimizers and the types of their options."""
_ALIASES = {"gradientdescent": "sgd", "momentum": "sgd", "nadamoptimizer": "nadam", "adamoptimizer": "adam"}
# Names of TensorFlow 1, which configs use, for those of Keras.
_RENAMED = {"beta1": "beta_1", "beta2": "beta_2", "decay": "rho", "use_nesterov": "nesterov"}
# What Keras' base class offers is decided by other keys of the config.
ELSEWHERE: Mapping[str, str] = {
    "learning_rate": "Set learning_rate in the config itself",
    "clipnorm": "Use gradient_clip_norm",
    "clipvalue": "Use gradient_clip",
    "global_clipnorm": "Use gradient_clip_global_norm",
    "gradient_accumulation_steps": "Use accum_grad_multiple_step",
    "loss_scale_factor": "Leave it out",
    "name": "Leave it out",
}


def resolved(described: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name in `OPTIMIZERS` and Keras' options of a dict with RETURNN's or Keras' names.

    Raises EngineError for an unknown class or option, or a value of the wrong type.
    """
    given = described.get("class")
    if not isinstance(given, str):
        raise EngineError("optimizer: give a 'class', for example {class: adam}")
    name = given.lower()
    name = _ALIASES.get(name, name.removesuffix("optimizer"))
    name = _ALIASES.get(name, name)
    if name not in OPTIMIZERS:
        known = [*OPTIMIZERS, "momentum"]
        hint = nearest_hint(name, known) or f" There are {', '.join(known)}."
        raise EngineError(f"optimizer: there is no class '{given}'.{hint}")
    accepted = OPTIMIZERS[name]
    arguments: dict[str, Any] = {"momentum": 0.9} if given.lower().startswith("momentum") else {}
    for key, value in described.items():
        if key == "class":
            continue
        renamed = key if key in accepted else _RENAMED.get(key, key)
        if renamed not in accepted:
            hint = f" {ELSEWHERE[key]}." if key in ELSEWHERE else nearest_hint(key, list(accepted))
            raise EngineError(f"optimizer: {name} has no option '{key}'.{hint or f' It has {list(accepted)}.'}")
        try:
            decoded = decode_value(accepted[renamed], value)
            arguments[renamed] = float(decoded) if accepted[renamed] is float else decoded  # Keras takes no 0 for 0.0
        except ValueError as error:
            raise EngineError(f"optimizer: {key}: expected {describe(accepted[renamed])}, got {value!r}") from error
    return name, arguments


@dataclass(frozen=True)
class OptimizerOptions:
    """The config's keys about the optimizer; `optimizer` is the current one, the flags are RETURNN's old ones."""

    optimizer: str | dict[str, Any] | None = option(
        "class (adam, nadam, adamw, sgd, momentum, ...) and its options; default sgd", default=None
    )
    optimizer_epsilon: float = option("epsilon of optimizers that have one and where it is not given", default=1e-16)
    adam: bool = option("old form of optimizer: {class: adam}", default=False)
    nadam: bool = option("old form of optimizer: {class: nadam}", default=False)
    adadelta: bool = option("old form of optimizer: {class: adadelta}", default=False)
    adagrad: bool = option("old form of optimizer: {class: adagrad}", default=False)
    rmsprop: bool = option("old form of optimizer: {class: rmsprop}", default=False)
    momentum: float = option("old form of optimizer: {class: momentum, momentum: m}", default=0.0)

    def __post_init__(self) -> None:
        resolved(self.described())

    def described(self) -> dict[str, Any]:
        """The optimizer as a dict with its class. Raises EngineError if several are given."""
        flags = [name for name in ("adam", "nadam", "adadelta", "adagrad", "rmsprop") if getattr(self, name)]
        chosen: list[dict[str, Any]] = [{"class": name} for name in flags]
        if self.momentum:
            chosen.append({"class": "momentum", "momentum": self.momentum})
        if self.optimizer is not None:
            given = self.optimizer
            chosen.append({"class": given} if isinstance(given, str) else dict(given))
        if len(chosen) > 1:
            raise EngineError(f"more than one optimizer is given: {chosen}. Keep 'optimizer' and remove the others.")
        return chosen[0] if chosen else {"class": "sgd"}
