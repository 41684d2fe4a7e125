"""Keras cells as foreign cells: a `keras.layers.Layer` with `call(inputs, states)` and `state_size`.

The only package that knows Keras besides the backend and the engine; it is imported when a config has such a cell.
"""
