"""Steps of recurrent cells that have kernels of their own: LSTM, both GRUs, and simple RNN."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import ClassVar

from returnn_lite.dims import Dim, TensorType, require_one_dtype, union_of_dims
from returnn_lite.ir.kept import Kept
from returnn_lite.ir.ops.elementwise import Elementwise
from returnn_lite.ir.ops.recurrence import CudnnKind, Step


@dataclass(frozen=True)
class LstmCell:
    """The shape and arithmetic of an LSTM: c' = s(f + forget_bias)*c + s(i)*tanh(j), h' = s(o)*tanh(c').

    Hochreiter and Schmidhuber 1997, with forget gate (Gers et al. 2000). `order` names the blocks of the gate dim:
    "jifo" for native LSTMs, "ijfo" for TensorFlow's cells, j the cell candidate. `recurrent` is the dim of the rows of
    W_re.
    """

    hidden: Dim
    recurrent: Dim
    gates: Dim
    order: str = "jifo"
    forget_bias: float = 0.0


@dataclass(frozen=True)
class LstmStep(Step):
    """One step. Operands: z [gates] (input product and bias), W_re [recurrent, gates], h [hidden], c [hidden];
    results h', c'."""

    state_inputs: ClassVar[tuple[int, ...]] = (2, 3)
    state_outputs: ClassVar[tuple[int, ...]] = (0, 1)
    goes_on_from_states: ClassVar[bool] = True
    weights_at: ClassVar[tuple[int, ...]] = (1,)
    multiplies: ClassVar[bool] = True
    works_along: ClassVar[tuple[str, ...]] = ("cell",)
    cell: LstmCell

    @property
    def roles(self) -> tuple[str, ...]:
        return ("hidden", "cell")

    @property
    def cudnn(self) -> CudnnKind:
        return CudnnKind("lstm", self.cell.hidden)

    def type_of(self, z: TensorType, w_re: TensorType, h: TensorType, c: TensorType) -> tuple[TensorType, TensorType]:
        require_one_dtype(self.label, (z, w_re, h, c), "float")
        w_re.require(self.cell.recurrent, self.cell.gates)
        return (_cell_type(self.cell.gates, self.cell.hidden, z, h, c),) * 2

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        """The states before, the gates, the candidate, and tanh of the new cell state."""
        return Kept(operands=(1, 2, 3), inner=(self.type_of(*inputs)[0],) * 5)

    def kept_by_kernel(self, state: TensorType) -> tuple[TensorType, ...]:
        return (state,) * 7

    def products(self, inputs: tuple[TensorType, ...]) -> tuple[tuple[Dim, ...], ...]:
        return _products(self.type_of(*inputs)[0], self.cell.hidden, inputs[1])


@dataclass(frozen=True)
class GruCell:
    """A GRU: r, u = s(z_gates + h W_gates); h' = u*h + (1-u)*tanh(z_candidate + (r*h) W_candidate).

    Cho et al. 2014, in TensorFlow's form. `gates` has the blocks r, u.
    """

    hidden: Dim
    recurrent: Dim
    gates: Dim


@dataclass(frozen=True)
class GruStep(Step):
    """One step. Operands: z_gates [gates], z_candidate [hidden], W_gates [recurrent, gates], W_candidate
    [recurrent, hidden], h."""

    state_inputs: ClassVar[tuple[int, ...]] = (4,)
    state_outputs: ClassVar[tuple[int, ...]] = (0,)
    goes_on_from_states: ClassVar[bool] = True
    weights_at: ClassVar[tuple[int, ...]] = (2, 3)
    why_no_cudnn: ClassVar[tuple[str, str]] = ("cuDNN's GRU resets after the product", "reset_after")
    multiplies: ClassVar[bool] = True
    works_along: ClassVar[tuple[str, ...]] = ("cell",)
    cell: GruCell

    def type_of(self, z: TensorType, zc: TensorType, wg: TensorType, wc: TensorType, h: TensorType) -> TensorType:
        require_one_dtype(self.label, (z, zc, wg, wc, h), "float")
        wg.require(self.cell.recurrent, self.cell.gates)
        wc.require(self.cell.recurrent, self.cell.hidden)
        return _cell_type(self.cell.gates, self.cell.hidden, z, zc, h)

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        """The state before, r and u together and each, 1 - u, the candidate, and r times the state."""
        return Kept(operands=(2, 3, 4), inner=(self.type_of(*inputs),) * 7)

    def kept_by_kernel(self, state: TensorType) -> tuple[TensorType, ...]:
        return (state,) * 5

    def products(self, inputs: tuple[TensorType, ...]) -> tuple[tuple[Dim, ...], ...]:
        return _products(self.type_of(*inputs), self.cell.hidden, inputs[2], inputs[3])


@dataclass(frozen=True)
class ResetAfterGruCell:
    """The GRU that resets after the product: r, u = s(z + h W + b); h' = u*h + (1-u)*tanh(z + r*(h W + b)), each with
    its block of z, W and b.

    Cho et al. 2014, in the form of cuDNN, Keras and PyTorch. `order` names the blocks of the gate dim: "ruc" or "urc",
    c the candidate.
    """

    hidden: Dim
    recurrent: Dim
    gates: Dim
    order: str = "ruc"


@dataclass(frozen=True)
class ResetAfterGruStep(Step):
    """One step. Operands: z [gates] (input product and bias), W [recurrent, gates], b [gates], h."""

    state_inputs: ClassVar[tuple[int, ...]] = (3,)
    state_outputs: ClassVar[tuple[int, ...]] = (0,)
    goes_on_from_states: ClassVar[bool] = True
    weights_at: ClassVar[tuple[int, ...]] = (1,)
    multiplies: ClassVar[bool] = True
    works_along: ClassVar[tuple[str, ...]] = ("cell",)
    cell: ResetAfterGruCell

    @property
    def cudnn(self) -> CudnnKind:
        return CudnnKind("gru", self.cell.hidden)

    def type_of(self, z: TensorType, weights: TensorType, bias: TensorType, h: TensorType) -> TensorType:
        require_one_dtype(self.label, (z, weights, bias, h), "float")
        weights.require(self.cell.recurrent, self.cell.gates)
        bias.require(self.cell.gates)
        return _cell_type(self.cell.gates, self.cell.hidden, z, h)

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        """The state before and less the candidate, r, u, the candidate, and what r multiplies."""
        return Kept(operands=(1, 3), inner=(self.type_of(*inputs),) * 5)

    def kept_by_kernel(self, state: TensorType) -> tuple[TensorType, ...]:
        return (state,) * 5

    def products(self, inputs: tuple[TensorType, ...]) -> tuple[tuple[Dim, ...], ...]:
        return _products(self.type_of(*inputs), self.cell.hidden, inputs[1])


@dataclass(frozen=True)
class SimpleRnnCell:
    """h' = activation(z + h W_re), Elman 1990; `activation` is an `Elementwise` kind."""

    hidden: Dim
    recurrent: Dim
    activation: str = "tanh"


@dataclass(frozen=True)
class SimpleRnnStep(Step):
    """One step. Operands: z [hidden], W_re [recurrent, hidden], h."""

    state_inputs: ClassVar[tuple[int, ...]] = (2,)
    state_outputs: ClassVar[tuple[int, ...]] = (0,)
    goes_on_from_states: ClassVar[bool] = True
    weights_at: ClassVar[tuple[int, ...]] = (1,)
    multiplies: ClassVar[bool] = True
    works_along: ClassVar[tuple[str, ...]] = ("cell",)
    cell: SimpleRnnCell

    @property
    def cudnn(self) -> CudnnKind | None:
        is_there = self.cell.activation in ("tanh", "relu")
        return CudnnKind(f"rnn_{self.cell.activation}", self.cell.hidden) if is_there else None

    def type_of(self, z: TensorType, w_re: TensorType, h: TensorType) -> TensorType:
        require_one_dtype(self.label, (z, w_re, h), "float")
        w_re.require(self.cell.recurrent, self.cell.hidden)
        return _cell_type(self.cell.hidden, self.cell.hidden, z, h)

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        kept = Elementwise(self.cell.activation).kept_for_gradient((self.type_of(*inputs),), {0})
        total = (self.type_of(*inputs),) if kept.operands else ()
        return Kept((1, 2), kept.results, (*kept.inner, *total))

    def kept_by_kernel(self, state: TensorType) -> tuple[TensorType, ...]:
        return (state,) * 2

    def products(self, inputs: tuple[TensorType, ...]) -> tuple[tuple[Dim, ...], ...]:
        return _products(self.type_of(*inputs), self.cell.hidden, inputs[1])


def _products(state: TensorType, hidden: Dim, *weights: TensorType) -> tuple[tuple[Dim, ...], ...]:
    """The state times each of the weights."""
    return tuple((*state.without(hidden).dims, *w.dims) for w in weights)


def _cell_type(gates: Dim, hidden: Dim, z: TensorType, *states: TensorType) -> TensorType:
    """The type of a cell's output: the input's dims with the hidden dim in place of the gates."""
    dims = union_of_dims((z.require(gates).renamed({gates: hidden}), *states))
    return TensorType((*(d for d in dims if d is not hidden), hidden), z.dtype)
