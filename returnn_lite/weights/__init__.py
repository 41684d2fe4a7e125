"""Weights of recurrent cells gate by gate, and between the layouts of different systems.

import returnn_lite as rl

gates = rl.weights.read(arrays, rl.weights.layout_of("lstm", "pytorch"))
arrays = rl.weights.write(gates, rl.weights.layout_of("lstm", "returnn"))
"""

from returnn_lite.weights.cudnn import from_vector, to_vector
from returnn_lite.weights.gates import Gates, WeightsError
from returnn_lite.weights.layouts import LAYOUTS, Layout, convert, layout_of, read, write
from returnn_lite.weights.stored import StoredCell, stored_cells

__all__ = [
    "LAYOUTS",
    "Gates",
    "Layout",
    "StoredCell",
    "WeightsError",
    "convert",
    "from_vector",
    "layout_of",
    "read",
    "stored_cells",
    "to_vector",
    "write",
]
