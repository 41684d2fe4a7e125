"""The worker of Keras (on TensorFlow): its LSTM layer, the Transformer decoder from its attention layers, and cells.

Keras 3 gives the cells of its RNN no constants any more, so the attention decoder is nothing it has.
"""

from __future__ import annotations

import functools

import keras
import networks
import numpy as np
import random_data
import tensorflow as tf
import worker
from cases import CASES
from cell_networks import NETWORKS
from keras_cells.table import layer_of, parameters_of

Batch = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]
"""Source [B, S, F], its mask [B, S], labels [B, T], their mask [B, T]."""


def _adam_step(variables: list[keras.Variable], loss: worker.Step) -> worker.Step:
    optimizer = keras.optimizers.Adam(1e-3)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = loss()
        optimizer.apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))
        return value

    return lambda: step().numpy()


def lstm_train() -> worker.Step:
    """keras.layers.LSTM with a mask; the loss is the sum of its outputs over real frames."""
    size = networks.LSTM
    layer = keras.layers.LSTM(size["hidden"], return_sequences=True)
    data = tf.constant(np.random.default_rng(1).normal(size=(size["batch"], size["time"], size["input"])), tf.float32)
    mask = tf.sequence_mask(networks.lengths(size["batch"], size["time"]), size["time"])
    layer(data, mask=mask)
    return _adam_step(
        layer.trainable_variables,
        lambda: tf.reduce_sum(tf.where(mask[:, :, None], layer(data, mask=mask, training=True), 0.0)),
    )


class DecoderBlock(keras.layers.Layer):
    """One block of `networks.transformer`."""

    def __init__(self) -> None:
        super().__init__()
        model, heads = networks.MODEL, networks.HEADS
        self.norms = [keras.layers.LayerNormalization(epsilon=1e-6) for _ in range(3)]
        self.causal = keras.layers.MultiHeadAttention(heads, model // heads, use_bias=False)
        self.cross = keras.layers.MultiHeadAttention(heads, model // heads)
        self.ff1 = keras.layers.Dense(4 * model, "relu")
        self.ff2 = keras.layers.Dense(model)

    def call(self, x: tf.Tensor, encoder: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """[B, T, F] from [B, T, F], encoder [B, S, F] and its mask [B, S]."""
        normed = self.norms[0](x)
        x += self.causal(normed, normed, use_causal_mask=True)
        x += self.cross(self.norms[1](x), encoder, attention_mask=mask[:, None])
        return x + self.ff2(self.ff1(self.norms[2](x)))


class TransformerDecoder(keras.Model):
    """The network of `networks.transformer`."""

    def __init__(self) -> None:
        super().__init__()
        size = networks.SEQ2SEQ
        self.encoder = keras.layers.Dense(networks.MODEL, "tanh")
        self.embed = keras.layers.Embedding(size["vocabulary"] + 1, networks.MODEL)
        self.blocks = [DecoderBlock() for _ in range(2)]
        self.out = keras.layers.Dense(size["vocabulary"])

    def call(self, batch: Batch) -> tf.Tensor:
        """Logits [B, T, V]."""
        data, mask, labels, _ = batch
        encoder = self.encoder(data)
        x = self.embed(tf.pad(labels[:, :-1], [[0, 0], [1, 0]]))
        for block in self.blocks:
            x = block(x, encoder, mask)
        return self.out(x)


def transformer_train() -> worker.Step:
    """The decoder with cross-entropy summed over real frames."""
    model = TransformerDecoder()
    size = networks.SEQ2SEQ
    generator = np.random.default_rng(1)
    batch = size["batch"]
    data = tf.constant(generator.normal(size=(batch, size["source"], size["input"])), tf.float32)
    mask = tf.sequence_mask(networks.lengths(batch, size["source"]), size["source"])
    labels = tf.constant(generator.integers(0, size["vocabulary"], (batch, size["target"])), tf.int32)
    target_mask = tf.sequence_mask(networks.lengths(batch, size["target"], seed=2), size["target"], tf.float32)
    inputs = (data, mask, labels, target_mask)
    model(inputs)

    def loss() -> tf.Tensor:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=model(inputs))
        return tf.reduce_sum(losses * target_mask)

    return _adam_step(model.trainable_variables, loss)


def cell_step(name: str) -> worker.Prepared:
    """Objective and gradients of a cell in a layer without a mask: the sum of its outputs."""
    layer = layer_of(name)
    arrays, _ = random_data.batch(CASES[name])
    encoder = arrays.pop("encoder", None)
    sources = [tf.constant(np.concatenate(list(arrays.values()), -1)), *([] if encoder is None else [encoder])]
    signature = [tf.TensorSpec([None, None, *source.shape[2:]], tf.float32) for source in sources]
    layer.build(sources[0].shape)
    parameters = parameters_of(layer)
    for path, variable in parameters.items():
        variable.assign(random_data.parameter(path, variable.shape))
    variables = list(parameters.values())

    @tf.function(input_signature=signature)
    def step(data: tf.Tensor, *encoder: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            if encoder:
                layer.cell.attend_to(*encoder)
            objective = tf.reduce_sum(layer(data))
        return objective + tf.linalg.global_norm(tape.gradient(objective, variables))

    run = functools.partial(step, *sources)
    return worker.Prepared(lambda: run().numpy(), None if "zoneout" in name else lambda: float(run().numpy()))


if __name__ == "__main__":
    worker.serve(
        {
            "lstm_train": lstm_train,
            "transformer_train": transformer_train,
            **{name: functools.partial(cell_step, name) for name in NETWORKS},
        }
    )
