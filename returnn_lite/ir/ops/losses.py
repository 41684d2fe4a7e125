"""Primitives of losses and error measures."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import ClassVar

from returnn_lite.dims import Dim, TensorType, union_of_dims
from returnn_lite.ir.kept import Kept
from returnn_lite.ir.op import Op


@dataclass(frozen=True)
class SparseCrossEntropy(Op):
    """-log softmax(logits)[target] over `classes`. Operands: logits [.., classes], target [.., int]."""

    works_along: ClassVar[tuple[str, ...]] = ("classes",)
    classes: Dim

    def indices(self) -> tuple[tuple[int, Dim, int | None], ...]:
        return ((1, self.classes, None),)

    def type_of(self, logits: TensorType, target: TensorType) -> TensorType:
        kept = logits.without(self.classes).require_dtype("float", "cross entropy")
        target.require_dtype("int", "the target of a cross entropy")
        return TensorType(union_of_dims((kept, target)), logits.dtype)

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        """The gradient itself, which the kernel computes with the loss."""
        return Kept(inner=(self.type_of(*inputs).with_dims(self.classes),))


@dataclass(frozen=True)
class SigmoidCrossEntropy(Op):
    """-t log s(x) - (1-t) log(1 - s(x)) elementwise, stable for large x; `positive_weight` multiplies the first
    term."""

    positive_weight: float = 1.0

    def type_of(self, logits: TensorType, target: TensorType) -> TensorType:
        for x in (logits, target):
            x.require_dtype("float", "sigmoid cross entropy")
        return logits.with_dims(*target.dims)

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        """Both operands, the weight and its complement, -abs(x), -x cut off at 0, the exponential, and the sum of
        both."""
        return Kept(operands=(0, 1), inner=(self.type_of(*inputs),) * 5)


@dataclass(frozen=True)
class Ctc(Op):
    """-log p(target | logits) of connectionist temporal classification, one number a sequence (Graves et al. 2006,
    eq. 14).

    Operands: logits [time, classes], target [labels]. `blank` is the index of the blank class. A target that does not
    fit into the frames has an infinite loss; such a sequence counts 0 and has no gradient if `zero_infinity`. Without
    `merge_repeated` each label has one frame, and equal ones need no blank in between. With `best_path`, p is that of
    the most probable path alone.
    """

    works_along: ClassVar[tuple[str, ...]] = ("time", "classes", "labels")
    time: Dim
    classes: Dim
    labels: Dim
    blank: int
    collapse_repeated: bool = False
    zero_infinity: bool = False
    merge_repeated: bool = True
    best_path: bool = False

    def indices(self) -> tuple[tuple[int, Dim, int | None], ...]:
        return ((1, self.classes, self.blank),)

    def type_of(self, logits: TensorType, target: TensorType) -> TensorType:
        kept = logits.without(self.time, self.classes).require_dtype("float", "ctc")
        target.require_dtype("int", "the target of ctc")
        return TensorType(union_of_dims((kept, target.without(self.labels))), logits.dtype)

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        """The gradient itself, which the kernel computes with the loss."""
        return Kept(inner=inputs[:1])


@dataclass(frozen=True)
class CtcGreedyDecode(Op):
    """The best class of each frame, repetitions merged, blanks removed: labels along the new ragged dim `out`."""

    numbers: ClassVar[tuple[tuple[int, str], ...]] = ((0, "classes"),)
    works_along: ClassVar[tuple[str, ...]] = ("time", "classes")
    time: Dim
    classes: Dim
    blank: int
    out: Dim

    def type_of(self, logits: TensorType) -> TensorType:
        kept = logits.without(self.time, self.classes).require_dtype("float", "ctc")
        return TensorType((*kept.dims, self.out), "int32", self.classes)

    def created_dims(self) -> tuple[Dim, ...]:
        return (self.out,)


@dataclass(frozen=True)
class CtcBeamDecode(CtcGreedyDecode):
    """The most probable labels that search with `width` prefixes finds (Graves 2012, section 7.5), along `out`."""

    width: int


@dataclass(frozen=True)
class EditDistance(Op):
    """Levenshtein distance of two label sequences, an int for each pair; operands a [a_time], b [b_time]."""

    works_along: ClassVar[tuple[str, ...]] = ("a_time", "b_time")
    a_time: Dim
    b_time: Dim

    def type_of(self, a: TensorType, b: TensorType) -> TensorType:
        for x in (a, b):
            x.require_dtype("int", "edit_distance")
        kept = a.without(self.a_time)
        return kept.with_dims(*b.without(self.b_time).dims).of_dtype("int32")


@dataclass(frozen=True)
class OptimalCompletions(Op):
    """The least edit distance to a reference that labels can come to have if they go on with a given one, for each of
    `classes` (Sabour et al. 2019, section 3.1).

    Operands: the row of the edit distance table of the labels so far [row], row = labels + 1, and the reference
    [labels]; result int32. Going on with `blank` is adding no label.
    """

    works_along: ClassVar[tuple[str, ...]] = ("labels", "row", "classes")
    labels: Dim
    row: Dim
    classes: Dim
    blank: int | None = None

    def type_of(self, row: TensorType, reference: TensorType) -> TensorType:
        for x in (row, reference):
            x.require_dtype("int", "an edit distance")
        dims = union_of_dims((row.without(self.row), reference.without(self.labels)))
        return TensorType((*dims, self.classes), "int32")


@dataclass(frozen=True)
class FrameCount(Op):
    """How many real frames there are over the dims of the operand: what a summed loss is divided by, as a float."""

    def type_of(self, x: TensorType) -> TensorType:
        return TensorType((), "float32")

    def along(self, *inputs: TensorType) -> tuple[Dim, ...]:
        return inputs[0].dims
