"""The cell that neural architecture search found (Zoph and Le 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.config.options import option
from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.projected import Projected
from returnn_lite.layers.cells.unit import States, Unit

FIRST = ("sigmoid", "relu", "sigmoid", "relu", "tanh", "sigmoid", "tanh", "sigmoid")
"""The functions of the eight sums; the fourth is of a product instead."""
OF_PRODUCT = 3


class NeuralSearch(Projected, names=("nas",)):
    """Eight functions of a = x kernel and m = h recurrent_kernel + bias, put together in pairs:

    c' = tanh(tanh(l0*l1) + c) * tanh(l2 + l3); h' = tanh(c' * tanh(tanh(l4*l5) + sigmoid(l6 + l7))), which times
    projection_weights [n, p] is the output with a `projection`. kernel [in, 8n], recurrent_kernel [p, 8n].
    """

    paper = "Zoph and Le 2017"

    use_bias: bool = option("whether the product of h has a bias [8n]", default=False)

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        hidden, recurrent = self.hidden(b, out), b.rows(out)
        sums = linear_dim([(hidden, 8)], 0)
        z = b.input_product(x, b.param("kernel", (b.source(x), sums), b.inits.input))
        weights = b.param("recurrent_kernel", (recurrent, sums), b.inits.recurrent)
        bias = b.param("bias", (sums,), b.inits.bias) if self.use_bias else None
        projection = self.projector(b, "projection_weights", out)

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            m = b.recurrent_product(before["h"], weights, out, recurrent)
            first = self._first(b, now[0], m if bias is None else b.add(m, bias), sums, hidden)
            c, h = self._second(b, first, before["c"])
            h = h if projection is None else projection.of(b, h)
            return h, {"h": h, "c": c}

        return Unit((z,), step)

    def _first(self, b: CellBuilder, a: View, m: View, sums: Dim, hidden: Dim) -> list[View]:
        """l0 to l7."""
        names = [str(i) for i in range(len(FIRST))]
        parts = b.blocks(b.add(a, m), sums, hidden, names)
        product = b.mul(*(self._block(b, of, sums, hidden, OF_PRODUCT) for of in (a, m)))
        parts[names[OF_PRODUCT]] = b.with_feature(product, hidden)
        return [b.unary(function, parts[name]) for name, function in zip(names, FIRST, strict=True)]

    def _block(self, b: CellBuilder, sum_: View, sums: Dim, hidden: Dim, place: int) -> View:
        assert hidden.size is not None
        return b.slice(sum_, sums, place * hidden.size, hidden)

    def _second(self, b: CellBuilder, first: Sequence[View], c: View) -> tuple[View, View]:
        """c' and h' of l0 to l7 and c."""
        l0, l1, l2, l3, l4, l5, l6, l7 = first
        kept = b.unary("tanh", b.add(b.unary("tanh", b.mul(l0, l1)), c))
        c = b.mul(kept, b.unary("tanh", b.add(l2, l3)))
        seen = b.add(b.unary("tanh", b.mul(l4, l5)), b.unary("sigmoid", b.add(l6, l7)))
        return c, b.unary("tanh", b.mul(c, b.unary("tanh", seen)))


CELLS = (NeuralSearch,)
