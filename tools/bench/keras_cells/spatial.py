"""LSTMs along frequency, and at the places of a map."""

from __future__ import annotations

import tensorflow as tf

from keras_cells.formula import FormulaCell, Shape, lstm
from keras_cells.lstms import Result, States


class TimeFrequencyLstm(FormulaCell):
    """One LSTM at windows of the features, the lowest first."""

    def __init__(self, units: int, windows: int) -> None:
        super().__init__((windows * units,), (windows * units,))
        self.units, self.windows = units, windows

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n = self.units
        return {"W": (features // self.windows + 2 * n, 4 * n), "B": (4 * n,)}

    def call(self, x: tf.Tensor, states: States) -> Result:
        parts = zip(*(tf.split(value, self.windows, -1) for value in (x, *states)), strict=True)
        below = tf.zeros((tf.shape(x)[0], self.units))
        hidden, cells = [], []
        for window, h, c in parts:
            below, c = lstm(self.affine("W", "B", window, h, below), c, "ijfo", 1.0)
            hidden.append(below)
            cells.append(c)
        return tf.concat(hidden, -1), [tf.concat(hidden, -1), tf.concat(cells, -1)]


class GridLstm(FormulaCell):
    """An LSTM in time and one along frequency; with one grid up, or one up and one down beside it."""

    def __init__(self, units: int, windows: int, directions: tuple[str, ...] = ("",)) -> None:
        size = (windows * units,)
        super().__init__(*(size for _ in directions for _ in range(2)), output=2 * windows * units * len(directions))
        self.units, self.windows, self.directions = units, windows, directions

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n = self.units
        found: dict[str, Shape] = {}
        for direction in self.directions:
            for name in ("f", "t"):
                kernel = (features // self.windows + 2 * n, 4 * n)
                found |= {f"{direction}0/W_{name}": kernel, f"{direction}0/B_{name}": (4 * n,)}
        return found

    def call(self, x: tf.Tensor, states: States) -> Result:
        windows = tf.split(x, self.windows, -1)
        outputs, after = [], []
        for number, direction in enumerate(self.directions):
            own = windows if number == 0 else windows[::-1]
            output, *new = self._grid(direction, own, *states[2 * number : 2 * number + 2])
            outputs.append(output)
            after += new
        return tf.concat(outputs, -1), after

    def _grid(
        self, direction: str, windows: list[tf.Tensor], h: tf.Tensor, c: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        m_f = c_f = tf.zeros((tf.shape(h)[0], self.units))
        outputs, hidden, cells = [], [], []
        split = zip(windows, tf.split(h, self.windows, -1), tf.split(c, self.windows, -1), strict=True)
        for window, m_t, c_t in split:
            z_f = self.affine(f"{direction}0/W_f", f"{direction}0/B_f", window, m_t, m_f)
            z_t = self.affine(f"{direction}0/W_t", f"{direction}0/B_t", window, m_t, m_f)
            m_f, c_f = lstm(z_f, c_f, "ijfo", 1.0)
            m_t, c_t = lstm(z_t, c_t, "ijfo", 1.0)
            outputs += [m_t, m_f]
            hidden.append(m_t)
            cells.append(c_t)
        return tf.concat(outputs, -1), tf.concat(hidden, -1), tf.concat(cells, -1)


class ConvLstm(FormulaCell):
    """TensorFlow's: one convolution over x and h."""

    def __init__(self, channels: int, places: Shape, kernel: int) -> None:
        super().__init__((*places, channels), (*places, channels))
        self.channels, self.kernel = channels, (kernel,) * len(places)

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n = self.channels
        return {"kernel": (*self.kernel, features + n, 4 * n), "biases": (4 * n,)}

    def call(self, x: tf.Tensor, states: States) -> Result:
        h, c = states
        z = tf.nn.convolution(tf.concat([x, h], -1), self["kernel"], padding="SAME") + self["biases"]
        h, c = lstm(z, c, "ijfo", 1.0)
        return h, [h, c]
