"""The LSTM whose forget gate says what the input gate is: CIFG (Greff et al. 2015)."""

from __future__ import annotations

import dataclasses

from returnn_lite.config.options import option
from returnn_lite.dims import Dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.lstm import StandardLstm
from returnn_lite.layers.cells.lstm_arithmetic import LstmArithmetic

NORMS = {"j": "transform", "f": "forget", "o": "output", "c": "state"}
"""The folders of the parameters of norms, by what is normalised."""


class CoupledLstm(StandardLstm, names=("cifg", "cifglstm", "coupledinputforgetgatelstm")):
    """f = s(f + forget_bias); c' = f*c + (1-f)*act(j); h' = s(o)*act(c').

    kernel [in+n, 3n], bias [3n]; gates j, f, o. With `layer_norm` j, f, o and c' are normalised, c' is kept so, and
    there is no bias.
    """

    paper = "Greff et al. 2015"
    order = "jfo"
    folder = ""

    layer_norm: bool = option("whether gates and the cell state are normalised", default=False)
    norm_gain: float = option("what gamma of a norm starts with", default=1.0)
    norm_shift: float = option("what beta of a norm starts with", default=0.0)

    def bias(self, b: CellBuilder, gates: Dim) -> View | None:
        return None if self.layer_norm else super().bias(b, gates)

    def arithmetic(self, b: CellBuilder, hidden: Dim, out: Dim) -> LstmArithmetic:
        found = super().arithmetic(b, hidden, out)
        if not self.layer_norm:
            return found
        norms = {name: b.layer_norm(folder, hidden, self.norm_gain, self.norm_shift) for name, folder in NORMS.items()}
        return dataclasses.replace(found, norms=norms)


CELLS = (CoupledLstm,)
