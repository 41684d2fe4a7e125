"""Recurrences that are one primitive together: the layers of a stack, and both directions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from returnn_lite.dims import Dim, TensorType, require_one_dtype, union_of_dims
from returnn_lite.ir.op import Op
from returnn_lite.ir.ops.recurrence import CudnnKind, Step

X = TypeVar("X")


@dataclass(frozen=True)
class Member:
    """A recurrence of the stack: its step, and the dim of the rows of its input weights."""

    step: Step
    rows: Dim

    @property
    def kind(self) -> CudnnKind:
        """What it is to cuDNN."""
        kind = self.step.cudnn
        assert kind is not None, f"{self.step.label} is none of cuDNN's"
        return kind

    @property
    def hidden(self) -> Dim:
        """The dim of its output's features."""
        return self.kind.hidden

    @property
    def operand_count(self) -> int:
        """How many operands it has: input weights and bias, weights, states."""
        return 1 + min(self.step.state_inputs) + len(self.step.state_inputs)


@dataclass(frozen=True)
class MemberOperands(Generic[X]):
    """`input_weights` [rows, gates] and `bias` [gates]; the step's own `weights`, and the `states` before the first
    frame."""

    input_weights: X
    bias: X
    weights: tuple[X, ...]
    states: tuple[X, ...]


@dataclass(frozen=True)
class StackedRecurrence(Op):
    """Layers of recurrences of one kind over the frames of `over`, their input products included.

    Each layer has one member, which goes from each sequence's last frame to its first with `reverse`, or two, one in
    each direction, forwards first. A layer reads the outputs of the members below it, joined in this order; the first
    reads x, along `source`.

    Operands: x, then those of each member (`MemberOperands`), the lowest layer first. Results: the outputs of all
    frames of each member of the last layer; then the states after the last step of each member, those before the first
    frame where a sequence is empty.
    """

    works_along: ClassVar[tuple[str, ...]] = ("source", "layers", "over")
    source: Dim
    layers: tuple[tuple[Member, ...], ...]
    over: Dim
    reverse: bool = False

    @property
    def members(self) -> Iterator[Member]:
        """All of them, in the order of their operands."""
        return (member for layer in self.layers for member in layer)

    def by_member(self, operands: Sequence[X]) -> list[MemberOperands[X]]:
        """The operands behind x of each member."""
        found = []
        start = 0
        for member in self.members:
            first, bias, *others = operands[start : start + member.operand_count]
            states = len(member.step.state_inputs)
            found.append(MemberOperands(first, bias, tuple(others[:-states]), tuple(others[-states:])))
            start += member.operand_count
        return found

    def type_of(self, x: TensorType, *operands: TensorType) -> tuple[TensorType, ...]:
        require_one_dtype("a recurrence", (x, *operands), "float")
        given = iter(self.by_member(operands))
        source = x.require(self.source).without(self.source)
        finals: list[TensorType] = []
        outputs: list[TensorType] = []
        for layer in self.layers:
            outputs = []
            for member in layer:
                own = next(given)
                gates = own.input_weights.require(member.rows).without(member.rows)
                z = source.with_dims(*gates.dims)
                results = member.step.output_types((z, *own.weights, *own.states))
                states = [results[at].with_dims(self.over) for at in member.step.state_outputs]
                outputs.append(states[0])
                finals += [state.without(self.over) for state in states]
            rest = [output.without(member.hidden) for output, member in zip(outputs, layer, strict=True)]
            source = TensorType(union_of_dims(rest), x.dtype)
        return (*outputs, *finals)

    @property
    def causal(self) -> bool:
        return not self.reverse and all(len(layer) == 1 for layer in self.layers)
