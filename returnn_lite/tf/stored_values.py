"""Initial values that a checkpoint has: arrays by name, as the engine writes them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from returnn_lite.ir.ops.sources import Source
from returnn_lite.tf.lstm_weights import converted

OPTIMIZER = "optimizer/"
"""What the names of an optimizer's variables begin with: they are no parameters."""


class StoredValueError(ValueError):
    """A checkpoint that is not there, or does not have what is asked of it."""


def stored_value(
    source: Source, parameter: str, shape: tuple[int, ...], forget_bias: float = 0.0
) -> NDArray[Any] | None:
    """The array of a parameter, one of an LSTM from whatever form it has; None if the checkpoint has none and may lack
    it. Raises StoredValueError."""
    try:
        reader = tf.train.load_checkpoint(source.filename)
        shapes = reader.get_variable_to_shape_map()
        fits = tuple(shapes.get(source.name, ())) == shape
        if not fits and (found := converted(source.name, shape, shapes, reader.get_tensor, forget_bias)) is not None:
            return found.value
        if source.name not in shapes and source.may_lack:
            return None
        if source.name not in shapes:
            raise StoredValueError(
                f"load_on_init: checkpoint '{source.filename}' has no '{source.name}' {list(shape)} for the parameter "
                f"'{parameter}'{of_this_shape(source.name, shape, shapes)}"
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


def of_this_shape(
    name: str, shape: Sequence[int], shapes: Mapping[str, Sequence[int]], used: Collection[str] = ()
) -> str:
    """What could be meant by a name that a checkpoint does not have: of its parameters of the same shape that are not
    `used`, the one with the nearest name."""
    same = [
        other
        for other, found in shapes.items()
        if tuple(found) == tuple(shape) and other not in used and not other.startswith(OPTIMIZER)
    ]
    nearest = max(same, key=lambda other: SequenceMatcher(None, name, other).ratio(), default=None)
    return "" if nearest is None else f" (of this shape it has '{nearest}')"
