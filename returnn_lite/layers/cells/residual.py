"""A cell whose source is added to its output (He et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.dims import Dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.unit import States, Unit
from returnn_lite.layers.cells.wrapping import Wrapper


class Residual(Wrapper, names=("residual",)):
    """y = x + cell(x). The source has as many features as the cell's output."""

    paper = "He et al. 2016"

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        if x.type.sparse is not None or b.feature_of(x).size != out.size:
            b.fail(f"a residual needs a source of {out.size} features, not {x.type}", "Put a linear layer before it.")
        if set(b.places(x.type)) != set(self.output(b, x.type, out)[:-1]):
            message = f"a residual needs an output with the spatial dims of the source, {x.type}"
            b.fail(message, "Pad it, and take no strides.")

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            y, after = self.inner_step(b, now[0], out, before)
            same = b.relabel(now[0], b.feature_of(now[0]), out, "the source of a residual")
            return b.add(b.with_feature(same, out), y), after

        return Unit((x,), step)


CELLS = (Residual,)
