"""Text files as data: lines of one file, or pairs of lines of two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from returnn_lite.data.dataset import DataError, DataKeySpec, Dataset, Sequence
from returnn_lite.data.ordering import DEFAULT_ORDERING, SeqOrdering
from returnn_lite.data.vocabulary import Level, Vocabulary, read_lines, read_vocabulary
from returnn_lite.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class LabelDataset(Dataset):
    """Sequences of labels that are all in memory: for each key one array per sequence, and a vocabulary.

    `postfix` names labels that were appended to every sequence of a key; they are not part of the references.
    """

    def __init__(
        self,
        labels: Mapping[str, list[NDArray[np.int32]]],
        vocabularies: Mapping[str, Vocabulary],
        tags: list[str] | None,
        postfix: Mapping[str, int],
        ordering: SeqOrdering,
    ) -> None:
        self.ordering = ordering
        self._labels, self._tags, self._postfix = labels, tags, postfix
        self._num_seqs = len(next(iter(labels.values())))
        self._keys = {
            key: DataKeySpec(len(vocabularies[key]), sparse=True, labels=vocabularies[key].labels) for key in labels
        }

    @property
    def keys(self) -> Mapping[str, DataKeySpec]:
        return self._keys

    @property
    def num_seqs(self) -> int:
        return self._num_seqs

    def tag(self, index: int) -> str:
        return super().tag(index) if self._tags is None else self._tags[index]

    def lengths(self, key: str) -> NDArray[np.int64]:
        return np.array([len(labels) for labels in self._labels[key]], np.int64)

    def sequence(self, index: int) -> Sequence:
        return Sequence(self.tag(index), index, {key: labels[index] for key, labels in self._labels.items()})

    def references(self, index: int, key: str) -> tuple[tuple[str, ...], ...]:
        found = super().references(index, key)
        return tuple(labels[: len(labels) - self._postfix.get(key, 0)] for labels in found)


class TextPairDataset(LabelDataset):
    """Two text files with equally many lines: "data" from `source`, "classes" from `target`.

    `source_vocab` and `target_vocab` are files (see `read_vocabulary`); `source_level` and `target_level` say whether a
    line is cut into characters or words. `target_postfix` is a label put at the end of every target line (None for
    none). Files may be compressed (``.gz``). Raises DataError naming file and line.
    """

    def __init__(
        self,
        source: str,
        target: str,
        source_vocab: str,
        target_vocab: str,
        source_level: Level = "word",
        target_level: Level = "word",
        source_unknown_label: str | None = None,
        target_unknown_label: str | None = None,
        target_postfix: str | None = "</s>",
        ordering: SeqOrdering = DEFAULT_ORDERING,
    ) -> None:
        vocabularies = {
            "data": read_vocabulary(source_vocab, source_level, source_unknown_label),
            "classes": read_vocabulary(target_vocab, target_level, target_unknown_label),
        }
        postfix = [] if target_postfix is None else [vocabularies["classes"].number(target_postfix)]
        labels = {
            "data": encode_file(source, vocabularies["data"], []),
            "classes": encode_file(target, vocabularies["classes"], postfix),
        }
        counts = {len(found) for found in labels.values()}
        if len(counts) > 1:
            raise DataError(
                f"'{source}' has {len(labels['data'])} lines and '{target}' {len(labels['classes'])}; "
                "the lines of both files belong together"
            )
        if counts == {0}:
            raise DataError(f"text file '{source}' has no lines")
        super().__init__(labels, vocabularies, None, {"classes": len(postfix)}, ordering)


class TextDataset(LabelDataset):
    """The lines of a text file for a language model: "data" is the line with the end label, "delayed" the same one step
    later: it begins with the end label, and its label t is the one before label t of "data".

    `vocab` is a file (see `read_vocabulary`), `level` says how a line is cut, `end_label` is the label at the end.
    """

    def __init__(
        self,
        file: str,
        vocab: str,
        level: Level = "word",
        unknown_label: str | None = None,
        end_label: str = "</s>",
        ordering: SeqOrdering = DEFAULT_ORDERING,
    ) -> None:
        vocabulary = read_vocabulary(vocab, level, unknown_label)
        data = encode_file(file, vocabulary, [vocabulary.number(end_label)])
        if not data:
            raise DataError(f"text file '{file}' has no lines")
        vocabularies = dict.fromkeys(("data", "delayed"), vocabulary)
        super().__init__({"data": data, "delayed": delayed(data)}, vocabularies, None, {"data": 1}, ordering)


def delayed(sequences: list[NDArray[np.int32]]) -> list[NDArray[np.int32]]:
    """What comes before each label: every sequence shifted by one, its last label put first."""
    return [np.roll(labels, 1) for labels in sequences]


def encode_file(path: str, vocabulary: Vocabulary, postfix: list[int]) -> list[NDArray[np.int32]]:
    """The label numbers of each line, with `postfix` at the end. Raises DataError naming the line."""
    encoded = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            encoded.append(np.concatenate([vocabulary.encode(line), np.array(postfix, np.int32)]))
        except DataError as error:
            raise DataError(f"{path}:{number}: {error}") from error
    return encoded
