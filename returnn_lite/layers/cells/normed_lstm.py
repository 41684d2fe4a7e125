"""LSTMs with layer normalisation of their gates (Ba et al. 2016)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from returnn_lite.config.options import option
from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.dropout import rate_of
from returnn_lite.layers.cells.lstm import LstmOptions
from returnn_lite.layers.cells.lstm_arithmetic import LstmArithmetic

FOLDERS = {"i": "input", "j": "transform", "f": "forget", "o": "output", "c": "state"}
"""Where the parameters of the norms are, by what is normalised."""
KEPT = "dropout_keep_prob"
"""TensorFlow's option, the probability that something is kept."""
EPSILON = {"gate": 1e-12, "joint": 1e-4}


class NormedLstm(LstmOptions):
    """Adds norms of the pre-activations, before the forget bias and the peepholes.

    `gate`: each of i, j, f, o by itself, and c' before its clip, which is kept so. There is no bias then.
    `joint`: all gates together, after the bias.
    """

    old_options: ClassVar[Mapping[str, str]] = {**LstmOptions.old_options, KEPT: "dropout"}

    norm: Literal["gate", "joint"] | None = option(
        "what is normalised: each gate by itself and the cell state, all gates together, or nothing", default="gate"
    )
    norm_gain: float = option("what gamma of a norm starts with", default=1.0)
    norm_shift: float = option("what beta of a norm starts with", default=0.0)
    variance_epsilon: float | None = option(
        "added to the variance; default: 1e-12, of all gates together 1e-4", default=None, least=0
    )
    dropout: float = option(
        "of the candidate, act(j), anew at each step (Semeniuta et al. 2016)", default=0.0, least=0, below=1
    )

    @classmethod
    def renamed(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: rate_of(value) if name == KEPT else value for name, value in options.items()}
        if (normed := given.pop("layer_norm", None)) is not None:
            given["norm"] = ("gate" if normed else None) if isinstance(normed, bool) else normed
        return super().renamed(given)

    def bias(self, b: CellBuilder, gates: Dim) -> View | None:
        return None if self.norm == "gate" else super().bias(b, gates)

    def arithmetic(self, b: CellBuilder, hidden: Dim, out: Dim) -> LstmArithmetic:
        norms = {}
        if self.norm:
            epsilon = EPSILON[self.norm] if self.variance_epsilon is None else self.variance_epsilon
            over = {"gates": linear_dim([(hidden, len(self.order))], 0)}
            folders = {"gates": "norm"} if self.norm == "joint" else FOLDERS
            norms = {
                name: b.layer_norm(
                    self.folder + folder, over.get(name, hidden), self.norm_gain, self.norm_shift, epsilon
                )
                for name, folder in folders.items()
            }
        found = dataclasses.replace(super().arithmetic(b, hidden, out), norms=norms)
        if not self.dropout or not b.mode.train:
            return found
        return dataclasses.replace(found, dropped=lambda g: b.dropped(g, self.dropout, "candidate", fresh=True))
