"""The simple recurrent network (Elman 1990)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from returnn_lite.config.options import Activation, option
from returnn_lite.dims import Dim
from returnn_lite.ir.ops.recurrent_cells import SimpleRnnCell, SimpleRnnStep
from returnn_lite.ir.views import View
from returnn_lite.layers.activations import KERAS_3
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.gate_dropout import dropped, dropped_source, gate_masks
from returnn_lite.layers.cells.unit import States, Unit

FUSED = ("tanh", "relu", "sigmoid")
"""The functions with which it is one primitive."""


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


class SimpleRnn(Cell, names=("simplernn", "keras.simplernn", "keras.v1.simplernn", "keras.v2.simplernn")):
    """Keras' form: h' = activation(x kernel + bias + h recurrent_kernel), with dropout of x and h in the products.

    kernel [in, n], recurrent_kernel [n, n], orthogonal at first, bias [n].
    """

    paper = "Elman 1990"
    functions: ClassVar[Mapping[str, Mapping[str, str]]] = {"keras.simplernn": KERAS_3}

    activation: Activation | None = option(
        "the activation function; none: identity. hard_sigmoid is Keras 3's relu6(x + 3) / 6 in keras.simplernn, else "
        "clip(x / 5 + 1/2, 0, 1)",
        default="tanh",
    )
    use_bias: bool = option("whether there is a bias", default=True)
    dropout: float = option("of x, one mask for all steps of a sequence", default=0.0, least=0, below=1)
    recurrent_dropout: float = option("of h, one mask for all steps of a sequence", default=0.0, least=0, below=1)

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        (seen,) = dropped_source(b, x, self.dropout, b.source(x), 1)
        bias = b.param("bias", (out,), b.inits.bias) if self.use_bias else None
        z = b.input_product(seen, b.param("kernel", (b.source(x), out), b.inits.input), bias)
        weights = b.param("recurrent_kernel", (b.rows(out), out), b.inits.recurrent_or("orthogonal"))
        masks = gate_masks(b, "recurrent_dropout", self.recurrent_dropout, out, 1)
        return simple_rnn(b, z, weights, out, self.activation, masks)


def simple_rnn(
    b: CellBuilder, z: View, weights: View, out: Dim, activation: str | None, masks: Sequence[View] = ()
) -> Unit:
    """h' = activation(z + h weights); h is masked in the product."""
    recurrent, _ = weights.type.dims
    if activation in FUSED and not masks:
        return b.fused((z,), (weights,), ("h",), out, SimpleRnnStep(SimpleRnnCell(out, recurrent, activation)))

    def step(now: Sequence[View], before: States) -> tuple[View, States]:
        (seen,) = dropped(b, before["h"], masks)
        h = b.activation(activation, b.add(now[0], b.recurrent_product(seen, weights, out, recurrent)))
        return h, {"h": h}

    other_function = [] if activation in FUSED else ["activation"]
    return b.stepwise((z,), step, [*other_function, *(["recurrent_dropout"] if masks else [])])


CELLS = (BasicRnn, SimpleRnn)
