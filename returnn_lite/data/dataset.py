"""What a dataset is: named arrays for each sequence, and the order in which an epoch visits the sequences."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from returnn_lite.data.ordering import DEFAULT_ORDERING, SeqOrdering
from returnn_lite.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class DataError(ValueError):
    """Data or data options that cannot be used. The message says which file, sequence or key, and what to do."""


@dataclass(frozen=True)
class DataKeySpec:
    """What the arrays of one data key look like.

    `dim` is the number of classes of sparse data, else the size of the last axis. `shape` lists the axes of one
    sequence with None for the time axis; by default it is ``(None,)`` for sparse and ``(None, dim)`` for dense data.
    `labels` are the names of the classes, empty if they have none.
    """

    dim: int
    sparse: bool = False
    dtype: str = ""
    shape: tuple[int | None, ...] | None = None
    labels: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not self.dtype:
            object.__setattr__(self, "dtype", "int32" if self.sparse else "float32")
        if self.shape is None:
            object.__setattr__(self, "shape", (None,) if self.sparse else (None, self.dim))
        if self.labels and len(self.labels) != self.dim:
            raise DataError(f"{len(self.labels)} labels for {self.dim} classes")

    @property
    def axes(self) -> tuple[int | None, ...]:
        """`shape`, which is always set after construction."""
        assert self.shape is not None
        return self.shape

    @property
    def has_time(self) -> bool:
        """Whether the first axis is a time axis of varying length."""
        return bool(self.axes) and self.axes[0] is None

    def names(self, labels: Iterable[int]) -> tuple[str, ...]:
        """The names of classes; their numbers if the classes have no names."""
        return tuple(self.labels[label] if self.labels else str(label) for label in labels)


@dataclass(frozen=True)
class Sequence:
    """One sequence: its tag, its index in the corpus, and one array per data key (time first)."""

    tag: str
    index: int
    data: Mapping[str, NDArray[Any]]


class Dataset(ABC):
    """A corpus of sequences, addressed by index, that can be visited in an order of its own for each epoch.

    A dataset never changes. One whose content depends on the epoch gives that content with `at_epoch`.
    """

    ordering: SeqOrdering = DEFAULT_ORDERING

    @property
    @abstractmethod
    def keys(self) -> Mapping[str, DataKeySpec]:
        """The data keys with what their arrays look like."""

    @property
    @abstractmethod
    def num_seqs(self) -> int:
        """The number of sequences in the corpus, whatever an epoch leaves out or repeats."""

    @abstractmethod
    def sequence(self, index: int) -> Sequence:
        """The sequence at an index of the corpus, 0 <= index < num_seqs."""

    @abstractmethod
    def lengths(self, key: str) -> NDArray[np.int64]:
        """The lengths in frames of all sequences, in corpus order; ones for a key without a time axis."""

    def tag(self, index: int) -> str:
        """The name of a sequence, without loading it."""
        return f"seq-{index}"

    def at_epoch(self, epoch: int) -> Dataset:
        """The dataset as it is in an epoch (1-based): itself, unless its content is drawn anew for each epoch."""
        return self

    def references(self, index: int, key: str) -> tuple[tuple[str, ...], ...]:
        """The gold label sequences for a sequence, any of which counts as correct: by default its one target.

        An end label that the dataset appends is not part of them. Raises DataError if `key` is not sparse.
        """
        spec = self.keys.get(key)
        if spec is None or not spec.sparse:
            raise DataError(
                f"there are no label sequences under the data key '{key}'; the dataset has {dict(self.keys)}"
            )
        return (spec.names(self.sequence(index).data[key]),)

    @property
    def sorting_key(self) -> str:
        """The data key whose lengths the length-based orders look at."""
        return "data" if "data" in self.keys else next(iter(self.keys))

    def epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """The indices that an epoch visits, in its order (already one part of them with `partition_epoch`).

        Lengths and tags are only looked at if the order depends on them.
        """
        return self.ordering.order(epoch, self.num_seqs, lengths=lambda: self.lengths(self.sorting_key), tag=self.tag)


def check_sequence(sequence: Sequence, keys: Mapping[str, DataKeySpec]) -> None:
    """Raises DataError if an array has another shape than declared, or holds NaN, infinity, or a label out of range."""
    for key, spec in keys.items():
        where = f"sequence '{sequence.tag}', data key '{key}'"
        if key not in sequence.data:
            raise DataError(f"{where}: there is no such data; the sequence has {sorted(sequence.data)}")
        array = sequence.data[key]
        fits = len(array.shape) == len(spec.axes) and all(
            want is None or want == got for want, got in zip(spec.axes, array.shape, strict=True)
        )
        if not fits:
            declared = "[" + ", ".join("time" if axis is None else str(axis) for axis in spec.axes) + "]"
            raise DataError(f"{where}: the array has shape {list(array.shape)}, declared is {declared}")
        if spec.sparse:
            _check_labels(array, spec.dim, where)
        elif np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            bad = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise DataError(f"{where}: the value at {list(bad)} is {array[bad]}; training data must be finite")


def _check_labels(labels: NDArray[Any], num_classes: int, where: str) -> None:
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{where}: sparse data must be integers, got {labels.dtype}")
    if labels.size and not (labels.min() >= 0 and labels.max() < num_classes):
        position = int(np.argmax((labels < 0) | (labels >= num_classes)))
        raise DataError(
            f"{where}: label {int(labels.flat[position])} at position {position} is not in 0..{num_classes - 1}; "
            f"the data key is declared with dim {num_classes}"
        )
