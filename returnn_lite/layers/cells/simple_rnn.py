"""The simple recurrent network (Elman 1990)."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.config.options import Activation, option
from returnn_lite.dims import Dim
from returnn_lite.ir.ops.recurrence import SimpleRnnCell, SimpleRnnStep
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.gate_dropout import dropped, require_features
from returnn_lite.layers.cells.unit import States, Unit


class BasicRnn(Cell, names=("rnn", "basicrnn")):
    """h' = activation([x, h] kernel + bias)."""

    paper = "Elman 1990"

    activation: Activation | None = option("the activation function", default="tanh")
    use_bias: bool = option("whether there is a bias", default=True)

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        for_x, for_h = b.joint_kernel("basic_rnn_cell/kernel", x, b.rows(out), out)
        bias = b.param("basic_rnn_cell/bias", (out,), b.inits.bias) if self.use_bias else None
        return simple_rnn(b, b.input_product(x, for_x, bias), for_h, out, self.activation or "tanh")


class SimpleRnn(Cell, names=("simplernn",)):
    """Keras' form: h' = activation(x kernel + bias + h recurrent_kernel), with dropout of x and h in the products.

    kernel [in, n], recurrent_kernel [n, n], orthogonal at first, bias [n].
    """

    paper = "Elman 1990"

    activation: Activation | None = option("the activation function; null: none", default="tanh")
    use_bias: bool = option("whether there is a bias", default=True)
    dropout: float = option("of x, one mask for all steps of a sequence", default=0.0, least=0, below=1)
    recurrent_dropout: float = option("of h, one mask for all steps of a sequence", default=0.0, least=0, below=1)

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        require_features(b, x, self.dropout)
        mask_x = b.sequence_mask("dropout", self.dropout, b.source(x))
        (seen,) = dropped(b, x, [] if mask_x is None else [mask_x])
        bias = b.param("bias", (out,), b.inits.bias) if self.use_bias else None
        z = b.input_product(seen, b.param("kernel", (b.source(x), out), b.inits.input), bias)
        weights = b.param("recurrent_kernel", (b.rows(out), out), b.inits.recurrent_or("orthogonal"))
        mask = b.sequence_mask("recurrent_dropout", self.recurrent_dropout, out)
        return simple_rnn(b, z, weights, out, self.activation, mask)


def simple_rnn(
    b: CellBuilder, z: View, weights: View, out: Dim, activation: str | None, mask: View | None = None
) -> Unit:
    """h' = activation(z + (mask * h) weights)."""
    recurrent, _ = weights.type.dims
    if activation == "tanh" and mask is None:
        return b.fused((z,), (weights,), ("h",), out, SimpleRnnStep(SimpleRnnCell(out, recurrent)))

    def step(now: Sequence[View], before: States) -> tuple[View, States]:
        seen = before["h"] if mask is None else b.mul(before["h"], mask)
        h = b.activation(activation, b.add(now[0], b.recurrent_product(seen, weights, out, recurrent)))
        return h, {"h": h}

    return Unit((z,), step)


CELLS = (BasicRnn, SimpleRnn)
