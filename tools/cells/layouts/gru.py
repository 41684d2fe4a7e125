"""GRUs and simple recurrent networks."""

from tools.cells.layouts.layout import Layout

LAYOUTS = {
    ("tf", "BasicRNNCell"): Layout(folder="basic_rnn_cell/"),
    ("tf", "GRUCell"): Layout(folder="gru_cell/"),
}
