"""cuDNN's weights: one opaque vector, all matrices first, then all biases (NVIDIA's cuDNN, `cudnnSetRNNWeightParams`).

Of each layer, and of a bidirectional one forwards then backwards, the matrices of the input and then those of the
state, each [n, in] by rows; the biases of the input, then those of the state. LSTM: input, forget, cell, output; GRU:
reset, update, candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from returnn_lite.lazy_numpy import np
from returnn_lite.weights.gates import Gates, WeightsError

if TYPE_CHECKING:
    from returnn_lite.weights.gates import Array

ORDERS = {"lstm": ("input", "forget", "cell", "output"), "gru": ("reset", "update", "candidate")}


def to_vector(cells: Sequence[Gates]) -> Array:
    """The vector of cells in the order of layers, a bidirectional layer's two one after the other. Raises
    WeightsError for a cell that cuDNN does not have."""
    matrices: list[Array] = []
    biases: list[Array] = []
    for given in cells:
        cell = given.with_bias()
        order = _order(cell.kind)
        if cell.kind == "gru" and not cell.reset_after:
            raise WeightsError("cuDNN's GRU resets after the product: this one is another function")
        unknown = set(cell.more) - {"projection"}
        if unknown:
            raise WeightsError(f"cuDNN has no {', '.join(sorted(unknown))}")
        for part in (cell.input, cell.recurrent):
            matrices += [part[gate].T.reshape(-1) for gate in order]
        if "projection" in cell.more:
            matrices.append(cell.more["projection"].T.reshape(-1))
        biases += _biases(cell, order)
    return np.concatenate([*matrices, *biases])


def from_vector(
    vector: Array, kind: str, inputs: int, units: int, layers: int = 1, directions: int = 1, projection: int = 0
) -> list[Gates]:
    """The cells of a vector. `inputs` is the size of the first layer's source. Raises WeightsError if it has another
    size."""
    order, width = _order(kind), projection or units
    cells = [(inputs if layer == 0 else directions * width) for layer in range(layers) for _ in range(directions)]
    of_biases = [(units,)] * (2 * len(order) * len(cells))
    parts = _cut(vector, [*_matrix_shapes(cells, order, units, width, projection), *of_biases])
    found: list[Gates] = []
    for _ in cells:
        matrices, recurrent = ({gate: next(parts).T for gate in order} for _ in range(2))
        more = {"projection": next(parts).T} if projection else {}
        found.append(Gates(kind, matrices, recurrent, {}, reset_after=kind == "gru", more=more))
    biases = [[{gate: next(parts) for gate in order} for _ in range(2)] for _ in cells]
    return [replace(cell, bias=one, recurrent_bias=two) for cell, (one, two) in zip(found, biases, strict=True)]


def inputs_of(vector: Array, kind: str, units: int, layers: int = 1, directions: int = 1, projection: int = 0) -> int:
    """The size of the first layer's source, which follows from how many numbers there are. Raises WeightsError."""
    gates, width = len(_order(kind)), projection or units
    of_h = gates * units * (width + 2) + units * projection
    sources = (layers - 1) * directions * width
    inputs, left = divmod(
        vector.size - directions * (layers * of_h + gates * units * sources), directions * gates * units
    )
    if inputs < 1 or left:
        what = f"{layers} layers of {directions} {kind}s of {units} units"
        raise WeightsError(f"the vector has {vector.size} numbers, which is no number of weights of {what}")
    return inputs


def _order(kind: str) -> tuple[str, ...]:
    if kind not in ORDERS:
        raise WeightsError(f"cuDNN has no {kind}")
    return ORDERS[kind]


def _biases(cell: Gates, order: Sequence[str]) -> list[Array]:
    """Both biases by gate; what is added to the forget gate at run time goes to the state's, as in `layouts`."""
    recurrent = {gate: cell.recurrent_bias.get(gate, np.zeros_like(cell.bias[gate])) for gate in order}
    if cell.forget_bias:
        recurrent["forget"] = recurrent["forget"] + np.asarray(cell.forget_bias, recurrent["forget"].dtype)
    return [part[gate] for part in (cell.bias, recurrent) for gate in order]


def _matrix_shapes(
    inputs: Sequence[int], order: Sequence[str], units: int, width: int, projection: int
) -> Iterator[tuple[int, ...]]:
    for rows in inputs:
        yield from [(units, rows)] * len(order)
        yield from [(units, width)] * len(order)
        if projection:
            yield (projection, units)


def _cut(vector: Array, shapes: Sequence[tuple[int, ...]]) -> Iterator[Array]:
    sizes = [int(np.prod(shape)) for shape in shapes]
    if vector.ndim != 1 or sum(sizes) != vector.size:
        raise WeightsError(f"the vector has {vector.size} numbers, but these cells have {sum(sizes)}")
    parts = np.split(vector, np.cumsum(sizes)[:-1])
    return iter([part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])
