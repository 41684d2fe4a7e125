"""The worker of Keras (on TensorFlow): the LSTM layer."""

from __future__ import annotations

import keras
import networks
import numpy as np
import tensorflow as tf
import worker


def lstm_train() -> worker.Step:
    """keras.layers.LSTM with a mask; the loss is the sum of its outputs over real frames."""
    size = networks.LSTM
    layer = keras.layers.LSTM(size["hidden"], return_sequences=True)
    data = tf.constant(np.random.default_rng(1).normal(size=(size["batch"], size["time"], size["input"])), tf.float32)
    lengths = tf.constant(networks.lengths(size["batch"], size["time"]))
    mask = tf.sequence_mask(lengths, size["time"])
    layer(data, mask=mask)
    optimizer = keras.optimizers.Adam(1e-3)
    variables = layer.trainable_variables

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.where(mask[:, :, None], layer(data, mask=mask, training=True), 0.0))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    return lambda: step().numpy()


if __name__ == "__main__":
    worker.serve({"lstm_train": lstm_train})
