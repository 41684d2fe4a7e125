"""Long short-term memory (Hochreiter and Schmidhuber 1997, with forget gate: Gers et al. 2000)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from returnn_lite.config.options import Activation, option
from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.ops.recurrence import LstmCell, LstmStep
from returnn_lite.ir.ops.sources import Storage
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.unit import States, Unit


class Lstm(
    Cell,
    names=("lstm", "lstmp", "nativelstm", "nativelstm2", "lstmblock", "lstmblockfused", "cudnnlstm", "vanillalstm"),
):
    """W [in, 4n], W_re [n, 4n], b [4n]; gates j, i, f, o; no forget bias unless an option says."""

    paper = "Gers et al. 2000"
    keys = ("h", "c")

    forget_bias: float = option("what is added to the forget gate", default=0.0)
    rec_weight_dropout: float = option("dropout of W_re, one mask for a sequence", default=0.0, least=0, below=1)

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        recurrent = b.rows(out)
        gates = linear_dim([(out, 4)], 0)
        bias = b.param("b", (gates,), b.inits.bias, storage=Storage(forget_bias=self.forget_bias))
        if b.input_projection:
            z = b.input_product(x, b.param("W", (b.source(x), gates), b.inits.input), bias)
        else:
            z = b.add(b.with_feature(b.relabel(x, b.feature_of(x), gates, f"gates of '{b.name}'"), gates), bias)
        weights = b.dropped_weights(b.param("W_re", (recurrent, gates), b.inits.recurrent), self.rec_weight_dropout)
        return fused_lstm(b, z, weights, LstmCell(out, recurrent, gates, "jifo", self.forget_bias))


class LowMemoryLstm(Cell, names=("nativelstmlowmem",)):
    """The LSTM with one kernel: W [in+n, 4n], b [4n]; gates j, i, f, o."""

    paper = "Gers et al. 2000"
    keys = ("h", "c")

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        recurrent = b.rows(out)
        gates = linear_dim([(out, 4)], 0)
        for_x, for_h = b.joint_kernel("W", x, recurrent, gates)
        z = b.input_product(x, for_x, b.param("b", (gates,), b.inits.bias))
        return fused_lstm(b, z, for_h, LstmCell(out, recurrent, gates, "jifo"))


class BasicLstm(Cell, names=("basiclstm",)):
    """TensorFlow's LSTM: one kernel [in+n, 4n]; gates i, j, f, o; a forget bias of 1 is added."""

    paper = "Zaremba et al. 2014"
    keys = ("h", "c")
    parameters: ClassVar[str] = "basic_lstm_cell"

    forget_bias: float = option("what is added to the forget gate", default=1.0)
    rec_weight_dropout: float = option("dropout of the kernel's part for h, one mask", default=0.0, least=0, below=1)
    activation: Activation | None = option("the activation function", default="tanh")

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        recurrent = b.rows(out)
        gates = linear_dim([(out, 4)], 0)
        for_x, for_h = b.joint_kernel(f"{self.parameters}/kernel", x, recurrent, gates)
        storage = Storage(forget_bias=self.forget_bias)
        bias = b.param(f"{self.parameters}/bias", (gates,), b.inits.bias, storage=storage)
        z = b.input_product(x, for_x, bias)
        weights = b.dropped_weights(for_h, self.rec_weight_dropout)
        return self.arithmetic(b, z, weights, LstmCell(out, recurrent, gates, "ijfo", self.forget_bias))

    def arithmetic(self, b: CellBuilder, z: View, weights: View, cell: LstmCell) -> Unit:
        """The unit from the product of the source and the recurrent weights."""
        activation = self.activation or "tanh"
        return fused_lstm(b, z, weights, cell) if activation == "tanh" else stepwise(b, z, weights, cell, activation)


class StandardLstm(BasicLstm, names=("standardlstm",)):
    """TensorFlow's LSTM with peepholes (w_i_diag and w_f_diag see the state before, w_o_diag the one after) and a
    clipped state."""

    paper = "Gers and Schmidhuber 2000"
    parameters = "lstm_cell"

    use_peepholes: bool | None = option("whether gates see the cell state", default=False)
    cell_clip: float | None = option("the cell state is clipped to so much", default=None)

    def arithmetic(self, b: CellBuilder, z: View, weights: View, cell: LstmCell) -> Unit:
        peepholes = {}
        if self.use_peepholes:
            names = {gate: f"lstm_cell/w_{gate}_diag" for gate in "ifo"}
            peepholes = {gate: b.param(name, (cell.hidden,), b.inits.input) for gate, name in names.items()}
        if not peepholes and not self.cell_clip:
            return super().arithmetic(b, z, weights, cell)
        return stepwise(b, z, weights, cell, self.activation or "tanh", peepholes, self.cell_clip or 0.0)


def fused_lstm(b: CellBuilder, z: View, weights: View, cell: LstmCell) -> Unit:
    """An LSTM that is one primitive."""
    return b.fused((z,), (weights,), ("h", "c"), cell.hidden, LstmStep(cell))


def stepwise(
    b: CellBuilder,
    z: View,
    weights: View,
    cell: LstmCell,
    activation: str,
    peepholes: States | None = None,
    limit: float = 0.0,
) -> Unit:
    """An LSTM whose gates see the cell state, whose state is clipped, or with another activation."""
    hidden, seen_by = cell.hidden, peepholes or {}

    def seen(gate: str, part: View, state: View) -> View:
        return b.add(part, b.mul(seen_by[gate], state)) if gate in seen_by else part

    def step(now: Sequence[View], before: States) -> tuple[View, States]:
        total = b.add(now[0], b.recurrent_product(before["h"], weights, hidden, cell.recurrent))
        parts = b.blocks(total, cell.gates, hidden, cell.order)
        i = b.unary("sigmoid", seen("i", parts["i"], before["c"]))
        f = b.unary("sigmoid", b.add(seen("f", parts["f"], before["c"]), cell.forget_bias))
        c = b.add(b.mul(f, before["c"]), b.mul(i, b.activation(activation, parts["j"])))
        if limit:
            c = b.binary("maximum", b.binary("minimum", c, limit), -limit)
        o = b.unary("sigmoid", seen("o", parts["o"], c))
        h = b.mul(o, b.activation(activation, c))
        return h, {"h": h, "c": c}

    return Unit((z,), step)


CELLS = (Lstm, LowMemoryLstm, BasicLstm, StandardLstm)
