"""Primitives that carry state from frame to frame. `Recurrence` is the whole form of all that are one function of a
frame and the states."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, TypeVar

from returnn_lite.dims import Dim, DimError, TensorType, require_one_dtype
from returnn_lite.ir.kept import Kept
from returnn_lite.ir.op import InLoop, Op


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
    Results are those of all steps, along `over`. `unroll` as of a Loop.
    """

    works_along: ClassVar[tuple[str, ...]] = ("step", "over")
    step: S
    over: Dim
    reverse: bool = False
    unroll: int = 1

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

    def unrolled(self, unroll: int) -> Op:
        return replace(self, unroll=unroll)

    def products(self, inputs: tuple[TensorType, ...]) -> tuple[tuple[Dim, ...], ...]:
        return tuple(dims if self.over in dims else (*dims, self.over) for dims in self.step.products(inputs))

    @property
    def causal(self) -> bool:
        return not self.reverse


@dataclass(frozen=True)
class CumsumStep(Step):
    """Operands x and the sum before; the result is their sum."""

    state_inputs: ClassVar[tuple[int, ...]] = (1,)
    state_outputs: ClassVar[tuple[int, ...]] = (0,)
    works_along: ClassVar[tuple[str, ...]] = ()

    def type_of(self, x: TensorType, state: TensorType) -> TensorType:
        require_one_dtype("cumsum", (x, state), "number")
        return x.with_dims(*state.dims)
