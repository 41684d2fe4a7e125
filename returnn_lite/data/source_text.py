"""The sources of Python's standard library as text for a character language model: on every machine, no download."""

from __future__ import annotations

import hashlib
import sysconfig
from pathlib import Path
from typing import Literal, get_args

from returnn_lite.data.dataset import DataError
from returnn_lite.data.ordering import DEFAULT_ORDERING, SeqOrdering
from returnn_lite.data.text import LabelDataset, delayed
from returnn_lite.data.vocabulary import END, UNKNOWN, Vocabulary
from returnn_lite.lazy_numpy import np

Part = Literal["train", "dev", "test"]
CHARACTERS = Vocabulary((END, UNKNOWN, "\n", *map(chr, range(32, 127))), "char", unknown_label=UNKNOWN)
"""End of sequence (0), unknown (1), line end, and the printable ASCII characters."""


class SourceTextDataset(LabelDataset):
    """Characters of the standard library's top-level modules, in sequences of `seq_len` characters and the end label.

    Keys as in `TextDataset`: "data" and, one step later, "delayed". Modules are split by a hash of their file name, 90
    % for training and 5 % each for development and test, taken in alphabetic order until `max_chars` characters are
    reached. The text depends on the version of Python, and on nothing else.
    """

    def __init__(
        self,
        part: Part,
        seq_len: int = 200,
        max_chars: int = 2_000_000,
        ordering: SeqOrdering = DEFAULT_ORDERING,
    ) -> None:
        if part not in get_args(Part):
            raise DataError(f"SourceTextDataset: part '{part}' is not one of {', '.join(get_args(Part))}")
        if seq_len < 1 or max_chars < 1:
            raise DataError("SourceTextDataset: seq_len and max_chars must be positive")
        files = [path for path in sorted(_library().glob("*.py")) if _part_of(path.name) == part]
        pieces: list[tuple[str, str]] = []
        left = max_chars
        for path in files:
            text = path.read_text(encoding="utf-8", errors="replace").replace("\t", "        ")[:left]
            left -= len(text)
            pieces += [
                (f"{path.stem}:{start}", text[start : start + seq_len]) for start in range(0, len(text), seq_len)
            ]
        if not pieces:
            raise DataError(f"SourceTextDataset: no sources found in '{_library()}'")
        end = np.array([CHARACTERS.number(END)], np.int32)
        data = [np.concatenate([CHARACTERS.encode(text), end]) for _, text in pieces]
        vocabularies = dict.fromkeys(("data", "delayed"), CHARACTERS)
        tags = [tag for tag, _ in pieces]
        super().__init__({"data": data, "delayed": delayed(data)}, vocabularies, tags, {"data": 1}, ordering)


def _library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _part_of(name: str) -> Part:
    percent = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 100
    return "train" if percent < 90 else "dev" if percent < 95 else "test"
