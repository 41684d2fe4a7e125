"""Convolutional LSTMs."""

from tools.cells.layouts.gru import masks_of_gates
from tools.cells.layouts.layout import Layout

TF = ("ConvLSTMCell", "Conv1DLSTMCell", "Conv2DLSTMCell", "Conv3DLSTMCell")
LAYOUTS = {
    **{("tf", name): Layout(("c", "h")) for name in TF},
    ("keras", "ConvLSTM2D"): Layout(("h", "c"), masks=masks_of_gates(4)),
}
