"""The recurrent highway network (Zilly et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.config.options import option
from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.unit import States, Unit


class RecurrentHighway(Cell, names=("rhn",)):
    """s' = t * tanh(candidate) + (1 - t) * s, `depth` times in each step; the source is seen by the first.

    W [in, 2n], b [2n], rhn_cell/depth_<i>/W [n, 2n]; blocks candidate, t.
    """

    paper = "Zilly et al. 2017"

    depth: int = option("how often the highway is passed in each step", default=5, least=1)
    dropout: float = option(
        "of the s that is multiplied with weights, one mask for all steps and depths",
        default=0.0,
        least=0,
        below=1,
    )
    transform_bias: float | None = option("what the part of b for t starts with", default=None)

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        recurrent = b.rows(out)
        gates = linear_dim([(out, 2)], 0)
        bias = b.param("b", (gates,), b.bias_blocks("transform_bias", (0.0, self.transform_bias or 0.0)))
        z = b.input_product(x, b.param("W", (b.source(x), gates), b.inits.input), bias)
        names = [f"rhn_cell/depth_{i}/W" for i in range(self.depth)]
        weights = [b.param(name, (recurrent, gates), b.inits.recurrent) for name in names]
        mask = b.sequence_mask("dropout", self.dropout, out)

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            s = before["h"]
            for i, w in enumerate(weights):
                total = b.recurrent_product(s if mask is None else b.mul(s, mask), w, out, recurrent)
                if i == 0:
                    total = b.add(now[0], total)
                candidate, carry = b.blocks(total, gates, out, "ct").values()
                t = b.unary("sigmoid", carry)
                s = b.mixture(t, b.unary("tanh", candidate), s)
            return s, {"h": s}

        return Unit((z,), step)


CELLS = (RecurrentHighway,)
