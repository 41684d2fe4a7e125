"""The LSTM whose gates have the product of what the source and the state say: multiplicative integration."""

from __future__ import annotations

from typing import Literal

from returnn_lite.config.options import option
from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.lstm_arithmetic import lstm_unit
from returnn_lite.layers.cells.normed_lstm import NormedLstm
from returnn_lite.layers.cells.unit import Unit


class MultiplicativeLstm(
    NormedLstm,
    names=("milstm", "multiplicativelstm", "layernormmilstm"),
    presets={"layernormmilstm": {"norm": "joint"}},
):
    """z = alpha*u*p + beta1*p + beta2*u + b, with u = x W and p = h W_re, in place of an LSTM's z = u + p + b.

    W [in, 4n], W_re [n, 4n], alpha, beta1, beta2 [4n], 1 at first, and b [4n]; gates j, i, f, o.
    """

    paper = "Wu et al. 2016"

    norm: Literal["gate", "joint"] | None = option(
        "what is normalised: each gate by itself and the cell state, all gates together, or nothing", default=None
    )

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        hidden, recurrent = self.hidden(b, out), b.rows(out)
        gates = linear_dim([(hidden, len(self.order))], 0)
        from_x = b.input_product(x, b.param("W", (b.source(x), gates), b.inits.input))
        weights = b.dropped_weights(b.param("W_re", (recurrent, gates), b.inits.recurrent), self.rec_weight_dropout)
        alpha, beta1, beta2 = (b.param(name, (gates,), 1.0) for name in ("alpha", "beta1", "beta2"))
        bias = self.bias(b, gates)

        def integrated(u: View, p: View) -> View:
            of_source = b.mul(beta2, u)
            if bias is not None:
                of_source = b.add(of_source, bias)
            return b.add(b.mul(b.add(b.mul(alpha, u), beta1), p), of_source)

        return lstm_unit(b, from_x, weights, recurrent, self.order, self.arithmetic(b, hidden, out), integrated)


CELLS = (MultiplicativeLstm,)
