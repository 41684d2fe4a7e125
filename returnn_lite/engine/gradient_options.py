"""The config's keys about gradients; free of TensorFlow, so that a config can be checked without it."""

from __future__ import annotations

from dataclasses import dataclass

from returnn_lite.config.options import option
from returnn_lite.engine.errors import EngineError


@dataclass(frozen=True)
class GradientOptions:
    """The config's keys about gradients. Zero and null mean off. All act in the order in which they stand here.

    With accumulation they act on the running sum in every step, but never change the sum itself.
    """

    accum_grad_multiple_step: int = option("sum the gradients of so many steps before an update", default=0)
    gradient_noise: float = option("standard deviation of Gaussian noise that is added", default=0.0)
    gradient_clip: float = option("limit the absolute value of each number", default=0.0)
    gradient_clip_norm: float = option("limit the L2 norm of each parameter's gradient", default=0.0)
    gradient_clip_avg_norm: float = option("limit the L2 norm divided by the number of elements", default=0.0)
    gradient_clip_global_norm: float = option("limit the L2 norm over all parameters", default=0.0)
    gradient_nan_inf_filter: bool = option("take zero for numbers that are not finite", default=False)
    grad_norm_to_clip_to_zero: float = option("no update if the norm over all parameters is larger", default=0.0)

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) < 0:
                raise EngineError(f"{name} must not be negative")
