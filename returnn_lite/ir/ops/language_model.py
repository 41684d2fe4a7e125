"""Primitives of n-gram language models that the host evaluates (KenLM, Heafield 2011)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from returnn_lite.dims import Dim, TensorType, union_of_dims
from returnn_lite.ir.ops.recurrence import Step


class LabelTexts:
    """The text of each label, by number. No dataclass: nothing that is done to attributes reaches into it."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        self.texts = texts


@dataclass(frozen=True)
class NgramModel:
    """A language model of words, as scores of labels.

    The words are those of the labels' texts, one behind the other. With `merge_symbol`, a label that ends with it is
    the beginning of a word that the next label goes on with; until it is complete, it is scored as a word itself, and
    what that gave is taken back by the next label. Scores are natural logarithms. Nothing marks the end of a sequence
    but the label whose text is ``</s>``.
    """

    file: str
    labels: LabelTexts = field(repr=False)
    merge_symbol: str = ""


@dataclass(frozen=True)
class NgramScoreStep(Step):
    """The score of a label behind those before it, or of each label of `dense` behind it, as one word or its end.

    Operands: the label [..], the state [.., state] (int32, 0 at the beginning of a sequence), and, if some labels do
    not count, whether this one does [.., bool]. Results: the scores [..] or [.., dense]; the state with the label.
    """

    state_inputs: ClassVar[tuple[int, ...]] = (1,)
    state_outputs: ClassVar[tuple[int, ...]] = (1,)
    forwards_only: ClassVar[bool] = True
    works_along: ClassVar[tuple[str, ...]] = ("state",)
    model: NgramModel
    state: Dim
    dense: Dim | None = None

    @property
    def roles(self) -> tuple[str, ...]:
        return ("score", "state")

    def type_of(self, label: TensorType, state: TensorType, *counts: TensorType) -> tuple[TensorType, TensorType]:
        return _results(self.state, self.dense, label, state, *counts)

    @property
    def causal(self) -> bool:
        return True


def _results(
    state_dim: Dim, dense: Dim | None, label: TensorType, state: TensorType, *counts: TensorType
) -> tuple[TensorType, TensorType]:
    """The types of the scores and of the state."""
    dims = tuple(dim for dim in union_of_dims((label, state.require(state_dim), *counts)) if dim is not state_dim)
    scores = dims if dense is None else (*dims, dense)
    return TensorType(scores), TensorType((*dims, state_dim), state.dtype)
