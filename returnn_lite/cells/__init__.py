"""Recurrent cells for Keras 3 and for TensorFlow's loops: every unit of `rec`, with the same weights.

    from returnn_lite.cells import LSTM, Cell

    layer = keras.layers.RNN(LSTM(64, peephole=True), return_sequences=True)
    layer = keras.layers.RNN(Cell([{"class": "lstm", "units": 64}, {"class": "gru", "units": 32}]))

`Cell` takes what the option `unit` may be. Each name of a unit is a class here, too, however it is written: `LSTM`,
`LSTMCell`, `LayerNormLSTM`. Importing this package imports Keras and TensorFlow; `returnn_lite` itself does not.
"""

from __future__ import annotations

from returnn_lite.cells.cell import Cell
from returnn_lite.cells.classes import CLASSES, NamedCell, class_called
from returnn_lite.cells.rnn import RNN

__all__ = ["RNN", "Cell"]


def __getattr__(name: str) -> type[NamedCell]:
    found = None if name.startswith("_") else class_called(name)
    if found is None:
        raise AttributeError(f"there is no cell '{name}'; there are {', '.join(sorted(CLASSES))}")
    return found


def __dir__() -> list[str]:
    return [*__all__, *CLASSES]
