"""What the weights of a unit start with."""

from __future__ import annotations

from dataclasses import dataclass

from returnn_lite.config.options import Init


@dataclass(frozen=True)
class Inits:
    """The initialisers of a unit, as the options of its layer say; None where they say nothing."""

    given_input: Init | None = None
    given_recurrent: Init | None = None
    given_bias: Init | None = None

    @property
    def input(self) -> Init:
        return self.input_or("glorot_uniform")

    def input_or(self, default: Init) -> Init:
        """What input weights start with, where a cell has a default of its own."""
        return default if self.given_input is None else self.given_input

    @property
    def recurrent(self) -> Init:
        return self.recurrent_or("glorot_uniform")

    @property
    def bias(self) -> Init:
        return self.bias_or(0.0)

    def recurrent_or(self, default: Init) -> Init:
        """What recurrent weights start with, where a cell has a default of its own."""
        return default if self.given_recurrent is None else self.given_recurrent

    def bias_or(self, default: Init) -> Init:
        """What a bias starts with, where a cell has a default of its own."""
        return default if self.given_bias is None else self.given_bias
