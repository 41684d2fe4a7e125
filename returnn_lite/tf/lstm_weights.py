"""The weights of LSTMs in checkpoints, in the forms that different units store them in, and from one form to another.

All compute the same function (Hochreiter and Schmidhuber 1997, with forget gate), but that TensorFlow's cells add a
forget bias, 1 unless told otherwise, at run time: converted, what one adds stands in the bias of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from returnn_lite.weights import StoredCell, layout_of, read, write

Array = NDArray[Any]
Read = Callable[[str], Array]
FORMS = (
    ("", "returnn"),
    ("", "returnn_low_memory"),
    ("lstm_cell/", "tensorflow"),
    ("basic_lstm_cell/", "tensorflow"),
)
"""What the names of a unit's parameters begin with, and the layout that they have."""


@dataclass(frozen=True)
class Converted:
    """A parameter made of what a checkpoint has in another form, and the names of that."""

    value: Array
    sources: tuple[str, ...]


def converted(
    name: str, shape: Sequence[int], shapes: Mapping[str, Sequence[int]], stored: Read, forget_bias: float = 0.0
) -> Converted | None:
    """A parameter of an LSTM that a checkpoint, which has arrays of these `shapes`, has in another form; None if it has
    not. `forget_bias` is what the network adds to the forget gate at run time."""
    for folder, system in FORMS:
        wanted = layout_of("lstm", system)
        for part in (*wanted.names(), *wanted.optional()):
            scope = name.removesuffix(folder + part)
            if scope == name or (scope and not scope.endswith("/")):
                continue
            for other in FORMS:
                cell = StoredCell(scope + other[0], "lstm", other[1])
                if other == (folder, system) or not cell.is_among(shapes):
                    continue
                sources = _sources(cell, part, shapes)
                arrays = {source.removeprefix(cell.scope): stored(source) for source in sources}
                value = write(read(arrays, cell.layout), wanted, forget_bias).get(part)
                if value is not None and value.shape == tuple(shape):
                    return Converted(value, sources)
    return None


def _sources(cell: StoredCell, part: str, shapes: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """What a parameter is made of: a projection decides which rows of a joint kernel are those of h. What a cell may
    have has the same name in all forms."""
    optional = [name for name in cell.layout.optional() if name in (part, cell.layout.more["projection"])]
    found = (cell.scope + name for name in (*cell.layout.names(), *optional))
    return tuple(name for name in found if name in shapes)
