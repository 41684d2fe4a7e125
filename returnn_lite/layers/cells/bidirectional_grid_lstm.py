"""Two grid LSTMs, one up and one down the frequency axis (Li and Sainath 2016)."""

from __future__ import annotations

from returnn_lite.config.options import option
from returnn_lite.dims import Dim, MarkedType, linear_dim
from returnn_lite.ir.ops.axes import Pad
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.grid_lstm import Grid, side_by_side, with_out
from returnn_lite.layers.cells.unit import DimsOfStates, Unit
from returnn_lite.layers.cells.wrapping import below


class BidirectionalGridLstm(Grid, names=("bidirectionalgridlstm",)):
    """A grid LSTM whose steps go up (fwd), beside one whose steps go down (bwd), each with weights of its own.

    The output is that of fwd and then that of bwd, each in the order of its steps: for bwd the top window comes first,
    and its states count from there. States and parameters are those of the grid LSTM below fwd/ and bwd/. With
    backward_slice_offset o > 0 the windows of bwd begin o features later, with zeros behind the last feature; with
    o < 0 there are -o zeros before the first, and windows begin as they would in what that makes.
    """

    directions = 2

    backward_slice_offset: int = option("moves the windows of bwd, over zeros at the end that it goes over", default=0)

    def state_keys(self) -> tuple[str, ...]:
        own = super().state_keys()
        return tuple(f"{direction}/{key}" for direction in ("fwd", "bwd") for key in own)

    def states(self, b: CellBuilder, x: MarkedType, out: Dim) -> DimsOfStates:
        fwd, bwd = super().states(b.inside("fwd"), x, out), super().states(b.inside("bwd"), x, out)
        return {**below("fwd", fwd), **below("bwd", bwd)}

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        starts, offset = self.starts(b, x), self.backward_slice_offset
        downwards = [[start + max(offset, 0) for start in reversed(own)] for own in starts]
        both = {
            "fwd": self.blocks(b.inside("fwd"), x, starts, out),
            "bwd": self.blocks(b.inside("bwd"), _padded(b, x, offset), downwards, out),
        }
        return with_out(b, side_by_side(b, both), out)


def _padded(b: CellBuilder, x: View, offset: int) -> View:
    """x with zeros behind its features, or before them for a negative offset."""
    if not offset:
        return x
    feature = b.feature_of(x)
    left, right = max(-offset, 0), max(offset, 0)
    padded = linear_dim([(feature, 1)], left + right)
    return b.with_feature(b.apply(Pad(feature, padded, left, right), x), padded)


CELLS = (BidirectionalGridLstm,)
