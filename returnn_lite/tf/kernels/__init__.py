"""Arithmetic on tensors that the lowerings call: what takes more than a few operations of TensorFlow."""
