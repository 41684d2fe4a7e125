"""The fused update gives what Keras' own gives."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from returnn_lite.engine.fused_adam import FusedAdam


def test_the_same_numbers_as_keras() -> None:
    """Ten steps with changing gradients and learning rates."""
    generator = np.random.default_rng(1)
    start = generator.normal(size=(3, 4)).astype("float32")
    results = []
    gradients = [generator.normal(size=(3, 4)).astype("float32") for _ in range(10)]
    for cls in (FusedAdam, keras.optimizers.Adam):
        variable = tf.Variable(start)
        optimizer = cls(learning_rate=0.1, epsilon=1e-8, beta_1=0.8)
        optimizer.build([variable])
        for number, gradient in enumerate(gradients):
            optimizer.learning_rate.assign(0.1 / (number + 1))
            optimizer.apply([tf.constant(gradient)])
        results.append(variable.numpy())
        assert int(optimizer.iterations.numpy()) == 10
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5, atol=1e-6)
    assert np.abs(results[0] - start).max() > 0.1
