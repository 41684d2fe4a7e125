"""Cutting sequences into chunks of frames for training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from returnn_lite.data.dataset import DataError

PerKey = int | Mapping[str, int]


@dataclass(frozen=True)
class Piece:
    """Frames of one sequence: for each data key with time, the first frame and the number of frames."""

    index: int
    starts: Mapping[str, int]
    lengths: Mapping[str, int]


@dataclass(frozen=True)
class Chunking:
    """Chunks of `size` frames, one starting every `step` frames, each a number or a dict from data key to number.

    The last chunks of a sequence are shorter. One that would start with no more than `min_size` frames left is not
    made, except for the first of a sequence.
    """

    size: PerKey
    step: PerKey
    min_size: PerKey = 0

    def __post_init__(self) -> None:
        for name in ("size", "step"):
            value = getattr(self, name)
            if min(value.values() if isinstance(value, Mapping) else [value], default=0) <= 0:
                raise DataError(f"chunking: the {name} must be positive, got {value}")
        if isinstance(self.size, Mapping) != isinstance(self.step, Mapping) or (
            isinstance(self.size, Mapping) and isinstance(self.step, Mapping) and set(self.size) != set(self.step)
        ):
            raise DataError(f"chunking: size {self.size} and step {self.step} must name the same data keys")

    def pieces(self, index: int, lengths: Mapping[str, int], tag: str) -> Iterator[Piece]:
        """The chunks of one sequence. Raises DataError if its data keys would give different numbers of chunks."""
        starts = {}
        for key, length in lengths.items():
            least = self.min_size.get(key, 0) if isinstance(self.min_size, Mapping) else self.min_size
            step = self._of(self.step, key)
            starts[key] = [0, *range(step, length - least, step)]
        counts = {key: len(found) for key, found in starts.items()}
        if len(set(counts.values())) > 1:
            raise DataError(
                f"chunking: sequence '{tag}' has lengths {dict(lengths)}, which give {counts} chunks; "
                "all data keys must give the same number. Set the size and step of each data key"
            )
        for begins in zip(*starts.values(), strict=True):
            first = dict(zip(starts, begins, strict=True))
            yield Piece(
                index,
                first,
                {key: min(self._of(self.size, key), lengths[key] - first[key]) for key in lengths},
            )

    @staticmethod
    def _of(value: PerKey, key: str) -> int:
        if not isinstance(value, Mapping):
            return value
        if key not in value:
            raise DataError(f"chunking: no size and step for the data key '{key}'; there are {sorted(value)}")
        return value[key]


def parse_chunking(value: Any, min_chunk_size: PerKey = 0) -> Chunking | None:
    """Reads the forms that configs use; None for no chunking.

    ``"50:25"`` is size and step, ``"50"`` or ``50`` means both; ``"0"`` or None means no chunking. Per data key either
    ``{"data": "50:25", "classes": "5:2"}`` or a pair of dicts, sizes and steps.
    """
    if value is None or value in ("", "0", 0):
        return None
    if isinstance(value, Mapping):
        pairs = {key: _size_and_step(text) for key, text in value.items()}
        return Chunking(
            {key: size for key, (size, _) in pairs.items()},
            {key: step for key, (_, step) in pairs.items()},
            min_chunk_size,
        )
    if isinstance(value, list | tuple) and len(value) == 2:
        size, step = value
        if all(isinstance(part, int | Mapping) for part in value):
            return Chunking(size, step, min_chunk_size)
    return Chunking(*_size_and_step(value), min_chunk_size)


def _size_and_step(value: Any) -> tuple[int, int]:
    size, _, step = str(value).partition(":")
    if not size.isdecimal() or not (step or "0").isdecimal():
        raise DataError(f"chunking: '{value}' is not 'size:step', for example '50:25'")
    return int(size), int(step or size)
