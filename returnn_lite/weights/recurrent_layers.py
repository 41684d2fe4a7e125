"""The recurrent layers of a network whose weights can be read gate by gate, found by names and shapes of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from returnn_lite.lazy_numpy import np
from returnn_lite.weights.conversion import sums, write
from returnn_lite.weights.forms import Sizes
from returnn_lite.weights.gates import Gates, WeightsError
from returnn_lite.weights.stacks import Stack, stacked_scopes
from returnn_lite.weights.stored import Shapes, StoredCell, stored_cells

if TYPE_CHECKING:
    from returnn_lite.weights.gates import Array

SYSTEMS = (
    *("returnn", "returnn_low_memory", "returnn_reset_after"),
    *("tensorflow", "keras", "keras_reset_before"),
)
"""Of the layouts, those that units of ours have."""
TF_FOLDERS = ("lstm_cell/", "basic_lstm_cell/")


@dataclass(frozen=True)
class RecurrentLayer:
    """A layer of LSTMs, GRUs or multiplicative LSTMs: its `path` in the network, and `cells` by layer and direction.

    `problem` says why its weights can't be those of another system's layer.
    """

    path: str
    cells: Sequence[Sequence[StoredCell]]
    problem: str | None = None

    @property
    def kind(self) -> str:
        """That of its cells. Raises WeightsError if they are of several."""
        kinds = sorted({cell.kind for layer in self.cells for cell in layer})
        if len(kinds) > 1:
            raise WeightsError(f"'{self.path}' has cells of several kinds: {', '.join(kinds)}")
        return kinds[0]

    def __str__(self) -> str:
        kinds = " and ".join(sorted({cell.kind for layer in self.cells for cell in layer}))
        return f"{kinds}, {_counted([len(layer) for layer in self.cells])}"

    def names(self, shapes: Shapes) -> list[str]:
        """The parameters of the cells."""
        return [name for layer in self.cells for cell in layer for name in cell.names(shapes)]

    def require_convertible(self) -> None:
        """Raises WeightsError if there is a problem."""
        if self.problem is not None:
            raise WeightsError(
                f"'{self.path}': {self.problem}. The beginning of the names of one cell's parameters as --layer takes "
                "that cell alone"
            )

    def stack(self, arrays: Mapping[str, Array], forget_biases: Mapping[str, float]) -> Stack:
        """Its weights; `forget_biases` has what is added at run time by the name of the bias, where that is known.
        Raises WeightsError."""
        return [[cell.gates(arrays, forget_biases.get(_bias(cell))) for cell in layer] for layer in self.cells]

    def sizes(self, arrays: Mapping[str, Array]) -> Sizes:
        """Those of the cells, for cuDNN's vector."""
        first = self.cells[0][0].gates(arrays)
        projection = first.outputs if "projection" in first.more else 0
        return Sizes(first.units, len(self.cells), len(self.cells[0]), projection)

    def written(self, stack: Stack, forget_biases: Mapping[str, float]) -> dict[str, Array]:
        """Weights as this layer's parameters. Raises WeightsError if it has other cells, or can't hold them."""
        have, want = ([len(layer) for layer in layers] for layers in (stack, self.cells))
        if have != want:
            raise WeightsError(f"there are {_counted(have)}, and '{self.path}' has {_counted(want)}")
        found: dict[str, Array] = {}
        for given, cell in self._pairs(stack):
            gates = given.with_bias() if cell.has_bias else given.without_bias()
            arrays = write(gates, cell.layout, forget_biases.get(_bias(cell)))
            found |= {cell.scope + name: array for name, array in arrays.items()}
        return found

    def sums(self, stack: Stack, forget_biases: Mapping[str, float]) -> list[str]:
        """What `written` adds up, so that it is rounded and can't be taken apart again."""
        found = (sums(gates, cell.layout, forget_biases.get(_bias(cell))) for gates, cell in self._pairs(stack))
        return list(dict.fromkeys(one for several in found for one in several))

    def _pairs(self, stack: Stack) -> list[tuple[Gates, StoredCell]]:
        return [pair for two in zip(stack, self.cells, strict=True) for pair in zip(*two, strict=True)]


def recurrent_layers(shapes: Shapes, below: str | None = None) -> list[RecurrentLayer]:
    """The recurrent layers among parameters by name; only those of the layer `below`, or below the beginning of
    names."""
    groups: dict[str, list[StoredCell]] = {}
    for cell in stored_cells(shapes, systems=SYSTEMS):
        prefix, path = _layer_of(cell.scope)
        if path is not None and _is_unit(cell) and _is_below(path, cell.scope, below):
            groups.setdefault(prefix, []).append(cell)
    return [_layer(prefix, cells, shapes, below) for prefix, cells in groups.items()]


def read_layer(params: Mapping[str, Any], path: str, forget_bias: float | None = None) -> Stack:
    """The cells of a recurrent layer of a network, whose parameters are arrays or variables by name: those of each
    layer of its stack, forwards, or forwards and backwards. `forget_bias` is what an option of the unit adds at run
    time, if not what its name says. Raises WeightsError."""
    layer = _only_layer(params, path)
    names = layer.names(_shapes(params))
    arrays = {name: np.asarray(params[name]).copy() for name in names}
    return layer.stack(arrays, {} if forget_bias is None else dict.fromkeys(names, forget_bias))


def write_layer(
    stack: Stack, params: Mapping[str, Any], path: str, forget_bias: float | None = None
) -> dict[str, Array]:
    """Cells as the parameters of a recurrent layer by name, to be assigned; the arguments are those of `read_layer`.
    Raises WeightsError for cells that the layer can't hold."""
    layer = _only_layer(params, path)
    shapes = _shapes(params)
    biases = {} if forget_bias is None else dict.fromkeys(layer.names(shapes), forget_bias)
    written = layer.written(stack, biases)
    found = {name: array.shape for name, array in written.items()}
    for name in dict.fromkeys((*layer.names(shapes), *found)):
        if found.get(name) != shapes.get(name):
            was, now = (list(one[name]) if name in one else "none" for one in (shapes, found))
            raise WeightsError(f"'{name}' would have shape {now}, the parameter has {was}")
    return written


def _only_layer(params: Mapping[str, Any], path: str) -> RecurrentLayer:
    found = recurrent_layers(_shapes(params), path)
    if len(found) != 1:
        named = ", ".join(f"'{layer.path}'" for layer in found or recurrent_layers(_shapes(params)))
        raise WeightsError(f"'{path}' is {'several' if found else 'no'} layers of LSTMs or GRUs; there are {named}")
    found[0].require_convertible()
    return found[0]


def _shapes(params: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(array.shape) for name, array in params.items()}


def _layer(prefix: str, cells: Sequence[StoredCell], shapes: Shapes, below: str | None) -> RecurrentLayer:
    path = _layer_of(prefix)[1] or prefix
    around = f"{below}/" if below is not None and below.startswith(prefix) else prefix
    own = {name for cell in cells for name in cell.names(shapes)}
    beside = [name for name in shapes if _layer_of(name)[0] == prefix and name.startswith(around) and name not in own]
    by_scope = {cell.scope: cell for cell in cells}
    try:
        order = stacked_scopes({cell.scope: _in_and_out(cell, shapes) for cell in cells})
    except WeightsError as error:
        return RecurrentLayer(path, [cells], str(error))
    problem = None
    if beside:
        shown = ", ".join(f"'{name}'" for name in sorted(beside)[:4]) + (", .." if len(beside) > 4 else "")
        problem = f"it has parameters that no {' or '.join(sorted({cell.kind for cell in cells}))} has: {shown}"
    return RecurrentLayer(path, [[by_scope[scope] for scope in layer] for layer in order], problem)


def layer_path(name: str) -> str:
    """The path of the layer that has a parameter."""
    return _layer_of(name)[1] or name.replace("/rec/", "/").rpartition("/")[0]


def _layer_of(name: str) -> tuple[str, str | None]:
    """Of a parameter of a unit, what the names of all of its layer begin with, and the layer's path: `a/rec/b/rec/W` is
    one of `a/b`. None for another parameter."""
    before, found, _ = name.rpartition("/rec/")
    return (before + found, before.replace("/rec/", "/")) if found else ("", None)


def _is_unit(cell: StoredCell) -> bool:
    """Whether the cell's arrays stand where units have them: other cells have a `kernel` and a `bias`, too."""
    return cell.system != "tensorflow" or cell.kind != "lstm" or cell.scope.endswith(TF_FOLDERS)


def _is_below(path: str, scope: str, below: str | None) -> bool:
    return below is None or any(f"{name}/".startswith(f"{below}/") for name in (path, scope))


def _in_and_out(cell: StoredCell, shapes: Shapes) -> tuple[int, int]:
    """The sizes of the source and of h."""
    group = cell.layout.groups[-1]
    first, last = (shapes[cell.scope + name] for name in (group.kernels[0], group.kernels[-1]))
    units = first[1] // len(group.order)
    projection = shapes.get(cell.scope + cell.layout.more.get("projection", "?"))
    out = units if projection is None else projection[1]
    return (first[0] if first is not last else first[0] - out), out


def _bias(cell: StoredCell) -> str:
    """The name of the parameter that what is added at run time is added to."""
    return cell.scope + cell.layout.biases[-1]


def _counted(layers: Sequence[int]) -> str:
    directions = "one direction" if layers[:1] == [1] else f"{layers[0] if layers else 0} directions"
    return f"{len(layers)} layer{'s' if len(layers) != 1 else ''} of {directions}"
