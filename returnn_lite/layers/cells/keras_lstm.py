"""The LSTM with Keras' weights and dropout (Gers et al. 2000; Gal and Ghahramani 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from returnn_lite.config.options import Activation, option
from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.ops.sources import Initializer
from returnn_lite.ir.views import View
from returnn_lite.layers.activations import KERAS_3
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.gate_dropout import dropped, dropped_source, gate_masks, product_by_gates
from returnn_lite.layers.cells.lstm_arithmetic import LstmArithmetic, lstm_unit
from returnn_lite.layers.cells.unit import States, Unit

ORDER = "ifjo"
BIAS = Initializer("blocks", tuple((gate, float(gate == "f")) for gate in ORDER))
"""What it starts with (Jozefowicz et al. 2015)."""


class KerasLstm(
    Cell,
    names=("keras.lstm", "keras.v1.lstm", "keras.v2.lstm", "keras.cudnnlstm"),
    presets={
        "keras.v1.lstm": {"implementation": 1, "recurrent_activation": "hard_sigmoid"},
        "keras.v2.lstm": {"implementation": 2},
    },
):
    """kernel [in, 4n], recurrent_kernel [n, 4n], orthogonal at first, bias [4n]; gates i, f, j, o (Keras' i, f, c, o).

    Nothing is added to the forget gate, whose bias is 1 at first.
    """

    paper = "Gers et al. 2000"
    functions: ClassVar[Mapping[str, Mapping[str, str]]] = {"keras.lstm": KERAS_3}
    keys = ("h", "c")

    activation: Activation | None = option(
        "that of the candidate and of the cell state; none: identity", default="tanh"
    )
    recurrent_activation: Activation | None = option(
        "that of the gates; none: identity. hard_sigmoid is Keras 3's relu6(x + 3) / 6; with v1 or v2 in the name of "
        "the cell clip(x / 5 + 1/2, 0, 1)",
        default="sigmoid",
    )
    use_bias: bool = option("whether there is a bias", default=True)
    unit_forget_bias: bool = option(
        "whether the bias of the forget gate starts with 1, where bias_init says nothing", default=True
    )
    dropout: float = option("of x in the products, one mask for all steps", default=0.0, least=0, below=1)
    recurrent_dropout: float = option("of h in the products, one mask for all steps", default=0.0, least=0, below=1)
    implementation: Literal[1, 2] | None = option(
        "1: dropout has a mask for each gate; 2: one for all; default: 1 with recurrent_dropout, else 2", default=None
    )

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        gates, recurrent = linear_dim([(out, 4)], 0), b.rows(out)
        weights = b.param("recurrent_kernel", (recurrent, gates), b.inits.recurrent_or("orthogonal"))
        masks = gate_masks(b, "recurrent_dropout", self.recurrent_dropout, out, self._masks)
        arithmetic = LstmArithmetic(
            out, activation=self.activation or "linear", recurrent_activation=self.recurrent_activation or "linear"
        )
        z = self._input_product(b, x, gates, out)
        if not masks:
            return lstm_unit(b, z, weights, recurrent, ORDER, arithmetic)

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            def of_h(h: View, part: View) -> View:
                return b.recurrent_product(h, part, out, recurrent)

            product = product_by_gates(b, dropped(b, before["h"], masks), weights, gates, out, of_h)
            return arithmetic.after(b, b.blocks(b.add(now[0], product), gates, out, ORDER), before["c"])

        return b.stepwise((z,), step, [*arithmetic.unlike_primitive, "recurrent_dropout"])

    @property
    def _masks(self) -> int:
        """How many there are of an input."""
        return 4 if (self.implementation or (1 if self.recurrent_dropout else 2)) == 1 else 1

    def _input_product(self, b: CellBuilder, x: View, gates: Dim, out: Dim) -> View:
        """With the bias added."""
        weights = b.param("kernel", (b.source(x), gates), b.inits.input)
        seen = dropped_source(b, x, self.dropout, b.source(x), self._masks)
        z = product_by_gates(b, seen, weights, gates, out, b.input_product)
        if not self.use_bias:
            return z
        first = BIAS if self.unit_forget_bias else 0.0
        return b.add(z, b.param("bias", (gates,), b.inits.bias_or(first)))


CELLS = (KerasLstm,)
