"""The cells of the table of cells as a user of Keras writes them: by their formulas, with TensorFlow's operations.

Weights have the names and shapes of returnn_lite's, so that both can compute the same.
"""
