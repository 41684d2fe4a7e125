"""Cells whose output is a linear map of what they compute (Sak et al. 2014)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from returnn_lite.config.options import option
from returnn_lite.dims import Dim, MarkedType
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.unit import DimsOfStates


@dataclass(frozen=True)
class Projection:
    """m [hidden] times weights [rows, out], clipped to `limit`."""

    weights: View
    hidden: Dim
    rows: Dim
    limit: float | None = None

    def of(self, b: CellBuilder, m: View) -> View:
        return b.clipped(b.recurrent_product(m, self.weights, self.hidden, self.rows), self.limit)


class Projected(Cell):
    """A cell with the states c, of the size `units`, and h, the output: of the size `projection` if that is set."""

    keys = ("h", "c")
    old_options: ClassVar[Mapping[str, str]] = {**Cell.old_options, "num_proj": "projection", "proj_size": "projection"}

    projection: int | None = option(
        "size of the output and of h, which are then a product with weights; default: that of the state",
        default=None,
        least=1,
    )

    def out_size(self) -> int | None:
        return self.projection or self.units

    def states(self, b: CellBuilder, x: MarkedType, out: Dim) -> DimsOfStates:
        return {"h": (out,), "c": (self.hidden(b, out),)}

    def hidden(self, b: CellBuilder, out: Dim) -> Dim:
        """The dim of c. Raises LayerError if only the size of the projection is known."""
        if self.projection is None:
            return out
        if self.units is None:
            b.fail("'projection' is the size of the output, and that of the state is not known", "Add 'units'.")
        return b.dim("units", self.units)

    def projector(self, b: CellBuilder, name: str, out: Dim, limit: float | None = None) -> Projection | None:
        """The projection, with the parameter `name` [units, projection]; None if there is none."""
        if self.projection is None:
            return None
        hidden = self.hidden(b, out)
        rows = b.rows(hidden, "projected")
        return Projection(b.param(name, (rows, out), b.inits.input), hidden, rows, limit)
