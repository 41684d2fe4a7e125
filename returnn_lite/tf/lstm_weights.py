"""The weights of LSTMs in checkpoints, in the forms that different units store them in, and from one form to another.

    W [in, 4n], W_re [n, 4n], b [4n]        gates j, i, f, o            native LSTMs
    W [in + n, 4n], b [4n]                  gates j, i, f, o            the native one with less memory
    kernel [in + n, 4n], bias [4n]          gates i, j, f, o            TensorFlow's cells

All compute the same function (Hochreiter and Schmidhuber 1997, with forget gate), but that TensorFlow's cells add a
forget bias, 1 unless told otherwise, at run time: converted, what one adds stands in the bias of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Read = Callable[[str], Array]


@dataclass(frozen=True)
class Form:
    """Names below the unit's scope: of kernels whose rows are those of the input, then those of the state, and of the
    bias; the order of the gates; and the forget bias that is usual."""

    kernels: tuple[str, ...]
    bias: str
    order: str
    forget_bias: float


FORMS = (
    Form(("W", "W_re"), "b", "jifo", 0.0),
    Form(("W",), "b", "jifo", 0.0),
    Form(("lstm_cell/kernel",), "lstm_cell/bias", "ijfo", 1.0),
    Form(("basic_lstm_cell/kernel",), "basic_lstm_cell/bias", "ijfo", 1.0),
)


@dataclass(frozen=True)
class Converted:
    """A parameter made of what a checkpoint has in another form, and the names of that."""

    value: Array
    sources: tuple[str, ...]


def converted(
    name: str, shape: Sequence[int], shapes: Mapping[str, Sequence[int]], read: Read, forget_bias: float = 0.0
) -> Converted | None:
    """A parameter of an LSTM that a checkpoint, which has arrays of these `shapes`, has in another form; None if it has
    not. `forget_bias` is what the network adds to the forget gate at run time."""
    for wanted in FORMS:
        for part in (*wanted.kernels, wanted.bias):
            scope = name.removesuffix(part)
            if scope == name or (scope and not scope.endswith("/")):
                continue
            for stored in FORMS:
                sources = tuple(scope + kernel for kernel in (*stored.kernels, stored.bias))
                if stored is wanted or not _is_there(stored, sources, shapes):
                    continue
                value = _in_form(wanted, part, stored, [read(source) for source in sources], forget_bias)
                if value.shape == tuple(shape):
                    return Converted(value, sources)
    return None


def _is_there(form: Form, names: Sequence[str], shapes: Mapping[str, Sequence[int]]) -> bool:
    """True if the arrays of these names are those of one LSTM in this form."""
    if not all(name in shapes for name in names):
        return False
    *kernels, bias = (tuple(shapes[name]) for name in names)
    gates = bias[0] if len(bias) == 1 else 0
    if gates % 4 or not gates or any(len(kernel) != 2 or kernel[1] != gates for kernel in kernels):
        return False
    rows_of_state = kernels[1][0] if len(kernels) > 1 else gates // 4
    return rows_of_state == gates // 4 and sum(kernel[0] for kernel in kernels) > gates // 4


def _in_form(wanted: Form, part: str, stored: Form, arrays: Sequence[Array], forget_bias: float) -> Array:
    """One part of the wanted form, from the kernels and the bias of the stored one."""
    *kernels, bias = (_in_order(array, stored.order, wanted.order) for array in arrays)
    units = bias.shape[-1] // 4
    if part == wanted.bias:
        added = [stored.forget_bias - forget_bias if gate == "f" else 0.0 for gate in wanted.order]
        return np.asarray(bias + np.repeat(np.asarray(added, bias.dtype), units))
    joint = np.concatenate(kernels)
    if len(wanted.kernels) == 1:
        return joint
    return joint[:-units] if part == wanted.kernels[0] else joint[-units:]


def _in_order(array: Array, have: str, want: str) -> Array:
    """The array with the blocks of its last axis in another order."""
    blocks = np.split(array, 4, axis=-1)
    return np.concatenate([blocks[have.index(gate)] for gate in want], axis=-1)
