"""What another system keeps of a recurrent layer: its arrays as the cells of a stack, and back; cuDNN's vector, too,
and an array for each gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from returnn_lite.config.diagnostics import nearest_hint
from returnn_lite.weights.by_gate import arrays_by_gate, cells_by_gate
from returnn_lite.weights.cudnn import from_vector, inputs_of, to_vector
from returnn_lite.weights.gates import WeightsError
from returnn_lite.weights.naming import name_in_stack
from returnn_lite.weights.stacks import Stack, placed, read_stack, stacked, sums_of_stack, systems, write_stack

if TYPE_CHECKING:
    from returnn_lite.weights.gates import Array

CUDNN = "cudnn"
VECTOR = "opaque_kernel"
"""What the array of cuDNN's weights is called, as in TensorFlow's `CudnnLSTM`."""
BY_GATE = "gates"
FORMS = (*systems(), CUDNN, BY_GATE)
"""The systems that a form can be of."""


@dataclass(frozen=True)
class Sizes:
    """What a vector of cuDNN leaves open. `projection` 0: there is none."""

    units: int
    layers: int = 1
    directions: int = 1
    projection: int = 0


@dataclass(frozen=True)
class Form:
    """A system's form of recurrent layers. `forget_bias` is what is added at run time there, if not what is usual in
    the system; `sizes` are those that cuDNN's vector is cut into."""

    system: str
    forget_bias: float | None = None
    sizes: Sizes | None = None

    def __post_init__(self) -> None:
        """Raises WeightsError for a system without a form, or a forget bias where there is none."""
        if self.system not in FORMS:
            hint = nearest_hint(self.system, FORMS)
            raise WeightsError(f"there is no layout '{self.system}'; there are {', '.join(FORMS)}.{hint}")
        if self.system == CUDNN and self.forget_bias:
            raise WeightsError("cuDNN adds nothing to the forget gate at run time")
        if self.system == BY_GATE and self.forget_bias is not None:
            raise WeightsError("arrays by gate say themselves what is added to the forget gate at run time")

    def read(self, arrays: Mapping[str, Array], kind: str | None = None) -> Stack:
        """The cells; `kind` where names leave it open, and for cuDNN. Raises WeightsError."""
        if self.system == BY_GATE:
            return _of_kind(stacked(cells_by_gate(arrays)), kind)
        if self.system != CUDNN:
            return read_stack(arrays, self.system, kind, self.forget_bias)
        if kind is None or self.sizes is None:
            raise WeightsError("a vector of cuDNN says neither the kind of its cells nor their number of units")
        if set(arrays) != {VECTOR}:
            raise WeightsError(f"cuDNN's weights are one array '{VECTOR}'; there are {', '.join(arrays) or 'none'}")
        vector, sizes = arrays[VECTOR], self.sizes
        given = (sizes.units, sizes.layers, sizes.directions, sizes.projection)
        cells = from_vector(vector, kind, inputs_of(vector, kind, *given), *given)
        return [cells[first : first + sizes.directions] for first in range(0, len(cells), sizes.directions)]

    def write(self, stack: Stack) -> dict[str, Array]:
        """The arrays. Raises WeightsError for what the system can't hold."""
        if self.system == BY_GATE:
            return {
                name_in_stack(name, "returnn", place): array
                for place, gates in placed(stack)
                for name, array in arrays_by_gate(gates).items()
            }
        if self.system != CUDNN:
            return write_stack(stack, self.system, self.forget_bias)
        return {VECTOR: to_vector([cell for layer in stack for cell in layer])}

    def sums(self, stack: Stack) -> list[str]:
        """What `write` adds up, so that it is rounded and can't be taken apart again."""
        if self.system == BY_GATE:
            return []
        if self.system != CUDNN:
            return sums_of_stack(stack, self.system, self.forget_bias)
        cells = [cell for layer in stack for cell in layer if cell.forget_bias]
        if not any("forget" in cell.recurrent_bias and cell.recurrent_bias["forget"].any() for cell in cells):
            return []
        return [f"the forget gate's bias has {cells[0].forget_bias:g} added, as cuDNN adds nothing to it at run time"]


def _of_kind(stack: Stack, kind: str | None) -> Stack:
    for cell in (cell for layer in stack for cell in layer):
        if kind not in (None, cell.kind):
            raise WeightsError(f"weights of a {cell.kind} are none of a {kind}")
    return stack
