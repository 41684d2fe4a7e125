"""Files with the labels of a vocabulary, by number: datasets and layers read them."""

from __future__ import annotations

import ast
import gzip
from collections.abc import Iterator


class LabelFileError(ValueError):
    """A file that cannot be read, or has no labels. The message names it."""


def lines_of(path: str) -> Iterator[str]:
    """The lines of a text file in UTF-8, which may be compressed (``.gz``). Raises LabelFileError."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8") as file:
            for line in file:
                yield line.rstrip("\r\n")
    except FileNotFoundError as error:
        raise LabelFileError(f"text file '{path}' does not exist") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise LabelFileError(f"text file '{path}' cannot be read: {error}") from error


def read_labels(path: str) -> tuple[str, ...]:
    """The labels of a file: one a line, or a Python dict literal from label to number as RETURNN writes it.

    Raises LabelFileError if the file cannot be read or the numbers of the dict are not 0, 1, 2, ...
    """
    lines = list(lines_of(path))
    if lines and lines[0].lstrip().startswith("{"):
        return _numbered(path, "\n".join(lines))
    labels = tuple(line for line in lines if line != "")
    if not labels:
        raise LabelFileError(f"vocabulary '{path}' is empty")
    return labels


def _numbered(path: str, text: str) -> tuple[str, ...]:
    """The labels of a dict literal in the order of their numbers."""
    try:
        numbers = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise LabelFileError(f"vocabulary '{path}' is not a dict from label to number: {error}") from error
    kinds = isinstance(numbers, dict) and {(type(label), type(number)) for label, number in numbers.items()}
    if kinds != {(str, int)}:
        raise LabelFileError(f"vocabulary '{path}' is not a dict from label (a string) to number")
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise LabelFileError(f"vocabulary '{path}': the {len(numbers)} labels are not numbered 0..{len(numbers) - 1}")
    return tuple(sorted(numbers, key=numbers.__getitem__))
