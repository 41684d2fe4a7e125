"""Weights of recurrent cells gate by gate, and between the layouts of different systems.

import returnn_lite as rl

gates = rl.weights.read(arrays, rl.weights.layout_of("lstm", "pytorch"))
arrays = rl.weights.write(gates, rl.weights.layout_of("lstm", "returnn"))

`read_layer` and `write_layer` do the same with a layer of a network, `read_stack` and `write_stack` with another
system's layers of several cells, and `from_vector` and `to_vector` with cuDNN's.
"""

from returnn_lite.weights.conversion import convert, read, sums, write
from returnn_lite.weights.cudnn import from_vector, to_vector
from returnn_lite.weights.gates import Gates, WeightsError
from returnn_lite.weights.layouts import LAYOUTS, Layout, layout_for, layout_of
from returnn_lite.weights.recurrent_layers import read_layer, write_layer
from returnn_lite.weights.stacks import Stack, read_stack, sums_of_stack, write_stack
from returnn_lite.weights.stored import StoredCell, stored_cells

__all__ = [
    "LAYOUTS",
    "Gates",
    "Layout",
    "Stack",
    "StoredCell",
    "WeightsError",
    "convert",
    "from_vector",
    "layout_for",
    "layout_of",
    "read",
    "read_layer",
    "read_stack",
    "stored_cells",
    "sums",
    "sums_of_stack",
    "to_vector",
    "write",
    "write_layer",
    "write_stack",
]
