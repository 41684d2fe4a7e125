"""The weights of a recurrent cell gate by gate: what all systems have in common, whatever they call it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from returnn_lite.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    ByGate = Mapping[str, Array]

KINDS: Mapping[str, tuple[str, ...]] = {
    "lstm": ("input", "forget", "output", "cell"),
    "gru": ("reset", "update", "candidate"),
    "milstm": ("input", "forget", "output", "cell"),
}
"""The gates of each kind of cell. The update gate of a GRU says how much of the old state is kept."""


class WeightsError(ValueError):
    """Weights that are not those of the layout, or that it can't hold."""


@dataclass(frozen=True)
class Gates:
    """Weights of one cell. `input` [in, n], `recurrent` [m, n] and `bias` [n] by gate, where m is the size of h.

    `recurrent_bias` [n] is the second bias, added to the product with h: one sum with the first but for a GRU that
    resets after the product. Both are empty for a cell without a bias. `forget_bias` is what is added to the forget
    gate at run time. `more` are a cell's own parameters: `peephole_input`, .. [n], `projection` [n, m], and of
    multiplicative integration (Wu et al. 2016) `alpha`, `beta_input`, `beta_recurrent`, and `shift`, the sum's bias,
    each [n] by gate after a slash.
    """

    kind: str
    input: ByGate
    recurrent: ByGate
    bias: ByGate
    recurrent_bias: ByGate = field(default_factory=dict)
    forget_bias: float = 0.0
    reset_after: bool = False
    more: ByGate = field(default_factory=dict)

    @property
    def units(self) -> int:
        """The size of the cell's state."""
        return int(next(iter(self.input.values())).shape[1])

    @property
    def inputs(self) -> int:
        """The size of the source."""
        return int(next(iter(self.input.values())).shape[0])

    @property
    def outputs(self) -> int:
        """The size of h."""
        return int(next(iter(self.recurrent.values())).shape[0])

    @property
    def has_bias(self) -> bool:
        """Whether there is any."""
        return bool(self.bias or self.recurrent_bias or any(name.startswith("shift/") for name in self.more))

    def with_bias(self) -> Gates:
        """The same function with a bias, of zeros if there is none."""
        if self.has_bias:
            return self
        zeros = {gate: np.zeros_like(array[0]) for gate, array in self.input.items()}
        own = {f"shift/{gate}": array for gate, array in zeros.items()} if self.kind == "milstm" else {}
        return replace(self, bias=zeros, more={**self.more, **own})

    def without_bias(self) -> Gates:
        """The same function without a bias. Raises WeightsError if there is one that is not 0."""
        own = {name: array for name, array in self.more.items() if name.startswith("shift/")}
        if any(array.any() for array in (*self.bias.values(), *self.recurrent_bias.values(), *own.values())):
            raise WeightsError("there is a bias that is not 0, and no place for one")
        rest = {name: array for name, array in self.more.items() if name not in own}
        return replace(self, bias={}, recurrent_bias={}, more=rest)

    def check(self) -> None:
        """Raises WeightsError where sizes do not belong together."""
        for part, matrices in (("input", self.input), ("recurrent", self.recurrent)):
            for gate, array in matrices.items():
                if array.ndim != 2:
                    raise WeightsError(f"{part} of the gate '{gate}' has shape {list(array.shape)} and is no matrix")
        n, m = self.units, self.outputs
        projection = self.more.get("projection")
        if (n, m) != ((n, n) if projection is None else projection.shape):
            told = "there is no projection" if projection is None else f"the projection is {list(projection.shape)}"
            raise WeightsError(f"the weights of h have {m} rows and {n} columns for each gate, but {told}")
        wanted = {"input": (self.inputs, n), "recurrent": (m, n), "bias": (n,), "recurrent_bias": (n,), "more": (n,)}
        for part, shape in wanted.items():
            for name, array in getattr(self, part).items():
                if array.shape != shape and name != "projection":
                    where = name if part == "more" else f"{part} of the gate '{name}'"
                    raise WeightsError(f"{where} has shape {list(array.shape)}, not {list(shape)}")


def blocks(array: Array, order: Sequence[str], axis: int = -1) -> dict[str, Array]:
    """The equal parts of an array along an axis, by gate. Raises WeightsError."""
    if not array.ndim or array.shape[axis] % len(order):
        raise WeightsError(f"{array.shape} has no {len(order)} equal parts along axis {axis}")
    return dict(zip(order, np.split(array, len(order), axis=axis), strict=True))


def joined(gates: ByGate, order: Sequence[str], axis: int = -1) -> Array:
    """The parts of all gates in one array."""
    return np.concatenate([gates[gate] for gate in order], axis=axis)


def transposed(gates: ByGate) -> dict[str, Array]:
    """Each gate's matrix the other way round."""
    return {gate: array.T for gate, array in gates.items()}
