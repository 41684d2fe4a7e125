"""Networks run in NumPy, an eighth of the tests in TensorFlow."""

from tests.reference.executable import numpy_first

__all__ = ["numpy_first"]
