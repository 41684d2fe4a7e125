"""LSTMs with products of x and h."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from keras_cells.formula import FormulaCell, Shape, gated, lstm

Result = tuple[tf.Tensor, list[tf.Tensor]]
States = Sequence[tf.Tensor]
NORMS = {"i": "input", "j": "transform", "f": "forget", "o": "output"}


class _Lstm(FormulaCell):
    """The states h and c."""

    def __init__(self, units: int) -> None:
        super().__init__((units,), (units,))
        self.units = units


class Lstm(_Lstm):
    """RETURNN's: two weights, gates j, i, f, o."""

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n = self.units
        return {"W": (features, 4 * n), "W_re": (n, 4 * n), "b": (4 * n,)}

    def call(self, x: tf.Tensor, states: States) -> Result:
        h, c = states
        h, c = lstm(tf.matmul(x, self["W"]) + tf.matmul(h, self["W_re"]) + self["b"], c, "jifo")
        return h, [h, c]


class StandardLstm(FormulaCell):
    """TensorFlow's, with peepholes and a clipped cell, or a projection."""

    def __init__(self, units: int, peephole: bool = False, clip: float | None = None, projection: int | None = None):
        super().__init__((projection or units,), (units,))
        self.units, self.peephole, self.clip, self.projection = units, peephole, clip, projection

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n, p = self.units, self.projection or self.units
        found: dict[str, Shape] = {"lstm_cell/kernel": (features + p, 4 * n), "lstm_cell/bias": (4 * n,)}
        if self.peephole:
            found |= {f"lstm_cell/w_{gate}_diag": (n,) for gate in "fio"}
        return found | ({"lstm_cell/projection/kernel": (n, p)} if self.projection else {})

    def call(self, x: tf.Tensor, states: States) -> Result:
        h, c = states
        i, j, f, o = tf.split(self.affine("lstm_cell/kernel", "lstm_cell/bias", x, h), 4, -1)
        if self.peephole:
            i, f = i + self["lstm_cell/w_i_diag"] * c, f + self["lstm_cell/w_f_diag"] * c
        c = tf.sigmoid(f + 1.0) * c + tf.sigmoid(i) * tf.tanh(j)
        if self.clip is not None:
            c = tf.clip_by_value(c, -self.clip, self.clip)
        h = tf.sigmoid(o + self["lstm_cell/w_o_diag"] * c if self.peephole else o) * tf.tanh(c)
        if self.projection:
            h = tf.matmul(h, self["lstm_cell/projection/kernel"])
        return h, [h, c]


class LayerNormLstm(_Lstm):
    """Each gate, and c, normalised by itself."""

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n = self.units
        norms = {f"{name}/{part}": (n,) for name in (*NORMS.values(), "state") for part in ("gamma", "beta")}
        return {"kernel": (features + n, 4 * n), **norms}

    def call(self, x: tf.Tensor, states: States) -> Result:
        h, c = states
        z = tf.split(self.affine("kernel", None, x, h), 4, -1)
        i, j, f, o = (
            self.normed(part, f"{name}/gamma", f"{name}/beta") for part, name in zip(z, NORMS.values(), strict=True)
        )
        c = tf.sigmoid(f + 1.0) * c + tf.sigmoid(i) * tf.tanh(j)
        c = self.normed(c, "state/gamma", "state/beta")
        h = tf.tanh(c) * tf.sigmoid(o)
        return h, [h, c]


class JointNormLstm(_Lstm):
    """All gates normalised together."""

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n = self.units
        return {
            "kernel": (features + n, 4 * n),
            "bias": (4 * n,),
            "norm/gamma": (4 * n,),
            "norm/beta": (4 * n,),
        }

    def call(self, x: tf.Tensor, states: States) -> Result:
        h, c = states
        z = self.normed(self.affine("kernel", "bias", x, h), "norm/gamma", "norm/beta", 1e-4)
        h, c = lstm(z, c, "ijfo")
        return h, [h, c]


class NormVariantsLstm(_Lstm):
    """The products of x and h, and c, normalised by themselves."""

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n = self.units
        gates = dict.fromkeys(("gamma_input_below", "beta_input_below", "gamma_state_below"), (4 * n,))
        return {"W_ff": (features, 4 * n), "W_re": (n, 4 * n), **gates, "gamma_new_c": (n,), "beta_new_c": (n,)}

    def call(self, x: tf.Tensor, states: States) -> Result:
        h, c = states
        of_x = self.normed(tf.matmul(x, self["W_ff"]), "gamma_input_below", "beta_input_below")
        of_h = self.normed(tf.matmul(h, self["W_re"]), "gamma_state_below", None)
        i, j, f, o = tf.split(of_x + of_h, 4, -1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(j)
        c = self.normed(c, "gamma_new_c", "beta_new_c")
        h = tf.sigmoid(o) * tf.tanh(c)
        return h, [h, c]


class MultiplicativeLstm(_Lstm):
    """The products of x and h multiplied; with a norm of all gates or without."""

    def __init__(self, units: int, norm: bool = False) -> None:
        super().__init__(units)
        self.norm = norm

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n = self.units
        vectors = ("alpha", "beta1", "beta2", "b", *(("norm/gamma", "norm/beta") if self.norm else ()))
        return {"W": (features, 4 * n), "W_re": (n, 4 * n), **dict.fromkeys(vectors, (4 * n,))}

    def call(self, x: tf.Tensor, states: States) -> Result:
        h, c = states
        u, p = tf.matmul(x, self["W"]), tf.matmul(h, self["W_re"])
        z = (self["alpha"] * u + self["beta1"]) * p + self["beta2"] * u + self["b"]
        if self.norm:
            z = self.normed(z, "norm/gamma", "norm/beta", 1e-4)
        h, c = lstm(z, c, "jifo")
        return h, [h, c]


class CoupledLstm(_Lstm):
    """The input gate is what the forget gate leaves."""

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        return {"kernel": (features + self.units, 3 * self.units), "bias": (3 * self.units,)}

    def call(self, x: tf.Tensor, states: States) -> Result:
        h, c = states
        j, f, o = tf.split(self.affine("kernel", "bias", x, h), 3, -1)
        f = tf.sigmoid(f + 1.0)
        c = f * c + (1.0 - f) * tf.tanh(j)
        h = tf.sigmoid(o) * tf.tanh(c)
        return h, [h, c]


class ZoneoutLstm(_Lstm):
    """A tenth of the elements of the states keep their values, drawn at each step."""

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n = self.units
        return {"lstm_cell/kernel": (features + n, 4 * n), "lstm_cell/bias": (4 * n,)}

    def call(self, x: tf.Tensor, states: States) -> Result:
        z = self.affine("lstm_cell/kernel", "lstm_cell/bias", x, states[0])
        new = lstm(z, states[1], "ijfo", 1.0)
        h, c = (
            tf.where(tf.random.uniform(tf.shape(value)) < 0.1, old, value)
            for old, value in zip(states, new, strict=True)
        )
        return h, [h, c]


class GroupLstm(_Lstm):
    """Groups of features that see each other only in the output."""

    def __init__(self, units: int, groups: int) -> None:
        super().__init__(units)
        self.groups = groups

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n, groups = self.units, self.groups
        return {"kernel": (groups, (features + n) // groups, 4 * n // groups), "bias": (4 * n,)}

    def call(self, x: tf.Tensor, states: States) -> Result:
        h, c = states
        parts = zip(tf.split(x, self.groups, -1), tf.split(h, self.groups, -1), strict=True)
        kernels = tf.unstack(self["kernel"])
        z = [tf.matmul(tf.concat(part, -1), kernel) for part, kernel in zip(parts, kernels, strict=True)]
        by_gate = zip(*(tf.split(part, 4, -1) for part in z), strict=True)
        biases = tf.split(self["bias"], 4)
        gates = [tf.concat(parts, -1) + bias for parts, bias in zip(by_gate, biases, strict=True)]
        h, c = gated(dict(zip("ijfo", gates, strict=True)), c, 1.0)
        return h, [h, c]


class PhasedLstm(_Lstm):
    """The first feature of the source is the time."""

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n, rows = self.units, features - 1 + self.units
        kernels = {"mask_gates": 2 * n, "new_input": n, "output_gate": n}
        found: dict[str, Shape] = {}
        for name, size in kernels.items():
            found |= {f"{name}/kernel": (rows, size), f"{name}/bias": (size,)}
        return found | dict.fromkeys(("period", "phase", "ratio_on"), (n,))

    def call(self, x: tf.Tensor, states: States) -> Result:
        time, x = x[:, :1], x[:, 1:]
        h, c = states
        i, f = tf.split(tf.sigmoid(self.affine("mask_gates/kernel", "mask_gates/bias", x, h)), 2, -1)
        new_c = f * c + i * tf.tanh(self.affine("new_input/kernel", "new_input/bias", x, h))
        new_h = tf.sigmoid(self.affine("output_gate/kernel", "output_gate/bias", x, h)) * tf.tanh(new_c)
        k = self._openness(time)
        h, c = k * new_h + (1.0 - k) * h, k * new_c + (1.0 - k) * c
        return h, [h, c]

    def _openness(self, time: tf.Tensor) -> tf.Tensor:
        period, ratio = self["period"], self["ratio_on"]
        phi = tf.math.floormod(time - self["phase"], tf.stop_gradient(period)) / period
        up = 2.0 * phi / ratio
        return tf.where(phi < ratio / 2.0, up, tf.where(phi < ratio, 2.0 - up, 0.001 * phi))
