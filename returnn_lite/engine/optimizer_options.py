"""The config's keys about the optimizer; free of Keras, so that a config can be checked without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from returnn_lite.config.options import option
from returnn_lite.engine.errors import EngineError


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
