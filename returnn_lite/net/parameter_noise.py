"""Noise on parameters in training: dropout of their elements, and Gaussian ("variational") noise."""

from __future__ import annotations

from dataclasses import dataclass

from returnn_lite.ir import Value
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.sources import RandomDraw
from returnn_lite.layers.base import LayerError
from returnn_lite.net.common import ParameterOptions


@dataclass(frozen=True)
class ParameterNoise:
    """What `param_dropout`, `param_dropout_min_ndim` and `param_variational_noise` say of a layer's parameters.

    Each element is 0 with probability `dropout`, else divided by 1 - dropout; then noise of a normal distribution with
    mean 0 and standard deviation `noise` (Graves 2011) is added. All steps of a loop, and all layers that share a
    parameter, see one draw of it.
    """

    dropout: float = 0.0
    min_ndim: int = 0
    noise: float = 0.0

    def with_options(self, options: ParameterOptions) -> ParameterNoise:
        """As a layer says, or else the layer around. Raises LayerError."""
        rate, noise = options.param_dropout, options.param_variational_noise
        if rate is not None and not 0.0 <= rate < 1.0:
            raise LayerError(f"a dropout rate is at least 0 and below 1, not {rate}", "", "param_dropout")
        if noise is not None and noise < 0.0:
            raise LayerError(f"a standard deviation is not negative: {noise}", "", "param_variational_noise")
        least = options.param_dropout_min_ndim
        return ParameterNoise(
            self.dropout if rate is None else rate,
            self.min_ndim if least is None else least,
            self.noise if noise is None else noise,
        )

    def applied(self, builder: Builder, name: str, value: Value) -> Value:
        """The value of the parameter of that name, with noise. The draws are named by the parameter."""
        if not value.type.is_float:
            return value
        dims, dtype = value.type.dims, value.type.dtype
        if self.dropout and len(dims) >= self.min_ndim:
            draw = RandomDraw("uniform", 0.0, 1.0, dims, f"param_dropout:{name}:{self.dropout}", dtype)
            keeps = builder.binary("greater_equal", builder.apply(draw), self.dropout)
            scale = builder.constant(1.0 / (1.0 - self.dropout), dtype)
            value = builder.mul(value, builder.select(keeps, scale, 0.0))
        if self.noise:
            draw = RandomDraw("normal", 0.0, float(self.noise), dims, f"param_noise:{name}:{self.noise}", dtype)
            value = builder.add(value, builder.apply(draw))
        return value
