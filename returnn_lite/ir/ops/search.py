"""Primitives of beam search. In the per-step view a value belongs to one hypothesis; the pass `beams` adds the beam
dim."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from returnn_lite.dims import Dim, DimError, TensorType, union_of_dims
from returnn_lite.ir.op import InLoop, Op

NEVER = -1e30
"""What a class other than 0 scores once a hypothesis has ended: less than any real score, but no infinity."""


@dataclass(frozen=True)
class ScoreRule:
    """How scores of a step and of a hypothesis combine (SEMANTICS 3.8).

    Ended hypotheses get class 0 at score 0, all other classes NEVER. With `cheating`, the last place of the beam is
    that of the given labels: "replace" puts them there, "exclusive" also keeps them from taking another place. With
    `combined`, the scores that are given are those of the extended hypotheses already; a hypothesis that does not exist
    is not extended whatever they say.
    """

    prob_scale: float = 1.0
    base_scale: float = 1.0
    keep_beams: bool = False
    random_scale: float = 0.0
    seed: str = ""
    cheating: str = ""
    combined: bool = False


@dataclass(frozen=True)
class CombineScores:
    """A function of a Python config that combines scores (SEMANTICS 3.8).

    `function` gets by name the tensors scores_in [batch, hypotheses, classes], scores_base [batch, hypotheses, 1],
    end_flags [batch, hypotheses], t, batch_dim, scores_beam_in and base_beam_in, and returns the scores of all
    extensions [batch, hypotheses, classes]; its first argument are the other operands, [batch * all hypotheses, ..].
    Where `one_at_first` there is one hypothesis in the first step. One that does not exist is not extended, whatever
    the function says.
    """

    function: Callable[..., object]
    name: str
    one_at_first: bool


@dataclass(frozen=True)
class Choose(Op):
    """Extends hypotheses and keeps the best: one step of beam search.

    Operands: log scores [.., classes], the hypothesis scores before [..], whether it has ended before [.., bool], the
    step number [], with `cheating` the gold labels [.., of classes], and what `combine` reads besides. Results: the
    label [.., of classes], the back-pointer [.., of incoming], the score [..]. With `explicit`, the operands have the
    dim `incoming` and the results `beam` in place of it, best first, ties to the lower index of (hypothesis, class).
    """

    numbers: ClassVar[tuple[tuple[int, str], ...]] = ((0, "classes"),)
    in_loop: ClassVar[InLoop] = InLoop.BEAM
    ended_at: ClassVar[int] = 2
    pointers_at: ClassVar[int] = 1
    works_along: ClassVar[tuple[str, ...]] = ("classes", "beam", "incoming")
    classes: Dim
    beam: Dim
    rule: ScoreRule
    explicit: bool = False
    incoming: Dim | None = None
    combine: CombineScores | None = None

    @property
    def roles(self) -> tuple[str, ...]:
        return ("label", "pointer", "score")

    def type_of(
        self, scores: TensorType, before: TensorType, ended: TensorType, step: TensorType, *others: TensorType
    ) -> tuple[TensorType, TensorType, TensorType]:
        right = others[: bool(self.rule.cheating)]
        dims = union_of_dims((scores.without(self.classes), before, ended, *right))
        if self.explicit:
            dims = (*(dim for dim in dims if dim not in (self.incoming, self.beam)), self.beam)
        score = TensorType(dims, "float32" if scores.dtype == "float32" else scores.dtype)
        return (
            score.of_dtype("int32", self.classes),
            score.of_dtype("int32", self.incoming or self.beam),
            score,
        )

    @property
    def chosen(self) -> Dim:
        return self.beam

    @property
    def lacks_beam(self) -> bool:
        return not self.explicit

    def with_beam(self, incoming: Dim | None) -> Choose:
        size, before = self.beam.size or 1, (incoming or self.beam).size or 1
        if self.rule.keep_beams and size % before:
            raise DimError(
                f"keep_beams: a beam of {size} can't keep as many successors of each of {before} hypotheses. "
                f"Set a beam_size that is a multiple of {before}"
            )
        return replace(self, explicit=True, incoming=incoming)


@dataclass(frozen=True)
class FirstBeam(Op):
    """The scores that search starts with: 0 for the first hypothesis of `beam`, -inf for the others; 0 if not
    `explicit`."""

    works_along: ClassVar[tuple[str, ...]] = ()
    beam: Dim
    dtype: str = "float32"
    explicit: bool = False

    def type_of(self) -> TensorType:
        return TensorType((self.beam,) if self.explicit else (), self.dtype)

    @property
    def lacks_beam(self) -> bool:
        return not self.explicit

    def with_beam(self, incoming: Dim | None) -> FirstBeam:
        return replace(self, explicit=True)


@dataclass(frozen=True)
class BeamGather(Op):
    """x of the hypotheses that the back-pointers (second operand) name: brings a value to the order after a choice.

    The result has the dims of the back-pointers in place of `beam`, that of the hypotheses before. x may lack `beam`:
    it is the same for all of them.
    """

    in_loop: ClassVar[InLoop] = InLoop.BEAM
    works_along: ClassVar[tuple[str, ...]] = ("beam",)
    beam: Dim

    def type_of(self, x: TensorType, back_pointers: TensorType) -> TensorType:
        kept = x.without(self.beam) if self.beam in x and self.beam not in back_pointers else x
        return kept.with_dims(*back_pointers.dims)


@dataclass(frozen=True)
class Decide(Op):
    """x of the best hypothesis, which each sequence has its own of. Operands: x, and the scores of the hypotheses.

    `times` pairs each dim whose length varies over the hypotheses with the dim of the best one's. Without a beam, it
    only renames these. Scores are divided by the length of `labels`, if given; a hypothesis of length 0 is taken only
    if there is no other.
    """

    works_along: ClassVar[tuple[str, ...]] = ("beam",)
    beam: Dim
    times: tuple[tuple[Dim, Dim], ...]
    labels: Dim | None = None

    def type_of(self, x: TensorType, scores: TensorType) -> TensorType:
        kept = x.with_dims(*scores.dims).without(self.beam) if self.beam in x else x
        return kept.renamed({old: new for old, new in self.times if old in kept})

    def created_dims(self) -> tuple[Dim, ...]:
        return tuple(new for _, new in self.times)


@dataclass(frozen=True)
class SplitBeam(Op):
    """x of all hypotheses along `out` in place of `beam`: what follows has nothing to do with search.

    `times` pairs each dim whose length varies over the hypotheses with the dim whose length varies over `out`. x may
    lack `beam`: it is the same for all of them.
    """

    works_along: ClassVar[tuple[str, ...]] = ()
    beam: Dim
    out: Dim
    times: tuple[tuple[Dim, Dim], ...] = ()

    def type_of(self, x: TensorType) -> TensorType:
        kept = x.renamed({old: new for old, new in self.times if old in x})
        return kept.renamed({self.beam: self.out}) if self.beam in kept else kept.with_dims(self.out)

    def created_dims(self) -> tuple[Dim, ...]:
        return tuple(new for _, new in self.times)


@dataclass(frozen=True)
class SumOverBeam(Op):
    """The sum over the hypotheses of `beam`; x itself where it is the same for all, or nothing searches."""

    works_along: ClassVar[tuple[str, ...]] = ("beam",)
    beam: Dim

    def type_of(self, x: TensorType) -> TensorType:
        return x.without(self.beam) if self.beam in x else x


@dataclass(frozen=True)
class ExpectedOverBeam(Op):
    """What x is on average over the hypotheses, weighted by their probabilities. Operands: x, and the log scores.

    The weights are exp(score), with `normalize` divided by their sum, which has no gradient with `constant_norm`. With
    `centered`, the plain average of x, without a gradient, is subtracted before. Prabhavalkar et al. 2018, Minimum word
    error rate training for attention-based sequence-to-sequence models.
    """

    works_along: ClassVar[tuple[str, ...]] = ("beam",)
    beam: Dim
    normalize: bool = True
    constant_norm: bool = True
    centered: bool = True

    def type_of(self, x: TensorType, scores: TensorType) -> TensorType:
        dims = union_of_dims((x, scores))
        return x.of_dims(tuple(dim for dim in dims if dim is not self.beam))
