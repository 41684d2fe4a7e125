"""Cells with one state, or with states that see each other elementwise."""

from __future__ import annotations

import tensorflow as tf

from keras_cells.formula import FormulaCell, Shape, lstm
from keras_cells.lstms import Result, States


class _Cell(FormulaCell):
    """The state h."""

    def __init__(self, units: int) -> None:
        super().__init__((units,))
        self.units = units


class BasicRnn(_Cell):
    """Elman's."""

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        return {
            "basic_rnn_cell/kernel": (features + self.units, self.units),
            "basic_rnn_cell/bias": (self.units,),
        }

    def call(self, x: tf.Tensor, states: States) -> Result:
        h = tf.tanh(self.affine("basic_rnn_cell/kernel", "basic_rnn_cell/bias", x, states[0]))
        return h, [h]


class Gru(_Cell):
    """The reset gate is before the product."""

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n = self.units
        found: dict[str, Shape] = {}
        for name, size in (("gates", 2 * n), ("candidate", n)):
            found |= {f"gru_cell/{name}/kernel": (features + n, size), f"gru_cell/{name}/bias": (size,)}
        return found

    def call(self, x: tf.Tensor, states: States) -> Result:
        h = states[0]
        r, u = tf.split(tf.sigmoid(self.affine("gru_cell/gates/kernel", "gru_cell/gates/bias", x, h)), 2, -1)
        candidate = tf.tanh(self.affine("gru_cell/candidate/kernel", "gru_cell/candidate/bias", x, r * h))
        h = u * h + (1.0 - u) * candidate
        return h, [h]


class GruAfter(_Cell):
    """The reset gate is behind the product."""

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n, folder = self.units, "gru_cell/candidate"
        found: dict[str, Shape] = {"gru_cell/gates/kernel": (features + n, 2 * n), "gru_cell/gates/bias": (2 * n,)}
        for name, size in (("input", features), ("hidden", n)):
            found |= {f"{folder}/{name}_projection/kernel": (size, n), f"{folder}/{name}_projection/bias": (n,)}
        return found

    def call(self, x: tf.Tensor, states: States) -> Result:
        h, folder = states[0], "gru_cell/candidate"
        r, u = tf.split(tf.sigmoid(self.affine("gru_cell/gates/kernel", "gru_cell/gates/bias", x, h)), 2, -1)
        of_x, of_h = (
            self.affine(f"{folder}/{name}_projection/kernel", f"{folder}/{name}_projection/bias", value)
            for name, value in (("input", x), ("hidden", h))
        )
        h = u * h + (1.0 - u) * tf.tanh(of_x + r * of_h)
        return h, [h]


class UpdateGateRnn(_Cell):
    """Collins'."""

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        return {"kernel": (features + self.units, 2 * self.units), "bias": (2 * self.units,)}

    def call(self, x: tf.Tensor, states: States) -> Result:
        h = states[0]
        g, c = tf.split(self.affine("kernel", "bias", x, h), 2, -1)
        g = tf.sigmoid(g + 1.0)
        h = g * h + (1.0 - g) * tf.tanh(c)
        return h, [h]


class IntersectionRnn(_Cell):
    """Gates in time and in depth."""

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        return {"kernel": (features + self.units, 4 * self.units), "bias": (4 * self.units,)}

    def call(self, x: tf.Tensor, states: States) -> Result:
        h = states[0]
        along_time, s, along_depth, y = tf.split(self.affine("kernel", "bias", x, h), 4, -1)
        along_time, along_depth = tf.sigmoid(along_time + 1.0), tf.sigmoid(along_depth + 1.0)
        h = along_time * h + (1.0 - along_time) * tf.tanh(s)
        return along_depth * x + (1.0 - along_depth) * tf.nn.relu(y), [h]


class RecurrentHighway(_Cell):
    """Several highways in a step."""

    def __init__(self, units: int, depth: int) -> None:
        super().__init__(units)
        self.depth = depth

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n = self.units
        depths: dict[str, Shape] = {f"rhn_cell/depth_{i}/W": (n, 2 * n) for i in range(self.depth)}
        return {"W": (features, 2 * n), "b": (2 * n,), **depths}

    def call(self, x: tf.Tensor, states: States) -> Result:
        s = states[0]
        for i in range(self.depth):
            z = tf.matmul(s, self[f"rhn_cell/depth_{i}/W"])
            if i == 0:
                z = z + tf.matmul(x, self["W"]) + self["b"]
            candidate, t = tf.split(z, 2, -1)
            t = tf.sigmoid(t)
            s = t * tf.tanh(candidate) + (1.0 - t) * s
        return s, [s]


class NeuralSearch(FormulaCell):
    """NAS cell."""

    def __init__(self, units: int) -> None:
        super().__init__((units,), (units,))
        self.units = units

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        return {"kernel": (features, 8 * self.units), "recurrent_kernel": (self.units, 8 * self.units)}

    def call(self, x: tf.Tensor, states: States) -> Result:
        m, c = states
        a = tf.split(tf.matmul(x, self["kernel"]), 8, -1)
        b = tf.split(tf.matmul(m, self["recurrent_kernel"]), 8, -1)
        first = [tf.sigmoid(a[k] + b[k]) if k in (0, 2, 5, 7) else None for k in range(8)]
        first[1], first[3] = tf.nn.relu(a[1] + b[1]), tf.nn.relu(a[3] * b[3])
        first[4], first[6] = tf.tanh(a[4] + b[4]), tf.tanh(a[6] + b[6])
        c = tf.tanh(tf.tanh(first[0] * first[1]) + c) * tf.tanh(first[2] + first[3])
        m = tf.tanh(c * tf.tanh(tf.tanh(first[4] * first[5]) + tf.sigmoid(first[6] + first[7])))
        return m, [m, c]


class SimpleRecurrentUnit(_Cell):
    """SRU: all products are those of the source."""

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        return {"kernel": (features, 4 * self.units), "bias": (2 * self.units,)}

    def call(self, x: tf.Tensor, states: States) -> Result:
        v, f, r, s = tf.split(tf.matmul(x, self["kernel"]), 4, -1)
        f, r = tf.split(tf.sigmoid(tf.concat([f, r], -1) + self["bias"]), 2, -1)
        c = f * states[0] + (1.0 - f) * v
        return r * tf.tanh(c) + (1.0 - r) * s, [c]


class IndependentRnn(_Cell):
    """h sees itself elementwise."""

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n = self.units
        return {"kernel_w": (features, n), "kernel_u": (n,), "bias": (n,)}

    def call(self, x: tf.Tensor, states: States) -> Result:
        h = tf.tanh(tf.matmul(x, self["kernel_w"]) + states[0] * self["kernel_u"] + self["bias"])
        return h, [h]


class IndyGru(_Cell):
    """A GRU whose h sees itself elementwise."""

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n = self.units
        gates: dict[str, Shape] = {
            "gates/kernel_w": (features, 2 * n),
            "gates/kernel_u": (2 * n,),
            "gates/bias": (2 * n,),
        }
        return gates | {"candidate/kernel": (features, n), "candidate/kernel_u": (n,), "candidate/bias": (n,)}

    def call(self, x: tf.Tensor, states: States) -> Result:
        h = states[0]
        z = tf.matmul(x, self["gates/kernel_w"]) + tf.tile(h, [1, 2]) * self["gates/kernel_u"] + self["gates/bias"]
        r, u = tf.split(tf.sigmoid(z), 2, -1)
        seen = r * h * self["candidate/kernel_u"]
        candidate = tf.tanh(tf.matmul(x, self["candidate/kernel"]) + seen + self["candidate/bias"])
        h = u * h + (1.0 - u) * candidate
        return h, [h]


class IndyLstm(FormulaCell):
    """An LSTM whose h sees itself elementwise."""

    def __init__(self, units: int) -> None:
        super().__init__((units,), (units,))
        self.units = units

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n = self.units
        return {"kernel_w": (features, 4 * n), "kernel_u": (4 * n,), "bias": (4 * n,)}

    def call(self, x: tf.Tensor, states: States) -> Result:
        h, c = states
        z = tf.matmul(x, self["kernel_w"]) + tf.tile(h, [1, 4]) * self["kernel_u"] + self["bias"]
        h, c = lstm(z, c, "ijfo", 1.0)
        return h, [h, c]


class MinimalRnn(_Cell):
    """Chen's."""

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n = self.units
        return {"kernel": (features, n), "bias": (n,), "gate/kernel": (2 * n, n), "gate/bias": (n,)}

    def call(self, x: tf.Tensor, states: States) -> Result:
        h = states[0]
        z = tf.tanh(self.affine("kernel", "bias", x))
        u = tf.sigmoid(self.affine("gate/kernel", "gate/bias", z, h))
        h = u * h + (1.0 - u) * z
        return h, [h]


class ChaosFreeNetwork(_Cell):
    """Laurent and von Brecht's."""

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n = self.units
        return {"kernel": (features, 3 * n), "recurrent_kernel": (n, 2 * n), "bias": (2 * n,)}

    def call(self, x: tf.Tensor, states: States) -> Result:
        h = states[0]
        *gates, new = tf.split(tf.matmul(x, self["kernel"]), 3, -1)
        z = tf.concat(gates, -1) + tf.matmul(h, self["recurrent_kernel"]) + self["bias"]
        t, i = tf.split(tf.sigmoid(z), 2, -1)
        h = t * tf.tanh(h) + i * tf.tanh(new)
        return h, [h]
