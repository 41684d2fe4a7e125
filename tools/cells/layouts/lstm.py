"""LSTMs."""

from tools.cells.layouts.layout import Layout

LAYOUTS = {
    ("tf", "BasicLSTMCell"): Layout(("c", "h"), folder="basic_lstm_cell/"),
    ("tf", "CudnnCompatibleLSTMCell"): Layout(("c", "h"), folder="lstm_cell/"),
    ("tf", "LSTMBlockCell"): Layout(("c", "h"), folder="lstm_cell/"),
    ("tf", "LSTMBlockFusedCell"): Layout(("c", "h"), folder="lstm_cell/"),
    ("tf", "LSTMCell"): Layout(("c", "h"), folder="lstm_cell/"),
}
