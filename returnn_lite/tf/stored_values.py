"""Initial values that a checkpoint has: arrays by name, as the engine writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from returnn_lite.ir.ops.sources import Source


class StoredValueError(ValueError):
    """A checkpoint that is not there, or does not have what is asked of it."""


def stored_value(source: Source, parameter: str, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """The array of a parameter; None if the checkpoint has none and may lack it. Raises StoredValueError."""
    try:
        reader = tf.train.load_checkpoint(source.filename)
        shapes = reader.get_variable_to_shape_map()
        if source.name not in shapes and source.may_lack:
            return None
        if source.name not in shapes:
            there = ", ".join(sorted(shapes)[:10])
            raise StoredValueError(
                f"load_on_init: checkpoint '{source.filename}' has no '{source.name}' for the parameter '{parameter}'; "
                f"it has {there}"
            )
        value = np.asarray(reader.get_tensor(source.name))
    except (tf.errors.OpError, RuntimeError, IndexError) as error:
        raise StoredValueError(f"load_on_init: checkpoint '{source.filename}' cannot be read: {error}") from error
    if value.shape != shape:
        raise StoredValueError(
            f"load_on_init: checkpoint '{source.filename}': '{source.name}' has shape {list(value.shape)}, the "
            f"parameter '{parameter}' has {list(shape)}"
        )
    return value
