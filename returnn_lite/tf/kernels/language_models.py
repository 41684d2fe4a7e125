"""N-gram language models in the host: what KenLM says, with states that a tensor can carry.

A state is a row of numbers of texts: the last words, right-aligned, and last the word that is not complete. Number 0
among the words is the beginning of the sequence, as the incomplete word it is none. The numbers are given in order of
appearance; words that the model does not know share one, so there are as many as the model has words, and as many as
there were incomplete words.
"""

from __future__ import annotations

import importlib
import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from returnn_lite.ir import Graph, walk
from returnn_lite.ir.ops.language_model import NgramModel, NgramScoreStep
from returnn_lite.ir.ops.recurrence import Recurrence

UNKNOWN = "<unk>"
Ints = NDArray[np.int32]


class LanguageModelError(ValueError):
    """A language model that cannot be used: the file, or the package that reads it."""


def require_language_models(graph: Graph) -> None:
    """Reads the language models of a graph. Raises LanguageModelError."""
    for node in walk(graph.nodes):
        op = node.op.step if isinstance(node.op, Recurrence) else node.op
        if isinstance(op, NgramScoreStep):
            read_model(op.model.file)


class Numbering:
    """Numbers of texts; that of none is 0."""

    def __init__(self) -> None:
        self._texts = [""]
        self._numbers = {"": 0}
        self._lock = threading.Lock()

    def number(self, text: str) -> int:
        """The number of a text, a new one if it has none."""
        with self._lock:
            number = self._numbers.setdefault(text, len(self._texts))
            if number == len(self._texts):
                self._texts.append(text)
            return number

    def text(self, number: int) -> str:
        """The text of a number."""
        return self._texts[number]


@dataclass(frozen=True)
class LoadedModel:
    """KenLM's objects: `model` has the scores, `new_state` makes the empty state that a call fills. All that use the
    model share the numbers of texts, and so may go on from each other's states."""

    model: Any
    new_state: Callable[[], Any]
    numbering: Numbering = field(default_factory=Numbering)


def read_model(path: str) -> LoadedModel:
    """The model of an ARPA or binary file. Raises LanguageModelError that names the file."""
    try:
        read = Path(path).stat()
    except OSError as error:
        raise LanguageModelError(f"language model '{path}' cannot be read: {error.strerror}") from error
    return _read(path, read.st_mtime_ns, read.st_size)


@lru_cache(maxsize=4)
def _read(path: str, changed: int, size: int) -> LoadedModel:
    """The model of a file in the state that its size and time of change stand for: one for all modes of a network."""
    try:
        kenlm = importlib.import_module("kenlm")
    except ImportError as error:
        raise LanguageModelError(
            f"language model '{path}' needs the package kenlm. Install it: pip install 'returnn_lite[kenlm]'"
        ) from error
    try:
        settings = kenlm.Config()
        settings.show_progress = False
        return LoadedModel(kenlm.Model(path, settings), kenlm.State)
    except (OSError, RuntimeError) as error:
        raise LanguageModelError(f"language model '{path}' cannot be read: {error}") from error


class Scorer:
    """Scores labels one after the other. The caches are bounded, and results do not depend on what is in them."""

    def __init__(self, model: NgramModel, dense: bool) -> None:
        loaded = read_model(model.file)
        self._kenlm, self._new_state = loaded.model, loaded.new_state
        self._order = self._kenlm.order
        self._labels = model.labels.texts
        self._parts = [_parts(text, model.merge_symbol) for text in model.labels.texts]
        # An incomplete word stands for itself; where all continuations are scored, they are scored with the symbol.
        self._behind_incomplete = model.merge_symbol if dense else ""
        self._text, self._number = loaded.numbering.text, loaded.numbering.number
        self._context_state = lru_cache(1 << 16)(self._context_state_of)
        self._word_score = lru_cache(1 << 18)(self._word_score_of)
        self._all_scores = lru_cache(256)(self._all_scores_of)

    def score(self, labels: Ints, states: Ints, counts: NDArray[np.bool_]) -> tuple[NDArray[np.float32], Ints]:
        """The score of each label [steps, rows] and the states [steps, rows, width] after it, from those before all
        [rows, width]."""
        return self._run(labels, states, counts, dense=False)

    def score_all(self, labels: Ints, states: Ints, counts: NDArray[np.bool_]) -> tuple[NDArray[np.float32], Ints]:
        """As `score`, but the scores of all labels that could follow [steps, rows, labels]."""
        return self._run(labels, states, counts, dense=True)

    def _run(
        self, labels: Ints, states: Ints, counts: NDArray[np.bool_], dense: bool
    ) -> tuple[NDArray[np.float32], Ints]:
        steps, rows = labels.shape
        width = states.shape[-1]
        if self._order > width:
            raise ValueError(f"the language model is of order {self._order}, but the state has {width - 1} words")
        scores = np.zeros([steps, rows, *([len(self._labels)] if dense else [])], np.float32)
        after = np.zeros([steps, rows, width], np.int32)
        labels = np.clip(labels, 0, len(self._labels) - 1)  # padding may be anything
        for row in range(rows):
            words, incomplete = self._unpacked(states[row].tolist())
            for step in range(steps):
                score = 0.0
                if counts[step, row]:
                    score, words, incomplete = self._extended(words, incomplete, int(labels[step, row]))
                scores[step, row] = self._all_scores(words, incomplete) if dense else score
                after[step, row] = self._packed(words, incomplete, width)
        return scores, after

    def _unpacked(self, state: list[int]) -> tuple[tuple[int, ...], int]:
        """The words that the next one's score depends on, and the incomplete word."""
        return self._shortened(tuple(state[:-1])), state[-1]

    def _shortened(self, words: Iterable[int]) -> tuple[int, ...]:
        """The last words that count, the beginning of the sequence once."""
        last = tuple(words)
        last = last[max(len(last) - self._order + 1, 0) :]
        known = tuple(word for word in last if word)
        return known if len(known) == len(last) else (0, *known)

    def _packed(self, words: tuple[int, ...], incomplete: int, width: int) -> list[int]:
        return [*[0] * (width - 1 - len(words)), *words, incomplete]

    def _extended(self, words: tuple[int, ...], incomplete: int, label: int) -> tuple[float, tuple[int, ...], int]:
        """The score of a label, and what the state is then."""
        score = -self._incomplete_score(words, incomplete)
        first, *others = self._parts[label]
        text = self._text(incomplete) + first
        for part in others:
            if text:
                score += self._word_score(words, text)
                word = self._number(text if text in self._kenlm else UNKNOWN)
                words = self._shortened((*words, word))
            text = part
        incomplete = self._number(text)
        return score + self._incomplete_score(words, incomplete), words, incomplete

    def _incomplete_score(self, words: tuple[int, ...], incomplete: int) -> float:
        if not incomplete:
            return 0.0
        return self._word_score(words, self._text(incomplete) + self._behind_incomplete)

    # What is kept in caches

    def _word_score_of(self, words: tuple[int, ...], text: str) -> float:
        score: float = self._kenlm.BaseScore(self._context_state(words), text, self._new_state())
        return score * math.log(10)

    def _all_scores_of(self, words: tuple[int, ...], incomplete: int) -> NDArray[np.float32]:
        before, behind, text = self._context_state(words), self._new_state(), self._text(incomplete)
        found = [self._kenlm.BaseScore(before, text + label, behind) for label in self._labels]
        scores = np.array(found) * math.log(10) - self._incomplete_score(words, incomplete)
        return scores.astype(np.float32)

    def _context_state_of(self, words: tuple[int, ...]) -> Any:
        """KenLM's state behind words; what is before them makes no difference."""
        state = self._new_state()
        if 0 in words[:1]:
            self._kenlm.BeginSentenceWrite(state)
        else:
            self._kenlm.NullContextWrite(state)
        for word in words:
            if word:
                after = self._new_state()
                self._kenlm.BaseScore(state, self._text(word), after)
                state = after
        return state


def _parts(label: str, merge_symbol: str) -> list[str]:
    """A label's text cut where words end: the last part goes on with the next label, and is empty if it does not."""
    text = label + " "
    if merge_symbol:
        text = text.replace(merge_symbol + " ", "")
    return text.split(" ")
