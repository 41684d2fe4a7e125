"""From the sequences of an epoch to padded batches.

The plan of an epoch (which frames of which sequences form a batch) looks at lengths only; arrays are loaded when a
batch is taken. All sizes are in frames and count padding, because that is what memory and time go by.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from returnn_lite.data.chunking import Chunking, Piece
from returnn_lite.data.dataset import DataError, DataKeySpec, Dataset, Sequence, check_sequence
from returnn_lite.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PerKey = int | Mapping[str, int]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchOptions:
    """How sequences are put together.

    Each limit is a number, which then holds for every data key, or a dict from data key to number, which leaves the
    other keys unlimited.

    `batch_size`: of one batch, its longest sequence times its number of sequences. A sequence that is longer makes a
    batch of its own, with a warning. `max_seqs`: sequences (or chunks) in a batch; None or -1 for any number.
    `max_seq_length`, `min_seq_length`: other sequences (or chunks) are left out. `max_pad_size`: frames
    of padding in a batch. `chunking`: None to keep sequences whole.
    """

    batch_size: PerKey
    max_seqs: int | None = None
    max_seq_length: PerKey | None = None
    min_seq_length: PerKey | None = None
    max_pad_size: PerKey | None = None
    chunking: Chunking | None = None

    def __post_init__(self) -> None:
        sizes = self.batch_size.values() if isinstance(self.batch_size, Mapping) else [self.batch_size]
        if not sizes or min(sizes) <= 0:
            raise DataError(f"batch_size must be positive, got {self.batch_size}")
        if self.max_seqs is not None and self.max_seqs != -1 and self.max_seqs <= 0:
            raise DataError(f"max_seqs must be positive, or -1 for no limit, got {self.max_seqs}")


@dataclass(frozen=True)
class Batch:
    """Sequences padded with zeros to equal length.

    `data[key]` is [B, T, ...] ([B, ...] for keys without time), `seq_lens[key]` int32 [B] for keys with time; for those
    with other or more axes of varying length a dict of them, by the number of the axis.
    `tags` and `seq_indices` (of the corpus) name the sequence of each row.
    """

    data: Mapping[str, NDArray[Any]]
    seq_lens: Mapping[str, NDArray[np.int32] | Mapping[int, NDArray[np.int32]]]
    tags: tuple[str, ...]
    seq_indices: tuple[int, ...]

    @property
    def num_seqs(self) -> int:
        return len(self.tags)


def batches(dataset: Dataset, epoch: int, options: BatchOptions) -> Iterator[Batch]:
    """The batches of an epoch (1-based), in its order. Raises DataError for data that does not fit the dataset's keys.

    The arrays of a sequence are loaded once for all its chunks that stand together.
    """
    current = dataset.at_epoch(epoch)
    return load(current, plan(current, current.epoch_order(epoch), options))


def load(dataset: Dataset, planned: Iterable[tuple[Piece, ...]]) -> Iterator[Batch]:
    """Loads, checks and pads the pieces of each planned batch."""
    last: Sequence | None = None
    for pieces in planned:
        rows = []
        for piece in pieces:
            if last is None or last.index != piece.index:
                last = dataset.sequence(piece.index)
                check_sequence(last, dataset.keys)
            rows.append(cut(last, piece, dataset.keys))
        yield pad(rows, dataset.keys)


def plan(dataset: Dataset, order: Iterable[int], options: BatchOptions) -> Iterator[tuple[Piece, ...]]:
    """Which pieces of which sequences each batch holds. Raises DataError if there is no sequence, or none is left."""
    if dataset.num_seqs == 0:
        raise DataError("the dataset has no sequences")
    keys = _limited_keys(dataset, options)
    lengths = {key: dataset.lengths(key) for key in keys}
    visited = list(order)
    if not visited:
        raise DataError(
            f"the epoch visits none of the {dataset.num_seqs} sequences; see seq_ordering, partition_epoch and "
            "seq_list_filter_file"
        )
    current, used = _Growing(options), False
    for index in visited:
        for piece in _pieces(dataset, index, {key: int(lengths[key][index]) for key in keys}, options.chunking):
            if not _wanted(piece.lengths, options):
                continue
            used = True
            if not current.has_room(piece):
                yield current.take()
            current.add(piece, dataset)
    if current.pieces:
        yield current.take()
    if not used:
        raise DataError(_all_left_out(options, {key: lengths[key][visited] for key in keys}))


def _all_left_out(options: BatchOptions, lengths: Mapping[str, NDArray[Any]]) -> str:
    limits = {"min_seq_length": options.min_seq_length, "max_seq_length": options.max_seq_length}
    given = [f"{name} {limit}" for name, limit in limits.items() if limit is not None]
    given += ["chunking"] if options.chunking is not None else []
    found = ", ".join(f"{min(frames)} to {max(frames)} frames of '{key}'" for key, frames in lengths.items())
    count = max(map(len, lengths.values()), default=0)
    return f"none of the {count} sequences of the epoch is left by {' and '.join(given)}; they have {found}"


def _limited_keys(dataset: Dataset, options: BatchOptions) -> tuple[str, ...]:
    """The data keys with time; a limit must name some of them."""
    keys = tuple(key for key, spec in dataset.keys.items() if spec.has_time)
    for name in ("batch_size", "max_seq_length", "min_seq_length", "max_pad_size"):
        limit = getattr(options, name)
        for key in limit if isinstance(limit, Mapping) else ():
            if key not in keys:
                raise DataError(f"{name} names the data key '{key}'; the dataset has {', '.join(keys)}")
    return keys


def _limit(limit: PerKey | None, key: str) -> int | None:
    return limit.get(key) if isinstance(limit, Mapping) else limit


def _wanted(lengths: Mapping[str, int], options: BatchOptions) -> bool:
    for key, length in lengths.items():
        most, least = _limit(options.max_seq_length, key), _limit(options.min_seq_length, key)
        if (most is not None and length > most) or (least is not None and length < least):
            return False
    return True


def _pieces(dataset: Dataset, index: int, lengths: Mapping[str, int], chunking: Chunking | None) -> Iterable[Piece]:
    if chunking is None:
        return (Piece(index, dict.fromkeys(lengths, 0), dict(lengths)),)
    return chunking.pieces(index, lengths, dataset.tag(index))


@dataclass
class _Growing:
    """The batch that is being filled: its pieces, and per key the longest of them and their sum."""

    options: BatchOptions
    pieces: list[Piece] = field(default_factory=list)
    longest: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)

    def has_room(self, piece: Piece) -> bool:
        count = len(self.pieces) + 1
        if count == 1:
            return True
        if self.options.max_seqs not in (None, -1) and count > self.options.max_seqs:
            return False
        for key, length in piece.lengths.items():
            frames = max(self.longest[key], length) * count
            size, padding = _limit(self.options.batch_size, key), _limit(self.options.max_pad_size, key)
            if size is not None and frames > size:
                return False
            if padding is not None and frames - self.total[key] - length > padding:
                return False
        return True

    def add(self, piece: Piece, dataset: Dataset) -> None:
        for key, length in piece.lengths.items():
            size = _limit(self.options.batch_size, key)
            if not self.pieces and size is not None and length > size:
                _log.warning(
                    "sequence '%s' has %d frames of '%s', more than batch_size %d; it makes a batch of its own",
                    dataset.tag(piece.index), length, key, size,
                )  # fmt: skip
            self.longest[key] = max(self.longest.get(key, 0), length)
            self.total[key] = self.total.get(key, 0) + length
        self.pieces.append(piece)

    def take(self) -> tuple[Piece, ...]:
        taken = tuple(self.pieces)
        self.pieces, self.longest, self.total = [], {}, {}
        return taken


def cut(sequence: Sequence, piece: Piece, keys: Mapping[str, DataKeySpec]) -> Sequence:
    """The frames of a sequence that a piece names; keys without time stay whole."""
    data = {}
    for key, spec in keys.items():
        array = sequence.data[key]
        if spec.has_time:
            start = piece.starts[key]
            array = array[start : start + piece.lengths[key]]
        data[key] = array
    return Sequence(sequence.tag, sequence.index, data)


def pad(sequences: list[Sequence], keys: Mapping[str, DataKeySpec]) -> Batch:
    """Puts sequences one below the other, the shorter ones filled up with zeros."""
    data: dict[str, NDArray[Any]] = {}
    seq_lens: dict[str, NDArray[np.int32] | Mapping[int, NDArray[np.int32]]] = {}
    for key, spec in keys.items():
        arrays = [sequence.data[key] for sequence in sequences]
        shape = tuple(max(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True))
        padded = np.zeros((len(arrays), *shape), spec.dtype)
        for row, array in enumerate(arrays):
            place: tuple[int | slice, ...] = (row, *map(slice, array.shape))
            padded[place] = array
        data[key] = padded
        varying = [axis for axis, size in enumerate(spec.axes) if size is None]
        lengths = {axis + 1: np.array([array.shape[axis] for array in arrays], np.int32) for axis in varying}
        if varying:
            seq_lens[key] = lengths[1] if varying == [0] else lengths
    tags = tuple(sequence.tag for sequence in sequences)
    return Batch(data, seq_lens, tags, tuple(sequence.index for sequence in sequences))
