"""LSTMs with attention."""

from __future__ import annotations

import tensorflow as tf

from keras_cells.formula import FormulaCell, Shape, lstm
from keras_cells.lstms import Result, StandardLstm, States


class LstmAttention(FormulaCell):
    """Attention to an encoder [B, S, E], given before the layer runs."""

    def __init__(self, units: int, frames: int, encoder: int, kind: str) -> None:
        coverage = ((frames,),) if kind == "soft_coverage" else ()
        super().__init__((units,), (units,), (encoder,), *coverage)
        self.units, self.encoder_size, self.kind = units, encoder, kind
        self.encoder = self.keys = self.coverage = None

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n, e = self.units, self.encoder_size
        found: dict[str, Shape] = {"W": (features, 4 * n), "W_re": (n + e, 4 * n), "b": (4 * n,)}
        if self.kind == "dot":
            return found
        more = {"recurrent": {"previous_context": e}, "soft_coverage": {"coverage": e}}.get(self.kind, {})
        for name, rows in {"keys": e, "query": n, **more}.items():
            found |= {f"{name}/W": (rows, e), f"{name}/b": (e,)}
        return found | {"v": (e,)}

    def attend_to(self, encoder: tf.Tensor) -> None:
        """Computes once what no step changes."""
        self.encoder = encoder
        if self.kind != "dot":
            self.keys = tf.matmul(encoder, self["keys/W"]) + self["keys/b"]
        if self.kind == "soft_coverage":
            self.coverage = tf.matmul(encoder, self["coverage/W"]) + self["coverage/b"]

    def call(self, x: tf.Tensor, states: States) -> Result:
        h, c, context, *covered = states
        z = tf.matmul(x, self["W"]) + tf.matmul(tf.concat([h, context], -1), self["W_re"]) + self["b"]
        h, c = lstm(z, c, "jifo")
        weights = tf.nn.softmax(self._energy(h, context, *covered), -1)
        context = tf.einsum("bs,bse->be", weights, self.encoder)
        return h, [h, c, context, *(before + weights for before in covered)]

    def _energy(self, h: tf.Tensor, context: tf.Tensor, covered: tf.Tensor | None = None) -> tf.Tensor:
        if self.kind == "dot":
            return tf.einsum("bse,be->bs", self.encoder, h)
        query = self.affine("query/W", "query/b", h)
        if self.kind == "recurrent":
            query += self.affine("previous_context/W", "previous_context/b", context)
        total = self.keys + query[:, None]
        if covered is not None:
            total += self.coverage * covered[:, :, None]
        return tf.einsum("bse,e->bs", tf.tanh(total), self["v"])


class IntraAttention(FormulaCell):
    """An LSTM with attention to its last outputs."""

    def __init__(self, units: int, length: int) -> None:
        super().__init__((units,), (units,), (units,), (length, units))
        self.units = units
        self.cell = StandardLstm(units)

    def weight_shapes(self, features: int) -> dict[str, Shape]:
        n = self.units
        return {
            "kernel": (features + n, features),
            "bias": (features,),
            "attention/attn_w": (n, n),
            "attention/kernel": (2 * n, n),
            "attention/bias": (n,),
            "attention/attn_v": (n,),
            "attn_output_projection/kernel": (2 * n, n),
            "attn_output_projection/bias": (n,),
        }

    def build(self, input_shape: Shape) -> None:
        """The cell inside, too."""
        super().build(input_shape)
        self.cell.build(input_shape)
        self.weights_by_name |= {f"cell/{name}": weight for name, weight in self.cell.weights_by_name.items()}

    def call(self, x: tf.Tensor, states: States) -> Result:
        h, c, context, memory = states
        y, (h, c) = self.cell(self.affine("kernel", "bias", x, context), [h, c])
        query = self.affine("attention/kernel", "attention/bias", c, h)
        seen = tf.einsum("blv,vw->blw", memory, self["attention/attn_w"])
        energy = tf.einsum("blw,w->bl", tf.tanh(seen + query[:, None]), self["attention/attn_v"])
        context = tf.einsum("bl,blv->bv", tf.nn.softmax(energy, -1), memory)
        output = self.affine("attn_output_projection/kernel", "attn_output_projection/bias", y, context)
        return output, [h, c, context, tf.concat([memory[:, 1:], output[:, None]], 1)]
