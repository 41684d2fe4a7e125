"""The recurrent network with a gate along time and one along depth (Collins et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.config.options import Activation, option
from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.unit import States, Unit


class IntersectionRnn(Cell, names=("intersection", "intersectionrnn")):
    """a, s, d, y = [x, h] kernel + bias; h' = sigmoid(a)*h + (1-sigmoid(a))*tanh(s), with forget_bias added to a and d;
    the output is sigmoid(d)*x + (1-sigmoid(d))*y_activation(y).

    kernel [2n, 4n], bias [4n]. A source of another size than n goes through in_projection/kernel [in, n] and
    in_projection/bias first.
    """

    paper = "Collins et al. 2016"

    num_in_proj: int | None = option(
        "set for a source of another size than the state, which is then projected to that; the number says no size",
        default=None,
        least=1,
    )
    forget_bias: float = option("what is added to both gates", default=1.0)
    y_activation: Activation | None = option("the activation function of the output", default="relu")

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        x, source = self._projected(b, x, out)
        recurrent = b.rows(out)
        gates = linear_dim([(out, 4)], 0)
        for_x, for_h = b.joint_kernel("kernel", x, recurrent, gates)
        z = b.input_product(x, for_x, b.param("bias", (gates,), b.inits.bias))
        deeper = b.with_feature(b.relabel(x, source, out, "the source of an intersection"), out)

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            total = b.add(now[0], b.recurrent_product(before["h"], for_h, out, recurrent))
            along_time, s, along_depth, y = b.blocks(total, gates, out, "asdy").values()
            h = b.mixture(self._gate(b, along_time), before["h"], b.unary("tanh", s))
            new = b.activation(self.y_activation, y)
            return b.mixture(self._gate(b, along_depth), now[1], new), {"h": h}

        return Unit((z, deeper), step)

    def _gate(self, b: CellBuilder, total: View) -> View:
        return b.unary("sigmoid", b.add(total, self.forget_bias))

    def _projected(self, b: CellBuilder, x: View, out: Dim) -> tuple[View, Dim]:
        """The source with as many features as the state, and the dim of these. Raises LayerError."""
        if x.type.sparse is None and b.feature_of(x).size == out.size:
            return x, b.feature_of(x)
        if self.num_in_proj is None:
            hint = f"Set 'num_in_proj': {out.size}, which projects it."
            b.fail(f"an intersection needs a source of {out.size} features, not {x.type}", hint)
        assert out.size is not None
        inner = b.dim("in_projection", out.size)
        weights = b.param("in_projection/kernel", (b.source(x), inner), b.inits.input)
        return b.input_product(x, weights, b.param("in_projection/bias", (inner,), b.inits.bias)), inner


CELLS = (IntersectionRnn,)
