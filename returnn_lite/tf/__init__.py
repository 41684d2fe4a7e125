"""The TensorFlow backend: lowers every primitive, lays dims out as axes, and runs graphs."""
