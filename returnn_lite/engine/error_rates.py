"""Error rates of hypotheses: edits over reference labels, and wrong sequences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from returnn_lite.engine.errors import EngineError

try:
    import jiwer
except ImportError:
    jiwer = None

Labels = Sequence[str]


@dataclass(frozen=True)
class ErrorRates:
    """Edits (substitutions, insertions, deletions) against the nearest reference of each sequence, reference labels,
    sequences that equal none of their references, and all sequences.

    For grapheme-to-phoneme conversion `label_error_rate` is the phoneme error rate and `sequence_error_rate` the word
    error rate. Both are fractions; the first can exceed 1.
    """

    edits: int
    labels: int
    wrong: int
    sequences: int

    @property
    def label_error_rate(self) -> float:
        return self.edits / self.labels

    @property
    def sequence_error_rate(self) -> float:
        return self.wrong / self.sequences

    def __str__(self) -> str:
        return (
            f"label error rate {self.label_error_rate:.2%} ({self.edits} of {self.labels}), "
            f"sequence error rate {self.sequence_error_rate:.2%} ({self.wrong} of {self.sequences})"
        )


def error_rates(pairs: Iterable[tuple[Labels, Sequence[Labels]]]) -> ErrorRates:
    """The error rates of hypotheses, each with all its references; edit distances are jiwer's.

    Of several references the one with the fewest edits counts, of equal ones the longest. Raises EngineError without
    sequences, for a sequence without references, or if jiwer is not installed.
    """
    if jiwer is None:
        raise EngineError("error rates need the package 'jiwer': pip install 'returnn_lite[demo]'")
    edits = labels = wrong = sequences = 0
    for hypothesis, references in pairs:
        if not references:
            raise EngineError(f"there is no reference for the hypothesis {' '.join(hypothesis)!r}")
        distances = [(edit_distance(hypothesis, reference), -len(reference)) for reference in references]
        nearest, length = min(distances)
        edits, labels = edits + nearest, labels - length
        wrong, sequences = wrong + (nearest > 0), sequences + 1
    if not sequences or not labels:
        raise EngineError("there are no reference labels to compute error rates with")
    return ErrorRates(edits, labels, wrong, sequences)


def edit_distance(hypothesis: Labels, reference: Labels) -> int:
    """The Levenshtein distance of two label sequences."""
    if not reference or not hypothesis:
        return len(hypothesis) + len(reference)
    # jiwer compares words of texts: labels may hold spaces, so each gets a number.
    numbers = {label: str(number) for number, label in enumerate({*hypothesis, *reference})}
    texts = (" ".join(numbers[label] for label in labels) for labels in (reference, hypothesis))
    found = jiwer.process_words(*texts)
    return int(found.substitutions + found.insertions + found.deletions)
