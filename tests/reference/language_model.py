"""Meanings of n-gram language models: every text is scored from its beginning.

A state is the labels so far, each one more than its number, so it has room for as many labels as it is wide.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping

import numpy as np

from returnn_lite.dims import Dim
from returnn_lite.ir import Op
from returnn_lite.ir.ops.language_model import NgramModel, NgramScoreStep
from tests.reference.named import Lengths, Named, union
from tests.reference.rule import Rule


class Scratch:
    """The log probability of label sequences."""

    def __init__(self, model: NgramModel, dense: bool) -> None:
        self.kenlm = importlib.import_module("kenlm").Model(model.file)
        self.texts, self.symbol, self.dense = model.labels.texts, model.merge_symbol, dense

    def words(self, labels: list[int]) -> str:
        text = "".join(self.texts[label] + " " for label in labels)
        return text.replace(f"{self.symbol} ", "") if self.symbol else text

    def total(self, labels: list[int]) -> float:
        text = self.words(labels)
        is_complete = text == "" or text.endswith(" ")
        return self.score(text if is_complete or not self.dense else text + self.symbol)

    def continued(self, labels: list[int]) -> list[float]:
        """What could follow is one word each, whatever it is made of."""
        words = [text.replace(" ", "_") for text in self.texts]
        return [self.score(self.words(labels) + word) - self.total(labels) for word in words]

    def score(self, text: str) -> float:
        return math.log(10) * sum(word[0] for word in self.kenlm.full_scores(text, bos=True, eos=False))


def one_step(op: NgramScoreStep, lengths: Lengths, label: Named, state: Named, *counts: Named) -> tuple[Named, Named]:
    """One more label."""
    batch = tuple(dim for dim in union([label, state, *counts]) if dim != op.state)
    return _scored(op.model, op.state, op.dense, batch, lengths, label, state, *counts)


def _scored(
    model: NgramModel,
    state_dim: Dim,
    dense: Dim | None,
    batch: tuple[Dim, ...],
    lengths: Lengths,
    label: Named,
    state: Named,
    *counts: Named,
) -> tuple[Named, Named]:
    scratch = Scratch(model, dense is not None)
    shape = [lengths.size(dim) for dim in batch]
    labels = np.broadcast_to(label.over(batch), shape)
    before = np.broadcast_to(state.over((*batch, state_dim)), [*shape, state_dim.size or 0])
    used = np.broadcast_to(counts[0].over(batch) if counts else np.array(True).reshape([1] * len(shape)), shape)
    scores = np.zeros([*shape, *([] if dense is None else [dense.size or 0])])
    after = before.copy()
    for at in np.ndindex(*shape):
        history = [int(number) - 1 for number in before[at] if 0 < number <= len(scratch.texts)]
        one = min(max(int(labels[at]), 0), len(scratch.texts) - 1)
        longer = [*history, one] if used[at] else history
        assert len(longer) <= before.shape[-1], "the reference's state is full"
        after[at] = [*(number + 1 for number in longer), *[0] * (before.shape[-1] - len(longer))]
        scores[at] = scratch.total(longer) - scratch.total(history) if dense is None else scratch.continued(longer)
    return Named(scores, batch if dense is None else (*batch, dense)), Named(after, (*batch, state_dim))


RULES: Mapping[type[Op], Rule] = {NgramScoreStep: one_step}
