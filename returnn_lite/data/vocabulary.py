"""Text to label numbers and back: a list of labels, and how a line is cut into them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from returnn_lite.config.label_file import LabelFileError, lines_of, read_labels
from returnn_lite.data.dataset import DataError
from returnn_lite.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Level = Literal["char", "word"]
END = "</s>"
UNKNOWN = "<unk>"


@dataclass(frozen=True)
class Vocabulary:
    """Labels, numbered by position. `level` says whether a line is cut into characters or at white space.

    With an `unknown_label`, text outside the vocabulary gets its number; without, it is an error.
    """

    labels: tuple[str, ...]
    level: Level = "word"
    unknown_label: str | None = None
    _numbers: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        numbers = {label: number for number, label in enumerate(self.labels)}
        if len(numbers) != len(self.labels):
            twice = next(label for number, label in enumerate(self.labels) if numbers[label] != number)
            raise DataError(f"the label {twice!r} occurs twice in the vocabulary")
        if self.unknown_label is not None and self.unknown_label not in numbers:
            raise DataError(f"the unknown_label {self.unknown_label!r} is not in the vocabulary")
        object.__setattr__(self, "_numbers", numbers)

    def __len__(self) -> int:
        return len(self.labels)

    def number(self, label: str) -> int:
        """The number of a label. Raises DataError if there is no such label."""
        if label in self._numbers:
            return self._numbers[label]
        raise DataError(f"the label {label!r} is not in the vocabulary of {len(self)} labels")

    def encode(self, text: str) -> NDArray[np.int32]:
        """The labels of a line. Raises DataError for text outside the vocabulary if there is no unknown label."""
        fallback = None if self.unknown_label is None else self._numbers[self.unknown_label]
        numbers = [self._numbers.get(part, fallback) for part in split(text, self.level)]
        if None in numbers:
            part = split(text, self.level)[numbers.index(None)]
            raise DataError(f"{part!r} in {text[:60]!r} is not in the vocabulary; set unknown_label to allow it")
        return np.array(numbers, np.int32)

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of labels: characters joined, words with spaces between."""
        return ("" if self.level == "char" else " ").join(self.labels[number] for number in numbers)


def split(text: str, level: Level) -> Sequence[str]:
    """The parts of a line that are labels."""
    return list(text) if level == "char" else text.split()


def read_lines(path: str) -> Iterator[str]:
    """The lines of a text file in UTF-8, which may be compressed (``.gz``). Raises DataError naming the file."""
    try:
        yield from lines_of(path)
    except LabelFileError as error:
        raise DataError(str(error)) from error


def read_vocabulary(path: str, level: Level = "word", unknown_label: str | None = None) -> Vocabulary:
    """Reads a vocabulary: see `read_labels`.

    Raises DataError if the file cannot be read or the numbers of a dict are not 0, 1, 2, ...
    """
    try:
        labels = read_labels(path)
    except LabelFileError as error:
        raise DataError(str(error)) from error
    return _vocabulary(path, labels, level, unknown_label)


def _vocabulary(path: str, labels: tuple[str, ...], level: Level, unknown_label: str | None) -> Vocabulary:
    try:
        return Vocabulary(labels, level, unknown_label)
    except DataError as error:
        raise DataError(f"vocabulary '{path}': {error}") from error
