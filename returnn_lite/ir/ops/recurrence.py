"""Primitives that carry state from frame to frame: a step of each; `Recurrence` is the whole form of all that are one
function of a frame and the states."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from returnn_lite.dims import Dim, DimError, TensorType, require_one_dtype, union_of_dims
from returnn_lite.ir.kept import Kept
from returnn_lite.ir.op import InLoop, Op
from returnn_lite.ir.ops.elementwise import Elementwise


@dataclass(frozen=True)
class Delay(Op):
    """x one frame later along `over`: the second operand first, then x[0], x[1], ...; the whole form of a State.

    x may lack `over` (the same in every step); the result has it.
    """

    works_along: ClassVar[tuple[str, ...]] = ("over",)
    over: Dim

    def type_of(self, x: TensorType, init: TensorType) -> TensorType:
        require_one_dtype("prev", (x, init))
        return x.with_dims(self.over, *init.dims)

    @property
    def causal(self) -> bool:
        return True

    @property
    def delays_along(self) -> Dim:
        return self.over


@dataclass(frozen=True)
class CudnnKind:
    """A recurrence of cuDNN: its mode there, and the dim of its states."""

    mode: str
    hidden: Dim


@dataclass(frozen=True)
class Step(Op):
    """One step of a recurrence: a function of a frame and the states before it, which are some of its operands. The
    states after it are some of its results."""

    in_loop: ClassVar[InLoop] = InLoop.RECURRENCE
    whole_label: ClassVar[str] = ""
    """What a recurrence of it is called in IR text, where that is not its own label without `_step`."""
    forwards_only: ClassVar[bool] = False
    """True if no recurrence of it runs from the last frame to the first."""
    goes_on_from_states: ClassVar[bool] = False
    """True if a recurrence of it that is computed again takes its states, which are kept, and no step needs another."""
    weights_at: ClassVar[tuple[int, ...]] = ()
    """The operands that are weights of a product with a state."""
    why_no_cudnn: ClassVar[tuple[str, str]] = ("cuDNN has no such recurrence", "")
    """Of one that cuDNN does not have: why, and the option of a cell that would make it another one."""

    @property
    def cudnn(self) -> CudnnKind | None:
        """What is the same function in cuDNN, if any is. Operands are then z, weights, and states; the first state is
        the output."""
        return None

    def kept_by_kernel(self, state: TensorType) -> tuple[TensorType, ...]:
        """What the whole form keeps of each step, the states before it included, given the type of its first result."""
        return ()

    def vectorize(self, over: Dim) -> Op:
        return Recurrence(self, over)


S = TypeVar("S", bound=Step)


@dataclass(frozen=True)
class Recurrence(Op, Generic[S]):
    """A step at each frame of `over`, from each sequence's last to its first with `reverse`.

    Operands are the step's: those without `over` are the same at each frame, the states are those before the first.
    Results are those of all steps, along `over`.
    """

    works_along: ClassVar[tuple[str, ...]] = ("step", "over")
    step: S
    over: Dim
    reverse: bool = False

    @property
    def label(self) -> str:
        return self.step.whole_label or self.step.label.removesuffix("_step")

    def shown_attributes(self) -> dict[str, object]:
        own = super().shown_attributes()
        del own["step"]
        return {**self.step.shown_attributes(), **own}

    def along(self, *inputs: TensorType) -> tuple[Dim, ...]:
        return (*self.step.along(*inputs), self.over)

    @property
    def roles(self) -> tuple[str, ...]:
        return self.step.roles

    def type_of(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        if self.reverse and self.step.forwards_only:
            raise DimError(f"{self.label} goes from the first frame to the last only")
        return tuple(type_.with_dims(self.over) for type_ in self.step.output_types(inputs))

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        """What the step keeps, and its weights transposed."""
        weights = tuple(inputs[i] for i in self.step.weights_at)
        return Kept(inner=(*self.step.kept_by_kernel(self.type_of(*inputs)[0]), *weights))

    def products(self, inputs: tuple[TensorType, ...]) -> tuple[tuple[Dim, ...], ...]:
        return tuple(dims if self.over in dims else (*dims, self.over) for dims in self.step.products(inputs))

    @property
    def causal(self) -> bool:
        return not self.reverse


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


@dataclass(frozen=True)
class CumsumStep(Step):
    """Operands x and the sum before; the result is their sum."""

    state_inputs: ClassVar[tuple[int, ...]] = (1,)
    state_outputs: ClassVar[tuple[int, ...]] = (0,)
    works_along: ClassVar[tuple[str, ...]] = ()

    def type_of(self, x: TensorType, state: TensorType) -> TensorType:
        require_one_dtype("cumsum", (x, state), "number")
        return x.with_dims(*state.dims)


@dataclass(frozen=True)
class EditDistanceStep(Step):
    """The next row of an edit distance table: of the labels so far, this one included, to each beginning of a
    reference (Wagner and Fischer 1974).

    Operands: label [..] (int), reference [labels] (int), the row before [row], row = labels + 1; result the row after,
    int32. A label that equals `blank` is none: the row stays.
    """

    state_inputs: ClassVar[tuple[int, ...]] = (2,)
    state_outputs: ClassVar[tuple[int, ...]] = (0,)
    whole_label: ClassVar[str] = "edit_distance_table"
    forwards_only: ClassVar[bool] = True
    works_along: ClassVar[tuple[str, ...]] = ("labels", "row")
    labels: Dim
    row: Dim
    blank: int | None = None

    def type_of(self, label: TensorType, reference: TensorType, before: TensorType) -> TensorType:
        return _row_type(self.labels, self.row, label, reference, before)

    @property
    def causal(self) -> bool:
        return True


def _row_type(labels: Dim, row: Dim, label: TensorType, reference: TensorType, before: TensorType) -> TensorType:
    for x in (label, reference, before):
        x.require_dtype("int", "an edit distance")
    dims = union_of_dims((label, reference.without(labels), before.without(row)))
    return TensorType((*dims, row), "int32")


@dataclass(frozen=True)
class EmptyHistory(Op):
    """What a `CumConcatStep` starts from: no frames along `history`. The operand gives the other dims."""

    works_along: ClassVar[tuple[str, ...]] = ()
    history: Dim

    def type_of(self, like: TensorType) -> TensorType:
        return like.with_dims(self.history)

    def named_dims(self) -> frozenset[Dim]:
        """None whose length must be known: it has no frames yet."""
        return frozenset()

    def measured_dims(self) -> frozenset[Dim]:
        return frozenset()  # it has none of its frames


@dataclass(frozen=True)
class CumConcatStep(Op):
    """x appended to the frames so far along `history`, whose length varies over the loop's dim.

    Operands: x, the history before, the number of frames before (int, 0 first), and, on a slower clock that is run in
    the loop of a faster one, the mask that says which sequences append. Results: the history and the number after.
    """

    in_loop: ClassVar[InLoop] = InLoop.RECURRENCE
    state_inputs: ClassVar[tuple[int, ...]] = (1, 2)
    state_outputs: ClassVar[tuple[int, ...]] = (0, 1)
    mask_at: ClassVar[int | None] = 3
    length_at: ClassVar[int | None] = -1
    works_along: ClassVar[tuple[str, ...]] = ("history",)
    history: Dim

    @property
    def roles(self) -> tuple[str, ...]:
        return ("history", "count")

    def type_of(
        self, x: TensorType, before: TensorType, count: TensorType, *mask: TensorType
    ) -> tuple[TensorType, TensorType]:
        mask_dims = mask[0].dims if mask else ()
        return before.with_dims(*x.dims, *mask_dims), count.with_dims(*mask_dims)

    def vectorize(self, over: Dim) -> Op:
        return CumConcat(over, self.history)

    def created_dims(self) -> tuple[Dim, ...]:
        return (self.history,)

    @property
    def causal(self) -> bool:
        return True


@dataclass(frozen=True)
class CumConcat(Op):
    """The whole form: x with `over` renamed to `history`, of which frame t of `over` sees the first t + 1. Second
    result: t + 1."""

    works_along: ClassVar[tuple[str, ...]] = ("over", "history")
    over: Dim
    history: Dim

    @property
    def roles(self) -> tuple[str, ...]:
        return ("history", "count")

    def type_of(self, x: TensorType, before: TensorType, count: TensorType) -> tuple[TensorType, TensorType]:
        kept = tuple(d for d in x.dims if d is not self.over)
        return x.of_dims((self.history, *kept)).with_dims(*before.dims), count.with_dims(self.over)

    def created_dims(self) -> tuple[Dim, ...]:
        return (self.history,)

    @property
    def causal(self) -> bool:
        return True
