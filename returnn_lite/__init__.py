"""returnn_lite: a compiler from declarative network configs to TensorFlow graphs."""
