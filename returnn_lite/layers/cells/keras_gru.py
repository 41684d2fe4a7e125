"""The gated recurrent unit with Keras' weights and dropout (Cho et al. 2014; Gal and Ghahramani 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from returnn_lite.config.options import Activation, option
from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.ops.recurrent_cells import ResetAfterGruCell, ResetAfterGruStep
from returnn_lite.ir.views import View
from returnn_lite.layers.activations import KERAS_3
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.gate_dropout import dropped, dropped_source, gate_masks, product_by_gates
from returnn_lite.layers.cells.unit import States, Unit


class KerasGru(
    Cell,
    names=("keras.gru", "keras.v1.gru", "keras.v2.gru", "keras.cudnngru"),
    presets={
        "keras.v1.gru": {"implementation": 1, "recurrent_activation": "hard_sigmoid", "reset_after": False},
        "keras.v2.gru": {"implementation": 2},
    },
):
    """z, r = sigmoid(x W + b + h R + b'); h' = z*h + (1-z)*activation(x W + b + r*(h R + b')).

    kernel [in, 3n], recurrent_kernel [n, 3n], orthogonal at first, bias [2, 3n] for x and h; gates z, r, h. Without
    `reset_after` the candidate is activation(x W + b + (r*h) R), and bias [3n].
    """

    paper = "Cho et al. 2014"
    functions: ClassVar[Mapping[str, Mapping[str, str]]] = {"keras.gru": KERAS_3}

    activation: Activation | None = option("that of the candidate; none: identity", default="tanh")
    recurrent_activation: Activation | None = option(
        "that of the gates; none: identity. hard_sigmoid is Keras 3's relu6(x + 3) / 6; with v1 or v2 in the name of "
        "the cell clip(x / 5 + 1/2, 0, 1)",
        default="sigmoid",
    )
    reset_after: bool = option("r is multiplied with the product of h and its weights, not with h", default=True)
    use_bias: bool = option("whether there are biases", default=True)
    dropout: float = option("of x in the products, one mask for all steps", default=0.0, least=0, below=1)
    recurrent_dropout: float = option("of h in the products, one mask for all steps", default=0.0, least=0, below=1)
    implementation: Literal[1, 2] | None = option(
        "1: dropout has a mask for each gate; 2: one for all, and the h of z*h is dropped, too; default: 1 with "
        "recurrent_dropout, else 2",
        default=None,
    )

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        gates = linear_dim([(out, 3)], 0)
        weights_x = b.param("kernel", (b.source(x), gates), b.inits.input)
        weights_h = b.param("recurrent_kernel", (b.rows(out), gates), b.inits.recurrent_or("orthogonal"))
        bias_x, bias_h = self._biases(b, gates)
        count = 3 if (self.implementation or (1 if self.recurrent_dropout else 2)) == 1 else 1
        seen_x = dropped_source(b, x, self.dropout, b.source(x), count)
        z = product_by_gates(b, seen_x, weights_x, gates, out, b.input_product)
        z = z if bias_x is None else b.add(z, bias_x)
        masks = gate_masks(b, "recurrent_dropout", self.recurrent_dropout, out, count)
        if not self._unlike_the_primitive(masks):
            cell = ResetAfterGruCell(out, weights_h.type.dims[0], gates, "urc")
            bias = b.constant(0.0, "float32", (gates,)) if bias_h is None else bias_h
            return b.fused((z,), (weights_h, bias), ("h",), out, ResetAfterGruStep(cell))

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            seen = dropped(b, before["h"], masks)
            parts = b.blocks(now[0], gates, out, "zrh")
            update, candidate = self._arithmetic(b, parts, seen, weights_h, bias_h, gates, out)
            kept = seen[0] if len(seen) == 1 else before["h"]
            h = b.mixture(update, kept, b.activation(self.activation, candidate))
            return h, {"h": h}

        return b.stepwise((z,), step, self._unlike_the_primitive(masks))

    def _unlike_the_primitive(self, masks: Sequence[View]) -> list[str]:
        """The options that say another function than that of the primitive."""
        said = {
            "reset_after": self.reset_after,
            "activation": self.activation == "tanh",
            "recurrent_activation": self.recurrent_activation == "sigmoid",
            "recurrent_dropout": not masks,
        }
        return [name for name, is_that in said.items() if not is_that]

    def _arithmetic(
        self,
        b: CellBuilder,
        from_x: States,
        seen: Sequence[View],
        weights: View,
        bias: View | None,
        gates: Dim,
        out: Dim,
    ) -> tuple[View, View]:
        """z, and what goes into the activation of the candidate, from the products of x and the h that each gate
        sees."""
        recurrent = weights.type.dims[0]

        def of_h(h: View, part: View) -> View:
            return b.recurrent_product(h, part, out, recurrent)

        def gate(name: str) -> View:
            return b.activation(self.recurrent_activation, b.add(from_x[name], from_h[name]))

        if self.reset_after:
            product = product_by_gates(b, seen, weights, gates, out, of_h)
            from_h = b.blocks(product if bias is None else b.add(product, bias), gates, out, "zrh")
            return gate("z"), b.add(from_x["h"], b.mul(gate("r"), from_h["h"]))
        both = linear_dim([(out, 2)], 0)
        product = product_by_gates(b, seen[:2], b.slice(weights, gates, 0, both), both, out, of_h)
        from_h = b.blocks(product, both, out, "zr")
        assert out.size is not None
        for_candidate = b.slice(weights, gates, 2 * out.size, out)
        return gate("z"), b.add(from_x["h"], of_h(b.mul(gate("r"), seen[-1]), for_candidate))

    def _biases(self, b: CellBuilder, gates: Dim) -> tuple[View | None, View | None]:
        """That of x and that of h."""
        if not self.use_bias:
            return None, None
        if not self.reset_after:
            return b.param("bias", (gates,), b.inits.bias), None
        rows = b.dim("biases", 2)
        bias = b.param("bias", (rows, gates), b.inits.bias)
        of_x, of_h = (b.with_feature(b.gather(bias, b.constant(i, "int32"), rows), gates) for i in range(2))
        return of_x, of_h


CELLS = (KerasGru,)
