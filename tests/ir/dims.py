"""The dims and cells that the tests of primitives are about, and short names of types over them."""

from __future__ import annotations

from returnn_lite.dims import Dim, DimKind, MarkedType, Symbol
from returnn_lite.ir.ops.planes import PlaneLstmCell
from returnn_lite.ir.ops.recurrent_cells import GruCell, LstmCell, ResetAfterGruCell, SimpleRnnCell

B = Symbol("B", DimKind.BATCH)
T = Symbol("T", varies_over=(B,))
S = Symbol("S", varies_over=(B,))
F = Symbol("F", DimKind.FEATURE, 4)
FOUR = Symbol("four", DimKind.FEATURE, 4)
G = Symbol("G", DimKind.FEATURE, 6)
V = Symbol("V", DimKind.FEATURE, 5)
K = Symbol("K", DimKind.BEAM, 3)
WIDTH = Symbol("width", DimKind.SPATIAL, 3)
TWO = Symbol("two", DimKind.SPATIAL, 2)
ONE = Symbol("one", DimKind.SPATIAL, 1)
NEW = Symbol("new", varies_over=(B,))
HIDDEN = Symbol("hidden", DimKind.FEATURE, 2)
ROWS = Symbol("rows", DimKind.FEATURE, 2)
GATES = Symbol("4*hidden", DimKind.FEATURE, 8)
GATES2 = Symbol("2*hidden", DimKind.FEATURE, 4)
GATES3 = Symbol("3*hidden", DimKind.FEATURE, 6)
LSTM = LstmCell(HIDDEN, ROWS, GATES)
GRU = GruCell(HIDDEN, ROWS, GATES2)
RESET_AFTER_GRU = ResetAfterGruCell(HIDDEN, ROWS, GATES3)
RNN = SimpleRnnCell(HIDDEN, ROWS)
GATES5 = Symbol("5*hidden", DimKind.FEATURE, 10)
PLANE = PlaneLstmCell(HIDDEN, ROWS, GATES5, S)


def floats(*dims: Dim) -> MarkedType:
    """A float32 type with the feature and time markers that its dims suggest."""
    time = next((dim for dim in dims if dim in (T, S)), None)
    return MarkedType(
        dims, feature=next((dim for dim in reversed(dims) if dim.kind is DimKind.FEATURE), None), time=time
    )


def ints(*dims: Dim, of: Dim | None = None) -> MarkedType:
    """An int32 type."""
    return MarkedType(dims, "int32", of)


def bools(*dims: Dim) -> MarkedType:
    """A bool type."""
    return MarkedType(dims, "bool")


X = floats(B, T, F)
